"""Miniature trees of the official layouts: tiny volumes where each owner would put them, labels from the card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

CASES = 5
SHAPE = (20, 18, 12)
SPACING = (4.0, 4.0, 6.0)
SITES = ("BIDMC", "BMC", "HK", "I2CVB", "RUNMC", "UCL")


def released_values(card: dict) -> list[int]:
    """Return the label values as released: the merged ones where the card merges, else the classes."""
    kept = [int(value) for value in card["classes"] if int(value) not in card["merge"].values()]
    merged = {target: source for source, target in card["merge"].items()}
    return sorted(kept + [merged[value] for value in sorted(merged)])


def volume(path: Path, *, modality: str, number: int, rng: np.random.Generator) -> None:
    """Write one channel with plausible units."""
    noise = rng.normal(size=SHAPE)
    data = {"CT": 100 * noise, "MR": 300 + 50 * noise, "PET": np.abs(noise)}[modality]
    save(path, data.astype(np.float32))


def label(path: Path, values: list[int], *, rng: np.random.Generator) -> None:
    """Write a label map in which every released value has a block."""
    data = np.zeros(SHAPE, dtype=np.uint8)
    for position, value in enumerate(values):
        start = 1 + position % 17
        data[start : start + 3, 4:14, 2 : 4 + int(rng.integers(1, 6))] = value
    save(path, data)


def save(path: Path, data: np.ndarray) -> None:
    """Write a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.diag([*SPACING, 1.0])), path)


def places(name: str, folder: Path, number: int) -> tuple[list[Path], Path]:
    """Return (image files, label file) of a case in the official layout of a data set."""
    if name == "lits":
        batch = folder / f"Training Batch {1 + number % 2}"
        return [batch / f"volume-{number}.nii"], batch / f"segmentation-{number}.nii"
    if name == "kits19":
        case = folder / "data" / f"case_{number:05d}"
        return [case / "imaging.nii.gz"], case / "segmentation.nii.gz"
    if name == "verse20":
        part = folder / ("dataset-01training", "dataset-02validation", "dataset-03test")[number % 3]
        case = f"sub-verse{500 + number}"
        image = part / "rawdata" / case / f"{case}_dir-ax_ct.nii.gz"
        return [image], part / "derivatives" / case / f"{case}_dir-ax_seg-vert_msk.nii.gz"
    if name == "prostate_saml":
        site = folder / SITES[number % len(SITES)]
        kind = "Segmentation" if site.name == "BMC" else "segmentation"
        return [site / f"Case{number:02d}.nii.gz"], site / f"Case{number:02d}_{kind}.nii.gz"
    if name == "brats21":
        case = f"BraTS2021_{number:05d}"
        images = [folder / case / f"{case}_{channel}.nii.gz" for channel in ("t1", "t1ce", "t2", "flair")]
        return images, folder / case / f"{case}_seg.nii.gz"
    if name == "autopet22":
        study = folder / f"PETCT_{number:010x}" / "01-02-2003-NA-PET-CT"
        return [study / "CTres.nii.gz", study / "SUV.nii.gz"], study / "SEG.nii.gz"
    if name.startswith("btcv"):
        part = folder / "RawData" / "Training"
        return [part / "img" / f"img{number:04d}.nii.gz"], part / "label" / f"label{number:04d}.nii.gz"
    if name == "vs_seg":
        case = folder / f"vs_gk_{number}"
        return [case / "vs_gk_t1_refT1.nii.gz"], case / "vs_gk_seg_refT1.nii.gz"
    case = f"{name.removeprefix('msd_').replace('_', '')}_{number:03d}.nii.gz"
    return [folder / "imagesTr" / case], folder / "labelsTr" / case


def write_tree(root: Path, name: str, card: dict, *, cases: int = CASES, numbers: Sequence[int] | None = None) -> None:
    """Write a miniature of one data set below the data root: cases 1 to `cases`, or those with the given numbers."""
    folder = root / card["folder"]
    rng = np.random.default_rng(sum(map(ord, name)))
    listed = []
    for number in numbers or range(1, cases + 1):
        images, target = places(name, folder, number)
        for path, channel in zip(images, card["channels"], strict=True):
            volume(path, modality=channel["modality"], number=number, rng=rng)
        label(target, released_values(card), rng=rng)
        listed.append({"image": f"./imagesTr/{images[0].name}", "label": f"./labelsTr/{target.name}"})
    if card["layout"] == "msd":
        (folder / "dataset.json").write_text(
            json.dumps({"modality": {"0": "CT"}, "labels": {"0": "background", **card["classes"]}, "training": listed})
        )
