"""Label maps of others: which files belong together, what is in them, and whether two lie on the same grid.

Every defect is a `Problem` that names the file; nothing is resampled, reoriented or rounded in silence.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import nibabel as nib
import numpy as np

from segbench.core.cards import matched_patient, pattern_problems
from segbench.core.errors import InputError, Problem, input_error, raise_problems, short, some
from segbench.core.folders import files_below
from segbench.core.names import bids_subject, matched
from segbench.data.checks import MAX_VOXELS, factor_problems, header_notices, implausible_spacing
from segbench.data.volumes import (
    FORMATS,
    SUFFIXES,
    UNREADABLE,
    Volume,
    grid_difference,
    readable_volume,
    whole_numbers,
)

LARGEST_LABEL = 65_535
MASK_VALUE = LARGEST_LABEL + 1
"""Among allowed values: each file is a mask, whose one value that is not allowed by itself becomes 1 (0 and 255)."""
SHEAR_TOLERANCE = 1e-3
PATIENT_WAYS = ("file", "folder", "top-folder")
UNREAD_SUFFIXES = (
    *(".nii.bz2", ".nii.xz", ".nii.zst", ".nii.zip", ".hdr", ".img", ".hdr.gz", ".img.gz", ".mgz", ".mgh", ".mnc"),
    *(".mhd", ".nhdr", ".npz", ".npy", ".b2nd", ".h5", ".hdf5", ".gipl", ".gipl.gz", ".vtk", ".tif", ".tiff", ".dcm"),
)
"""Suffixes of images in formats that are not read."""


@dataclass(frozen=True)
class Pair:
    """A reference and its prediction, None where it is missing; structure: the one in these files, None for all."""

    case: str
    reference: Path
    prediction: Path | None
    patient: str
    structure: str | None = None


@dataclass(frozen=True)
class LabelMap:
    """Whole-numbered labels with their affine (mm); `path` is for messages.

    notices: what the header leaves open, or what programs read differently. is_oriented: whether the header says how
    the axes lie in the patient.
    """

    path: Path
    labels_XYZ: np.ndarray
    affine: np.ndarray
    notices: tuple[str, ...] = ()
    is_oriented: bool = True

    @property
    def spacing_mm_xyz(self) -> tuple[float, float, float]:
        """Voxel sizes along the axes of the array."""
        x, y, z = (float(size) for size in nib.affines.voxel_sizes(self.affine))
        return x, y, z


def pairs(
    reference: Path, prediction: Path, *, patient: str | None = None, structures_from_files: bool = False
) -> list[Pair]:
    """Return the cases of two files or two folders, sorted by name.

    Files of folders belong together by their path below the folder without the suffix; links to folders are followed.
    A reference without prediction is a pair with None.

    Args:
        reference: a label map, or a folder of them.
        prediction: the same for predictions.
        patient: "file", "folder" (the one that a file is in) or "top-folder" (the outermost one) says what one patient
            is; any other text is a regular expression whose group, or whole match, in the name of a case is the
            patient; None asks the names.
        structures_from_files: a folder is a case, and each of its files holds the structure that its name says.

    Raises `InputError` for a missing file or folder, a file beside a folder, a folder inside the other one, a link to
    nothing, a case stored twice, a prediction without a reference or in a format that is not read, a folder without a
    label map, predictions of which none fits, and patients that the names or the regular expression do not tell.
    """
    absent = [path for path in (reference, prediction) if not path.exists()]
    raise_problems(
        Problem(str(path), "no such file or folder", "a file or a folder", "fix the path") for path in absent
    )
    if reference.is_dir() != prediction.is_dir():
        kinds = ["a folder" if path.is_dir() else "a file" for path in (prediction, reference)]
        raise input_error(
            prediction, found=kinds[0], expected=f"{kinds[1]}, like the reference", fix="give two files or two folders"
        )
    if reference.is_file():
        name = case_name(reference.name) or reference.name
        return [Pair(name, reference, prediction, _patients(reference, [name], patient)[name])]
    _refuse_nested(reference, prediction)
    found = _folder_pairs(reference, prediction)
    if structures_from_files:
        return _structure_pairs(reference, found, patient)
    patients = _patients(reference, [case for case, _, _ in found], patient)
    return [Pair(case, one, other, patients[case]) for case, one, other in found]


def _refuse_nested(reference: Path, prediction: Path) -> None:
    """Refuse a folder inside the other one: its files would be cases of both."""
    one, other = reference.resolve(), prediction.resolve()
    if one in other.parents or other in one.parents:
        raise input_error(
            prediction,
            found=f"a folder inside {reference}" if one in other.parents else f"a folder around {reference}",
            expected="references and predictions in folders beside each other",
            fix="move one of them",
        )


def _structure_pairs(folder: Path, found: list[tuple[str, Path, Path | None]], patient: str | None) -> list[Pair]:
    """Return pairs of which each holds one structure: `s1/liver` is the structure liver of the case s1."""
    loose = [case for case, _, _ in found if not _folder_of(case)]
    if loose:
        expected = "a folder per case with a file per structure"
        fix = "put the files of a case into a folder of its own"
        raise input_error(folder, found=f"the file {loose[0]} in no folder", expected=expected, fix=fix)
    patients = _patients(folder, sorted({_folder_of(case) for case, _, _ in found}), patient)
    return [
        Pair(_folder_of(case), one, other, patients[_folder_of(case)], PurePosixPath(case).name)
        for case, one, other in found
    ]


def _patients(where: Path, cases: Sequence[str], patient: str | None) -> dict[str, str]:
    """Return case -> patient, as `patient` says or as the names of files and folders say."""
    if patient is not None and patient not in PATIENT_WAYS:
        return _matched_patients(cases, patient)
    ways = {
        "file": {case: case for case in cases},
        "folder": {case: _folder_of(case) or case for case in cases},
        "top-folder": {case: PurePosixPath(case).parts[0] for case in cases},
    }
    if patient is not None:
        return ways[patient]
    found = _patients_by_folders(where, cases, ways)
    _ask_of_subjects(where, found)
    return found


def _matched_patients(cases: Sequence[str], pattern: str) -> dict[str, str]:
    """Return case -> what a regular expression finds in its name; a case in which it finds nothing is a problem."""
    raise_problems(pattern_problems("--patient", pattern, needs_group=False))
    found = {case: patient for case in cases if (patient := matched_patient(pattern, case))}
    left = [case for case in cases if case not in found]
    if left:
        raise input_error(
            "--patient",
            found=f"{pattern!r}, which finds no patient in {some(left)}",
            expected=f"{', '.join(PATIENT_WAYS)}, or a regular expression that finds the patient in every case's name",
            fix="fix the option",
        )
    return found


def _ask_of_subjects(where: Path, patients: Mapping[str, str]) -> None:
    """Ask where files of one subject of BIDS (`sub-1_ses-1`, `sub-1_ses-2`) would be several patients."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for case, patient in patients.items():
        subject = bids_subject(case)
        if subject:
            found[subject].setdefault(patient, case)
    for subject, cases in found.items():
        if len(cases) > 1:
            one, other = list(cases.values())[:2]
            fix = f"add `--patient 'sub-[^_/]+'` when {subject} is a patient, or `--patient file` when a file is one"
            raise _unclear(where, f"{one} and {other}, both of {subject}", fix)


def _patients_by_folders(where: Path, cases: Sequence[str], ways: Mapping[str, dict[str, str]]) -> dict[str, str]:
    """Return the one of the ways that the folders tell; ask where they tell none."""
    by_folder, by_top = ways["folder"], ways["top-folder"]
    if len(set(by_top.values())) == len(cases):
        return ways["file"]
    if len(set(by_top.values())) != len(set(by_folder.values())):
        top, count = Counter(by_top.values()).most_common(1)[0]
        inner = next(folder for case, folder in by_folder.items() if by_top[case] == top)
        fix = f"add `--patient top-folder` when {top} is a patient, `--patient folder` when {inner} is one, or "
        raise _unclear(where, f"{count} files in folders below {top}", f"{fix}`--patient file` when a file is one")
    return by_folder if _folders_are_patients(where, cases) else ways["file"]


def _unclear(where: Path, found: str, fix: str) -> InputError:
    return input_error(where, found=found, expected="to know what one patient is", fix=fix)


def _folders_are_patients(where: Path, cases: Sequence[str]) -> bool:
    """Tell from the names whether folders are patients: their files then have the same names (liver, spleen, ...).

    Several files of other names in a folder can be studies of one patient or patients of one site: only the user knows.
    """
    inside = defaultdict(list)
    for case in cases:
        inside[_folder_of(case)].append(PurePosixPath(case).name)
    inside.pop("", None)
    repeated = Counter(name for names in inside.values() for name in names)
    unclear = [
        folder for folder, names in inside.items() if len(names) > 1 and max(repeated[name] for name in names) == 1
    ]
    if unclear:
        found = f"{len(inside[unclear[0]])} files in {unclear[0]}, each under a name of its own"
        fix = "add `--patient folder` when a folder is a patient, or `--patient file` when a file is one"
        raise _unclear(where, found, fix)
    return any(len(names) > 1 for names in inside.values())


def _folder_of(case: str) -> str:
    parent = PurePosixPath(case).parent.as_posix()
    return "" if parent == "." else parent


def _folder_pairs(reference: Path, prediction: Path) -> list[tuple[str, Path, Path | None]]:
    (references, problems), (predictions, more) = _volumes(reference), _volumes(prediction)
    problems += more
    missing = references.keys() - predictions.keys()
    if predictions and missing:
        problems += unread_problems(prediction, missing)
    extra = sorted(predictions.keys() - references.keys())
    spelled = matched(extra, references)
    problems += [
        Problem(
            str(predictions[case]),
            "a prediction without a reference",
            f"the name {spelled[case]}, as its reference" if case in spelled else "one of the references",
            "rename it" if case in spelled else "remove it, or add its reference",
        )
        for case in extra
    ]
    if references and predictions and not references.keys() & predictions.keys():
        problems.append(
            Problem(
                str(prediction),
                "no prediction of any reference",
                f"names such as {min(references)}",
                "name predictions like their references",
            )
        )
    raise_problems(problems)
    return [(case, path, predictions.get(case)) for case, path in sorted(references.items())]


def _volumes(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    """Return case -> file of a folder, those below it included, and its problems; hidden files are not looked at."""
    paths = sorted(files_below(folder))
    problems = [problem for path in paths if (problem := no_file_problem(path))]
    found = [
        (unicodedata.normalize("NFC", path.relative_to(folder).with_name(name).as_posix()), path)
        for path in paths
        if (name := case_name(path.name)) and path.is_file()
    ]
    if not found:
        other = next((path.name for path in paths if _unread_name(path.name)), None)
        words = f"no label map, but {other}" if other else "no label map"
        expected, fix = f"files *{', *'.join(SUFFIXES)}", "name the folder of label maps"
        return {}, [*problems, Problem(str(folder), words, expected, fix)]
    twice = [case for case, count in Counter(case for case, _ in found).items() if count > 1]
    return dict(found), problems + [
        Problem(
            f"{folder}: {case}",
            " and ".join(path.name for name, path in found if name == case),
            "one file per case",
            "remove the stale one",
        )
        for case in twice
    ]


def no_file_problem(path: Path) -> Problem | None:
    """Return what is wrong with a name of a label map, or of a folder, behind which there is no file."""
    if path.is_file() or not (case_name(path.name) or (path.is_symlink() and not path.suffix)):
        return None
    if path.is_symlink() and not path.exists():
        return Problem(str(path), "a link to nothing", "a label map", "get the file, or remove the link")
    return Problem(str(path), "no regular file", "a label map", "put the file in its place")


def unread_problems(folder: Path, cases: Collection[str]) -> list[Problem]:
    """Return a problem for each file of a case in a format that is not read."""
    return [
        Problem(str(path), f"a format that is not read ({path.name[len(name) :]})", FORMATS, "convert it")
        for path in sorted(files_below(folder))
        if (name := _unread_name(path.name)) and path.relative_to(folder).with_name(name).as_posix() in cases
    ]


def _unread_name(file_name: str) -> str | None:
    return _without_suffix(file_name, UNREAD_SUFFIXES)


def case_name(file_name: str) -> str | None:
    """Return a file name without the suffix of an image format in any case of letters, None for other files."""
    return _without_suffix(file_name, SUFFIXES)


def _without_suffix(file_name: str, suffixes: Iterable[str]) -> str | None:
    low = file_name.lower()
    return next((file_name[: -len(suffix)] for suffix in suffixes if low.endswith(suffix) and low != suffix), None)


def read_label_map(path: Path, allowed: frozenset[int], *, fix: str = "") -> LabelMap:
    """Return a label map with the allowed values only; raises `InputError` with the problem that stopped reading.

    `fix` is what to do about other values; by default it names the options of `score`. With `MASK_VALUE` among the
    allowed values the file is a mask: its one other value becomes 1, with a notice.
    """
    volume = readable_volume(path)
    raise_problems(factor_problems(volume))
    try:
        if math.prod(volume.shape) > MAX_VOXELS:
            raise OSError(f"a header of shape {volume.shape}")
        data = whole_numbers(volume.voxels())
    except UNREADABLE as error:
        found = f"a file that cannot be read ({short(error)})"
        raise input_error(path, found=found, expected=f"a label map, {FORMATS}", fix="write the file again") from error
    problem = _shape_problem(data)
    labels_XYZ, problem = (data, problem) if problem else _whole_labels(data)
    problem = problem or _value_problem(labels_XYZ, allowed, fix) or _affine_problem(volume)
    if problem:
        raise InputError([Problem(str(path), *problem)])
    labels_XYZ, notices = _as_mask(labels_XYZ, allowed) if MASK_VALUE in allowed else (labels_XYZ, ())
    return LabelMap(path, labels_XYZ, volume.affine, (*_notices(volume), *notices), volume.is_oriented)


def _as_mask(labels_XYZ: np.ndarray, allowed: frozenset[int]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the labels with 1 for the one value that is not allowed by itself, and a notice where it is another."""
    value = next(iter(_other_values(labels_XYZ, allowed)), 1)
    if value == 1:
        return labels_XYZ, ()
    notice = f"masks with the value {value} are read as masks with the value 1"
    return np.where(labels_XYZ == value, 1, labels_XYZ), (notice,)


def _notices(volume: Volume) -> tuple[str, ...]:
    implausible = implausible_spacing(volume, volume.spacing_mm_xyz)
    sizes = [f"{implausible.found}, not {implausible.expected}: {implausible.fix}"] if implausible else []
    return (*header_notices(volume), *sizes)


Deviation = tuple[str, str, str] | None
"""What was found, what was expected, and the fix."""


def _shape_problem(data: np.ndarray) -> Deviation:
    if data.dtype.kind not in "buif":
        return (f"values of type {data.dtype}", "whole numbers", "write one whole number per voxel")
    if data.ndim != 3:
        return (f"{data.ndim} axes of lengths {data.shape}", "3 axes", "store one label map per case")
    return None if data.size else (f"shape {data.shape}", "at least one voxel", "write the file again")


def _whole_labels(data: np.ndarray) -> tuple[np.ndarray, Deviation]:
    """Return the data as whole numbers; floats that hold other numbers are a problem."""
    if data.dtype.kind != "f":
        return data, None
    if not np.isfinite(data).all():
        return data, ("values that are not finite", "whole numbers", "write labels, not probabilities")
    other = data != np.round(data)
    if other.any():
        few = [float(value) for value in np.unique(data[other])[:3]]
        return data, (f"fractional values {few}", "whole numbers", "write labels, not probabilities")
    if data.min() < -LARGEST_LABEL or data.max() > LARGEST_LABEL:
        return data, (f"values from {data.min():g} to {data.max():g}", f"labels up to {LARGEST_LABEL}", "renumber them")
    return data.astype(np.int32), None


def _value_problem(labels_XYZ: np.ndarray, allowed: frozenset[int], fix: str) -> Deviation:
    unknown = _other_values(labels_XYZ, allowed)
    is_mask = MASK_VALUE in allowed
    if len(unknown) <= (1 if is_mask else 0):
        return None
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    first = "write a file per structure, or name values in" if is_mask else "name them in --labels,"
    return (
        f"labels {unknown[:5]}{more}",
        "0 and one other value, the structure" if is_mask else f"one of {sorted(allowed)}",
        fix or f"{first} --other-labels (background) or --ignore-labels (voxels that count nowhere)",
    )


def _other_values(labels_XYZ: np.ndarray, allowed: frozenset[int]) -> list[int]:
    return [value for value in present_labels(labels_XYZ) if value not in allowed - {MASK_VALUE}]


def present_labels(labels_XYZ: np.ndarray) -> list[int]:
    """Return the values that occur, ascending."""
    low, high = int(labels_XYZ.min()), int(labels_XYZ.max())
    if labels_XYZ.dtype.kind == "b" or low < 0 or high > LARGEST_LABEL:
        return [int(value) for value in np.unique(labels_XYZ)]
    return np.flatnonzero(np.bincount(labels_XYZ.ravel(order="K"))).tolist()


def _affine_problem(volume: Volume) -> Deviation:
    affine = volume.affine
    if affine is None or not np.isfinite(affine).all() or not (nib.affines.voxel_sizes(affine) > 0).all():
        return ("an affine without three positive voxel sizes", "a grid in mm", "write the header again")
    directions = affine[:3, :3] / nib.affines.voxel_sizes(affine)
    if np.abs(directions.T @ directions - np.eye(3)).max() > SHEAR_TOLERANCE:
        return (
            "axes that are not at right angles",
            "a grid without shear, so that distances are in mm",
            "resample both label maps to a rectangular grid",
        )
    return None


def grid_problems(reference: LabelMap, prediction: LabelMap) -> list[Problem]:
    """Return why a prediction is not on the reference's grid, or nothing; the rule is that of `grid_difference`."""
    difference = grid_difference(
        (reference.labels_XYZ.shape, reference.affine),
        (prediction.labels_XYZ.shape, prediction.affine),
        both_oriented=reference.is_oriented == prediction.is_oriented,
    )
    return [Problem(str(prediction.path), *difference)] if difference else []


def without_ignored(prediction_XYZ: np.ndarray, reference_XYZ: np.ndarray, ignored: Collection[int]) -> np.ndarray:
    """Return the prediction with background where the reference has an ignored value.

    No structure has an ignored value, so such voxels are background on both sides and count in no metric: structures
    end at the border of the ignored region in both.
    """
    hidden_XYZ = np.isin(reference_XYZ, list(ignored)) if ignored else None
    return prediction_XYZ if hidden_XYZ is None else np.where(hidden_XYZ, 0, prediction_XYZ)
