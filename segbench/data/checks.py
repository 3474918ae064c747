"""Check labelled volumes before anything is written; all faults of a data set come in one list.

Headers are judged before voxels are read, so a header that promises a giant volume costs nothing.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from segbench.core.case import CaseFiles
from segbench.core.errors import Fault, InputFaults
from segbench.core.progress import Progress
from segbench.core.task import Task
from segbench.data.ingest import discover
from segbench.data.layouts import dataset_json, folder_cases

MAX_VOXELS = 4096**3 // 8
AFFINE_TOLERANCE_MM = 1e-2
LARGEST_FACTOR = 1e28  # a 32-bit integer times this is still a finite float32
UNREADABLE = (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError, OverflowError,
              nib.spatialimages.HeaderDataError)  # fmt: skip


def check_task(task: Task, card: dict, data_root: Path) -> list[Fault]:
    """Return every fault of a task's files; an empty list when all is well."""
    try:
        cases = discover(task.name, card, data_root)
    except InputFaults as error:
        return list(error.faults)
    values = {int(value) for value in card["classes"]} | {int(value) for value in card.get("merge", {})} | {0}
    modalities = [channel.modality for channel in task.channels]
    faults = list(_count_faults(card, cases, data_root / card["folder"]))
    return faults + _check_cases(cases, values, modalities, title=task.name)


def check_folder(folder: Path) -> tuple[str, list[Fault]]:
    """Check a folder from its dataset.json alone; return one line of summary and every fault."""
    try:
        content = dataset_json(folder)
        cases = folder_cases(folder, content, patient_of=lambda case: case)
        stated = content.get("numTraining")
        names = content.get("channel_names") or content.get("modality") or {}
        values = _label_values(folder, content)
    except InputFaults as error:
        return f"{folder}: refused", list(error.faults)
    faults = []
    if isinstance(stated, int) and stated != len(cases):
        faults.append(
            Fault(str(folder / "dataset.json"), f"numTraining {stated}", f"{len(cases)}, the cases it lists",
                  "mend the number or the list")
        )  # fmt: skip
    modalities = [_modality(str(names[key])) for key in sorted(names, key=str)] or ["MR"]
    faults += _check_cases(cases, values, modalities, title=folder.name)
    state = "refused" if faults else "accepted"
    return f"{folder}: {state}, {len(cases)} cases, {len(modalities)} channel(s), labels {sorted(values)}", faults


def _modality(name: str) -> str:
    return {"CT": "CT", "PET": "PET", "PT": "PET"}.get(name.upper(), "MR")


def _label_values(folder: Path, content: dict) -> set[int]:
    labels = content.get("labels")
    where = str(folder / "dataset.json")
    if not isinstance(labels, dict) or not labels:
        raise InputFaults([Fault(where, "no labels", "a mapping of label values to names", "add `labels`")])
    try:
        if all(str(key).isdigit() for key in labels):
            return {int(key) for key in labels}
        return {int(value) for value in np.hstack([np.atleast_1d(value) for value in labels.values()])}
    except (TypeError, ValueError) as error:
        raise InputFaults([Fault(where, f"labels {labels}", "whole-number values", "mend `labels`")]) from error


def _count_faults(card: dict, cases: list[CaseFiles], folder: Path) -> Iterator[Fault]:
    expected = sum(card["expected_cases"].values())
    if not cases:
        yield Fault(str(folder), "no labelled case", card["title"], card["obtain"])
    elif expected and not card["synthetic"] and len(cases) < expected:
        yield Fault(str(folder), f"{len(cases)} labelled cases", f"{expected}", f"get the rest: {card['obtain']}")


def _check_cases(cases: list[CaseFiles], values: set[int], modalities: list[str], *, title: str) -> list[Fault]:
    faults = [
        Fault(f"{title}/{case_id}", f"the case id {count} times", "each once", "rename the files")
        for case_id, count in Counter(case.case_id for case in cases).items()
        if count > 1
    ]
    contents: dict[int, CaseFiles] = {}
    with Progress(total=len(cases), title=f"check {title}") as progress:
        for case in cases:
            found, content = check_case(case, values, modalities)
            faults += found
            twin = contents.setdefault(content, case) if content is not None else case
            if twin.patient_id != case.patient_id:
                faults.append(
                    Fault(str(case.image_paths[0]), f"the voxels of {twin.image_paths[0].name}",
                          "one patient under one id", "give both cases the same patient id, or remove one")
                )  # fmt: skip
            progress.advance(case.case_id)
    return faults


def check_case(case: CaseFiles, values: set[int], modalities: list[str]) -> tuple[list[Fault], int | None]:
    """Return the faults of one case and a checksum of its voxels (None when they could not be read)."""
    opened = [_open(path) for path in (*case.image_paths, case.label_path)]
    faults = [found for _, found in opened if found]
    if faults:
        return faults, None
    headers = [header for header, _ in opened]
    faults = [item for header in headers for item in _header_faults(header)]
    faults += _geometry_faults(headers[:-1], headers[-1], modalities)
    if faults:
        return faults, None
    return _voxel_faults(headers[:-1], headers[-1], values, modalities)


def _open(path: Path | None) -> tuple[nib.Nifti1Image | None, Fault | None]:
    if path is None or not path.exists():
        return None, Fault(
            str(path), "no file", "a file that the data set lists", "get the file, or leave the case out"
        )
    try:
        image = nib.load(path)
    except UNREADABLE as error:
        return None, Fault(str(path), f"a file that cannot be opened ({_short(error)})", "NIfTI", "get the file again")
    return image, None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__


def _path(image: nib.Nifti1Image) -> str:
    return str(image.get_filename())


def _header_faults(image: nib.Nifti1Image) -> Iterator[Fault]:
    path, shape = _path(image), image.shape
    if len(shape) not in (3, 4) or min(shape) < 1:
        yield Fault(path, f"shape {shape}", "3 axes, or 4 with channels last", "mend the file")
        return
    if math.prod(shape) > MAX_VOXELS:
        yield Fault(path, f"a header that promises {math.prod(shape)} voxels", "a volume that fits", "mend the header")
    affine = image.affine
    if affine is None or not np.isfinite(affine).all():
        yield Fault(path, "an affine that is not finite", "millimetres", "mend the header")
        return
    stored = _stored_header(image)
    if stored is None:
        return
    sizes = np.asarray(stored["pixdim"][1:4], dtype=float)
    if not np.isfinite(sizes).all() or (sizes <= 0).any():
        yield Fault(path, f"voxel sizes {sizes.tolist()}", "positive millimetres", "mend pixdim")
    elif abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        yield Fault(path, "a singular affine", "three independent axes", "mend the header")
    for key in ("scl_slope", "scl_inter"):
        value = float(stored[key])
        if math.isinf(value) or abs(value) > LARGEST_FACTOR:
            yield Fault(path, f"{key} {value:g}", "a factor whose result is a finite number", "mend the header")


def _stored_header(image: nib.Nifti1Image) -> nib.Nifti1Header | None:
    """Return a NIfTI header as it is stored, before nibabel mends it; None for other formats."""
    if not isinstance(image, nib.Nifti1Image):
        return None
    with nib.openers.ImageOpener(image.get_filename()) as stream:
        return image.header_class.from_fileobj(stream, check=False)


def _geometry_faults(images: list, label, modalities: list[str]) -> Iterator[Fault]:
    path = _path(label)
    if len(label.shape) != 3:
        yield Fault(path, f"a label of shape {label.shape}", "3 axes", "store one label map per case")
        return
    channels = images[0].shape[3] if len(images) == 1 and len(images[0].shape) == 4 else len(images)
    if any(len(image.shape) == 4 for image in images) and len(images) > 1:
        yield Fault(_path(images[0]), "several files of which one is 4D", "one file per channel", "split the 4D file")
    if channels != len(modalities):
        yield Fault(_path(images[0]), f"{channels} channel(s)", f"{len(modalities)}", "add or remove channels")
    for image in images:
        if image.shape[:3] != label.shape:
            yield Fault(path, f"shape {label.shape}", f"the image's {image.shape[:3]}", "resample the label")
        elif not np.allclose(image.affine, label.affine, atol=AFFINE_TOLERANCE_MM):
            worst = float(np.abs(image.affine - label.affine).max())
            yield Fault(path, f"an affine that differs by up to {worst:.4g} from {_path(image)}",
                        f"the image's within {AFFINE_TOLERANCE_MM}", "copy the image's header")  # fmt: skip


def _voxel_faults(images: list, label, values: set[int], modalities: list[str]) -> tuple[list[Fault], int | None]:
    try:
        volumes = []
        for image in images:
            data = np.asarray(image.dataobj)
            volumes += [data] if data.ndim == 3 else list(np.moveaxis(data, -1, 0))
        labels = np.asarray(label.dataobj)
    except UNREADABLE as error:
        where = f"{_path(images[0])} or its label"
        return [
            Fault(where, f"voxels that cannot be read ({_short(error)})", "whole files", "get the files again")
        ], None
    faults = list(_label_faults(labels, _path(label), values))
    checksum = 0
    for number, (volume, modality) in enumerate(zip(volumes, modalities, strict=True)):
        faults += _channel_faults(volume, f"{_path(images[min(number, len(images) - 1)])} channel {number}", modality)
        checksum = zlib.crc32(np.ascontiguousarray(volume).tobytes(), checksum)
    return faults, checksum


def _label_faults(labels: np.ndarray, path: str, values: set[int]) -> Iterator[Fault]:
    found = np.unique(labels)
    if not np.isfinite(found.astype(float)).all():
        yield Fault(path, "label values that are not finite", f"values of {sorted(values)}", "mend the label")
        return
    fractional = [float(value) for value in found if value != int(value)]
    if fractional:
        yield Fault(path, f"fractional label values {fractional[:3]}", "whole numbers", "resample by nearest neighbour")
        return
    unknown = [int(value) for value in found if int(value) not in values]
    if unknown:
        yield Fault(path, f"undeclared label values {unknown[:5]}", f"values of {sorted(values)}",
                    "mend the label, or declare or merge the value in the card")  # fmt: skip


def _channel_faults(volume: np.ndarray, where: str, modality: str) -> Iterator[Fault]:
    low, high = float(volume.min()), float(volume.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        yield Fault(where, "voxels that are not finite", "finite numbers", "mend the image")
    elif low == high:
        yield Fault(where, f"a constant image ({low:g})", "an image", "get the file again, or leave the case out")
    elif modality == "CT" and high - low < 100:
        yield Fault(where, f"values from {low:g} to {high:g} in a CT channel", "Hounsfield-like units",
                    "mend the order of channels, or the rescaling")  # fmt: skip
    elif modality == "PET" and low < -100:
        yield Fault(where, f"values from {low:g} in a PET channel", "uptake, not below zero",
                    "mend the order of channels")  # fmt: skip
