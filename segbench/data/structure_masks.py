"""Merge a mask per structure into one label map per case, with a table of the classes that were looked for."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segbench.core.errors import InputError, Problem, input_error, raise_problems, some
from segbench.core.files import part_prefix, write_text
from segbench.core.folders import HIDDEN
from segbench.core.progress import Progress
from segbench.data.geometry import write_prediction
from segbench.data.layouts import stem
from segbench.data.volumes import (
    UNREADABLE,
    Volume,
    grid_difference,
    raise_if_input_error,
    readable_volume,
    whole_numbers,
)

TABLE = "cases.csv"
LABELS = "labels"


@dataclass(frozen=True)
class Merged:
    """What was written: how many cases, how many have a mask of each structure, and voxels that several masks claim.

    shared_voxels: case -> how many.
    """

    cases: int
    with_mask: Mapping[str, int]
    shared_voxels: Mapping[str, int]


def merge_folder(folder: Path, *, images: Mapping[str, str], masks: str, structures: Sequence[str]) -> Merged:
    """Write `labels/CASE.nii.gz` and `cases.csv`, the layout `table`, into a folder with a subfolder per case.

    The class values are 1, 2, ... in the order of the structures; a voxel that several masks claim gets the last of
    them. A structure without a file was not looked for, an empty mask is a structure that is not there. Every case is
    its own patient.

    Args:
        folder: holds a subfolder per case.
        images: channel name -> name of its file in the folder of a case. A subfolder with neither an image of the first
            channel nor a mask of a structure is no case.
        masks: folder of the masks in the folder of a case, `.` for itself.
        structures: names of the mask files without suffix.

    Raises:
        InputError: for whatever is missing, on another grid, no mask, or in the way; nothing is written then.
    """
    if not folder.is_dir():
        raise input_error(folder, found="no such folder", expected="a folder with a subfolder per case", fix="fix it")
    if (folder / TABLE).exists() or (folder / LABELS).exists():
        found, fix = f"{TABLE} or {LABELS}/", "move both away to merge anew"
        raise input_error(folder, found=found, expected="neither", fix=fix)
    first = next(iter(images.values()))
    below = [path for path in sorted(folder.iterdir()) if not path.name.startswith(HIDDEN)]
    if not any((path / first).is_file() for path in below):
        raise input_error(folder, found=f"no subfolder with {first}", expected="one per case", fix="fix --image")
    cases = [path for path in below if (path / first).is_file() or any(_masks(path / masks, structures).values())]
    problems: list[Problem] = []
    rows, shared, with_mask = [], {}, dict.fromkeys(structures, 0)
    with tempfile.TemporaryDirectory(prefix=part_prefix(), dir=folder) as scratch:
        labels = Path(scratch) / LABELS
        with Progress(total=len(cases), title="merge masks") as progress:
            for case in cases:
                try:
                    labels_XYZ, found, shared[case.name] = _merged(case, images, case / masks, structures)
                    write_prediction(labels / f"{case.name}.nii.gz", labels_XYZ, like=case / first)
                    rows.append(_row(case.name, images, found, structures))
                    with_mask |= {name: with_mask[name] + 1 for name in found}
                except InputError as error:
                    problems += error.problems
                progress.advance(case.name)
        raise_problems(problems)
        labels.rename(folder / LABELS)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([["case", "patient", "label", *images, "annotated"], *rows])
    write_text(folder / TABLE, stream.getvalue())
    return Merged(len(cases), with_mask, {case: count for case, count in shared.items() if count})


def _row(case: str, images: Mapping[str, str], found: Sequence[str], structures: Sequence[str]) -> list[str]:
    annotated = "" if len(found) == len(structures) else "|".join(found)
    return [case, case, f"{LABELS}/{case}.nii.gz", *(f"{case}/{name}" for name in images.values()), annotated]


def _merged(
    case: Path, images: Mapping[str, str], masks: Path, structures: Sequence[str]
) -> tuple[np.ndarray, list[str], int]:
    """Return labels_XYZ (uint8) of a case, the structures that have a mask, and how many voxels several claim."""
    absent = [name for name in images.values() if not (case / name).is_file()]
    raise_problems(Problem(str(case / name), "no file", "an image per channel", "get the file") for name in absent)
    image = readable_volume(case / next(iter(images.values())))
    files = _masks(masks, structures)
    twice = [paths for paths in files.values() if len(paths) > 1]
    raise_problems(
        Problem(str(masks), some([path.name for path in paths]), "one file per structure", "remove the stale one")
        for paths in twice
    )
    raise_problems(
        Problem(str(paths[0]), "another spelling of a structure", f"{name}, as in --structures", "rename the file")
        for name, paths in files.items()
        if paths and stem(paths[0].name) != name
    )
    found = [name for name in structures if files[name]]
    if not found:
        fix = "fix --masks and --structures, or move the case away"
        raise input_error(
            masks, found="no mask of a structure", expected=f"files such as {structures[0]}.nii.gz", fix=fix
        )
    labels_XYZ, shared = np.zeros(image.shape[:3], np.uint8), 0
    for value, name in enumerate(structures, start=1):
        if files[name]:
            mask_XYZ = _mask(readable_volume(files[name][0]), image)
            shared += int(np.count_nonzero(labels_XYZ[mask_XYZ]))
            labels_XYZ[mask_XYZ] = value
    return labels_XYZ, found, shared


def _masks(folder: Path, structures: Sequence[str]) -> dict[str, list[Path]]:
    """Return structure -> its mask files in a folder, by names in any letter case."""
    files: dict[str, list[Path]] = {name: [] for name in structures}
    of_name = {name.casefold(): name for name in structures} | {name: name for name in structures}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        name = stem(path.name)
        if path.name != name and (found := of_name.get(name) or of_name.get(name.casefold())):
            files[found].append(path)
    return files


def _mask(volume: Volume, image: Volume) -> np.ndarray:
    """Return where a mask is, on the grid of the image; anything but 0 and one other value raises InputError."""
    alike = volume.is_oriented == image.is_oriented
    other = grid_difference((image.shape[:3], image.affine), (volume.shape, volume.affine), both_oriented=alike)
    if other or len(volume.shape) != 3:
        found, expected, fix = other or (f"shape {volume.shape}", "3 axes", "store one mask per file")
        raise input_error(volume.path, found=found, expected=f"{expected}, as {image.path}", fix=fix)
    try:
        values = whole_numbers(volume.voxels())
    except UNREADABLE as error:
        raise_if_input_error(error)
        raise input_error(
            volume.path, found="voxels that cannot be read", expected="a whole file", fix="get it again"
        ) from error
    present = np.unique(values)
    if len(present[present != 0]) > 1 or not (np.isfinite(present) & (present == np.round(present))).all():
        found, expected = f"values {some([f'{value:g}' for value in present])}", "0 and one other whole number"
        raise input_error(volume.path, found=found, expected=expected, fix="store one mask per file")
    return np.asarray(values != 0)
