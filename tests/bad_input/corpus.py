"""A corpus of bad data sets, generated: each kind corrupts one healthy Decathlon folder in one way.

`KINDS` maps a kind to (what corrupts the folder, words that the one line of the problem must hold).
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (8, 7, 6)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
Corrupt = Callable[[Path], None]


def healthy(folder: Path, *, channels: int = 1, modality: tuple[str, ...] = ("CT",)) -> None:
    """Write a small data set without problem: three cases with a liver and a tumour."""
    listed = []
    for number in range(3):
        rng = np.random.default_rng(number)
        shape = SHAPE if channels == 1 else (*SHAPE, channels)
        images = rng.normal(0, 150, size=shape).astype(np.float32)
        if "PET" in modality:
            images[..., modality.index("PET")] = np.abs(images[..., modality.index("PET")]) / 50
        labels = np.zeros(SHAPE, dtype=np.uint8)
        labels[2:6, 2:5, 1:4] = 1
        labels[3, 3, 2] = 2
        write(folder / "imagesTr" / f"case_{number}.nii.gz", images)
        write(folder / "labelsTr" / f"case_{number}.nii.gz", labels)
        listed.append({"image": f"./imagesTr/case_{number}.nii.gz", "label": f"./labelsTr/case_{number}.nii.gz"})
    content = {
        "modality": {str(number): name for number, name in enumerate(modality)},
        "labels": {"0": "background", "1": "liver", "2": "tumour"},
        "numTraining": 3,
        "training": listed,
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def write(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    """Write a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)


def image(folder: Path) -> Path:
    """The image that is corrupted."""
    return folder / "imagesTr" / "case_1.nii.gz"


def label(folder: Path) -> Path:
    """The label that is corrupted."""
    return folder / "labelsTr" / "case_1.nii.gz"


def voxels(path: Path) -> np.ndarray:
    """Voxels of a file as float."""
    return np.asarray(nib.load(path).dataobj).astype(np.float32)


def edit_image(change: Callable[[np.ndarray], np.ndarray]) -> Corrupt:
    """Replace the image's voxels."""
    return lambda folder: write(image(folder), change(voxels(image(folder))))


def edit_label(change: Callable[[np.ndarray], np.ndarray], dtype: type = np.float32) -> Corrupt:
    """Replace the label's voxels."""
    return lambda folder: write(label(folder), change(voxels(label(folder))).astype(dtype))


def move_label(change: Callable[[np.ndarray], np.ndarray]) -> Corrupt:
    """Replace the label's affine."""
    return lambda folder: write(label(folder), voxels(label(folder)).astype(np.uint8), change(AFFINE.copy()))


def edit_listing(change: Callable[[dict], object]) -> Corrupt:
    """Change dataset.json in place."""

    def corrupt(folder: Path) -> None:
        path = folder / "dataset.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return corrupt


def header_bytes(offset: int, content: bytes, which: Callable[[Path], Path] = image) -> Corrupt:
    """Overwrite bytes of the NIfTI header (the format's own offsets)."""

    def corrupt(folder: Path) -> None:
        raw = bytearray(gzip.decompress(which(folder).read_bytes()))
        raw[offset : offset + len(content)] = content
        which(folder).write_bytes(gzip.compress(bytes(raw)))

    return corrupt


def set_at(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Set one voxel."""

    def change(data: np.ndarray) -> np.ndarray:
        data[0, 0, 0] = value
        return data

    return change


def scaled(axis: int, factor: float) -> Callable[[np.ndarray], np.ndarray]:
    """Scale one axis of an affine."""

    def change(affine: np.ndarray) -> np.ndarray:
        affine[axis, axis] *= factor
        return affine

    return change


def shifted(affine: np.ndarray) -> np.ndarray:
    """Move the origin by 5 mm."""
    affine[0, 3] += 5
    return affine


def truncate(which: Callable[[Path], Path], fraction: float) -> Corrupt:
    """Cut a file."""
    return lambda folder: which(folder).write_bytes(which(folder).read_bytes()[: int(fraction * 1000) or 1])


def twin(folder: Path) -> None:
    """Give the same voxels a second name."""
    shutil.copy(image(folder), folder / "imagesTr" / "case_2.nii.gz")


def pipe(path: Path) -> None:
    """Put a named pipe in a file's place: who reads it waits for ever."""
    path.unlink()
    os.mkfifo(path)


def circle(folder: Path) -> None:
    """Replace the image by a link to itself."""
    image(folder).unlink()
    image(folder).symlink_to(image(folder))


def other_case(folder: Path) -> None:
    """Add a case whose id differs from the first one's in letter case alone."""
    for kind in ("imagesTr", "labelsTr"):
        shutil.copy(folder / kind / "case_1.nii.gz", folder / kind / "Case_1.nii.gz")
    write(folder / "imagesTr" / "Case_1.nii.gz", voxels(image(folder)) + 1)
    named = {"image": "imagesTr/Case_1.nii.gz", "label": "labelsTr/Case_1.nii.gz"}
    edit_listing(lambda content: content["training"].append(named) or content.update(numTraining=4))(folder)


def in_units(factor: float) -> Corrupt:
    """Write image and label with voxel sizes in another unit than millimetres."""

    def corrupt(folder: Path) -> None:
        affine = AFFINE * factor
        affine[3, 3] = 1
        write(image(folder), voxels(image(folder)), affine)
        write(label(folder), voxels(label(folder)).astype(np.uint8), affine)

    return corrupt


def colour(folder: Path) -> None:
    """Replace the image by one with red, green and blue in every voxel."""
    data = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(data, AFFINE), image(folder))


def listing_text(text: str | bytes) -> Corrupt:
    """Replace the content of dataset.json."""
    content = text if isinstance(text, bytes) else text.encode()
    return lambda folder: (folder / "dataset.json").write_bytes(content)


def first(content: dict) -> dict:
    """The entry of the corrupted case."""
    return content["training"][1]


def sform(rows: list[list[float]]) -> bytes:
    """Bytes of the three sform rows."""
    return struct.pack("<12f", *(value for row in rows for value in row))


NAN, INF = float("nan"), float("inf")
KINDS: dict[str, tuple[Corrupt, tuple[str, ...]]] = {
    "truncated gzip image": (truncate(image, 0.2), ("case_1", "cannot be")),
    "truncated gzip label": (truncate(label, 0.08), ("case_1", "cannot be")),
    "empty file": (lambda folder: image(folder).write_bytes(b""), ("case_1", "cannot be")),
    "not a NIfTI": (lambda folder: image(folder).write_bytes(gzip.compress(b"hello" * 200)), ("case_1", "cannot be")),
    "not gzip": (lambda folder: image(folder).write_bytes(b"\x00" * 400), ("case_1", "cannot be")),
    "image missing": (lambda folder: image(folder).unlink(), ("imagesTr/case_1.nii.gz", "no file")),
    "label missing": (lambda folder: label(folder).unlink(), ("labelsTr/case_1.nii.gz", "no file")),
    "image is a folder": (lambda folder: (image(folder).unlink(), image(folder).mkdir()), ("case_1", "cannot be")),
    "4D where 3D is expected": (edit_image(lambda data: np.stack([data, data], -1)), ("2 channel(s)", "expected 1")),
    "2D image": (edit_image(lambda data: data[..., 0]), ("case_1", "3 axes")),
    "4D label": (edit_label(lambda data: np.stack([data, data], -1)), ("label of shape", "3 axes")),
    "label of another shape": (edit_label(lambda data: data[:-1]), ("shape (7, 7, 6)", "(8, 7, 6)")),
    "label shifted": (move_label(shifted), ("affine that differs", "up to 5 mm apart", "with that header")),
    "label flipped": (move_label(scaled(0, -1)), ("orientation", "labelsTr/case_1")),
    "label scaled": (move_label(scaled(2, 1.5)), ("affine that differs", "mm apart")),
    "undeclared label value": (edit_label(set_at(7)), ("undeclared label values [7]", "[0, 1, 2]")),
    "negative label value": (edit_label(set_at(-1)), ("undeclared label values [-1]",)),
    "fractional label value": (edit_label(set_at(0.5)), ("fractional label values [0.5]", "nearest neighbour")),
    "label value nan": (edit_label(set_at(NAN)), ("label values that are not finite",)),
    "image with nan": (edit_image(set_at(NAN)), ("case_1", "not finite")),
    "image with infinity": (edit_image(set_at(INF)), ("case_1", "not finite")),
    "image beyond float32": (
        lambda folder: write(image(folder), voxels(image(folder)).astype(np.float64) * 1e300),
        ("case_1", "at most 3.4e+38 (float32)"),
    ),
    "constant image": (edit_image(np.zeros_like), ("constant image (0)",)),
    "CT in 0 to 1": (edit_image(lambda data: data / np.abs(data).max()), ("CT channel", "Hounsfield")),
    "zero spacing": (header_bytes(84, struct.pack("<f", 0.0)), ("voxel sizes [2.0, 0.0", "positive")),
    "negative spacing": (header_bytes(84, struct.pack("<f", -2.0)), ("case_1", "positive")),
    "spacing nan": (header_bytes(84, struct.pack("<f", NAN)), ("case_1",)),
    "singular affine": (
        header_bytes(280, sform([[2, 0, 0, 0], [2, 0, 0, 0], [0, 0, 3, 0]])),
        ("singular affine", "three independent axes"),
    ),
    "affine nan": (header_bytes(280, sform([[NAN, 0, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0]])), ("affine", "not finite")),
    "scale factor overflows": (header_bytes(112, struct.pack("<f", 3e38)), ("scl_slope", "finite")),
    "offset overflows": (header_bytes(112, struct.pack("<2f", 1.0, 3e38)), ("scl_inter", "finite")),
    "giant header dimensions": (
        header_bytes(40, struct.pack("<8h", 3, 32000, 32000, 32000, 1, 1, 1, 1)),
        ("a header that expects 32768000000000 voxels",),
    ),
    "unknown data type": (header_bytes(70, struct.pack("<h", 12345)), ("case_1", "cannot be")),
    "more voxels expected than stored": (header_bytes(40, struct.pack("<4h", 3, 8, 7, 60)), ("case_1",)),
    "no dataset.json": (lambda folder: (folder / "dataset.json").unlink(), ("dataset.json", "Decathlon or nnU-Net")),
    "dataset.json is not JSON": (lambda folder: (folder / "dataset.json").write_text("{"), ("not JSON",)),
    "dataset.json is a list": (lambda folder: (folder / "dataset.json").write_text("[]"), ("list", "a mapping")),
    "dataset.json lies about the count": (edit_listing(lambda d: d.update(numTraining=5)), ("numTraining 5", "3")),
    "dataset.json without labels": (edit_listing(lambda d: d.pop("labels")), ("no labels",)),
    "labels are words": (edit_listing(lambda d: d.update(labels={"liver": "one"})), ("whole-number values",)),
    "empty list of cases": (edit_listing(lambda d: d.update(training=[])), ("no training cases",)),
    "entry without label": (edit_listing(lambda d: first(d).pop("label")), ("training[1]", "an image and a label")),
    "duplicate case id": (
        edit_listing(lambda d: d["training"].append(dict(first(d))) or d.update(numTraining=4)),
        ("case_1: found the case id 2 times",),
    ),
    "path outside the folder": (
        edit_listing(lambda d: first(d).update(image="../outside.nii.gz")),
        ("a path outside the folder",),
    ),
    "absolute path": (edit_listing(lambda d: first(d).update(image="/etc/hostname")), ("a path outside the folder",)),
    "one patient under two ids": (twin, ("the voxels of case_1.nii.gz", "one patient under one id")),
    "image is a pipe": (lambda folder: pipe(image(folder)), ("case_1", "no regular file")),
    "dataset.json is a pipe": (lambda folder: pipe(folder / "dataset.json"), ("dataset.json", "no regular file")),
    "dataset.json is empty": (listing_text(""), ("not JSON",)),
    "dataset.json is no text": (listing_text(b'{"labels": "\xff\xfe"}'), ("not JSON", "another encoding than UTF-8")),
    "dataset.json is nested without end": (listing_text("[" * 100_000), ("not JSON",)),
    "dataset.json has a key twice": (
        listing_text('{"labels": {"0": "background"}, "labels": {"1": "liver"}}'),
        ("the key 'labels' twice",),
    ),
    "count in words": (edit_listing(lambda d: d.update(numTraining="three")), ("numTraining 'three'", "expected 3")),
    "label declared as infinity": (edit_listing(lambda d: d.update(labels={"liver": INF})), ("whole-number values",)),
    "label declared as a fraction": (edit_listing(lambda d: d.update(labels={"liver": 1.5})), ("whole-number values",)),
    "channels as a list": (edit_listing(lambda d: d.update(modality=["CT"])), ("channels ['CT']", '"0": name')),
    "channels that do not count from 0": (edit_listing(lambda d: d.update(modality={"1": "CT"})), ('"0": name',)),
    "label path is a number": (edit_listing(lambda d: first(d).update(label=5)), ("training[1]", "image and a label")),
    "path with a zero byte": (edit_listing(lambda d: first(d).update(image="a\0b")), ("no path", "null byte")),
    "path too long": (edit_listing(lambda d: first(d).update(image="a" * 5000)), ("no path", "too long")),
    "links in a circle": (circle, ("no path",)),
    "one file as image and label": (
        edit_listing(lambda d: first(d).update(label=first(d)["image"])),
        ("one file as image and as label",),
    ),
    "one label for two cases": (
        edit_listing(lambda d: first(d).update(label=d["training"][0]["label"])),
        ("the label of case_0 and case_1",),
    ),
    "case ids that differ in letter case": (other_case, ("case ids Case_1 and case_1", "letter case")),
    "voxel sizes in metres": (in_units(0.001), ("voxel sizes [0.002", "millimetres")),
    "voxel sizes in micrometres": (in_units(1000), ("voxel sizes [2000", "millimetres")),
    "complex voxels": (
        lambda folder: write(image(folder), voxels(image(folder)).astype(np.complex64)),
        ("complex64", "one real"),
    ),
    "colour voxels": (colour, ("case_1", "one real number")),
    "negative dimension": (header_bytes(42, struct.pack("<h", -8)), ("case_1",)),
    "voxels beyond the end": (header_bytes(108, struct.pack("<f", 1e9)), ("case_1", "cannot be")),
    "more voxels than the file can hold": (
        header_bytes(40, struct.pack("<4h", 3, 1200, 1200, 1200)),
        ("1728000000 voxels, more than the file can hold",),
    ),
    "missing channel": (
        edit_listing(lambda d: d.update(modality={"0": "CT", "1": "CT"})),
        ("1 channel(s)", "expected 2"),
    ),
}
