"""Check labelled volumes before anything is written; all problems of a data set come in one list.

Headers are judged before voxels are read, so a header that expects a giant volume costs nothing.
"""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from segbench.core.cards import patient_of, task_from_card
from segbench.core.case import CaseFiles
from segbench.core.errors import InputError, Problem, raise_problems, short
from segbench.core.names import spelled_alike
from segbench.core.progress import Progress
from segbench.core.task import Task
from segbench.data.ingest import card_of, discover, known_cards
from segbench.data.layouts import channel_names, dataset_json, folder_cases, is_datalist
from segbench.data.notices import (
    Seen,
    annotation_notices,
    card_notices,
    label_quartiles,
    notices_of,
    unlabelled,
    unlisted,
    window_notices,
)
from segbench.data.presence import expected_count
from segbench.data.volumes import (
    FORMATS,
    UNREADABLE,
    Volume,
    expected_bytes,
    grid_difference,
    readable_volume,
    whole_numbers,
)

MAX_VOXELS = 2**31
LARGEST = float(np.finfo(np.float32).max)  # images are read as float32
DEFLATE_LIMIT = 1032  # the largest factor by which deflate packs
ODD = 0.05  # mm, fraction of a voxel size, or cosine: above this, headers are said to disagree
PLAUSIBLE_MM = (0.01, 100.0)  # metres and micrometres written as millimetres lie outside
LARGEST_FACTOR = 1e28  # a 32-bit integer times this is still a finite float32


@dataclass(frozen=True)
class Checked:
    """What became of a data set: one line of summary, every problem, and what a person should know all the same."""

    summary: str
    problems: list[Problem]
    notices: list[str]


def check_task(
    task: Task,
    card: dict,
    data_root: Path,
    *,
    accept_partial: bool = False,
    window_hu: tuple[float, float] | None = None,
) -> Checked:
    """Check a task's files by its card.

    accept_partial: fewer cases than the card expects are no problem. window_hu: the window of CT in its recipe.
    """
    try:
        cases = discover(task.name, card, data_root)
    except InputError as error:
        return Checked(f"{task.name}: refused", list(error.problems), [])
    ignored = set(card.get("ignore_labels", ()))
    values = {int(value) for value in card["classes"]} | {int(value) for value in card.get("merge", {})} | {0}
    modalities = [channel.modality for channel in task.channels]
    problems = [] if accept_partial and cases else list(_count_problems(card, cases, data_root / card["folder"]))
    found, seen = _check_cases(cases, values | ignored, modalities, title=task.name, ignored=ignored)
    notices = notices_of(seen, values, modalities, cases=cases) if seen else []
    notices += unlabelled(data_root / card["folder"], cases)
    notices += annotation_notices(cases, card["classes"])
    notices += window_notices(seen, card, window_hu)
    notices += card_notices(task.name, {**known_cards(), task.name: card}, len(cases))
    return _checked(task.name, problems + found, notices, cases=cases, modalities=modalities, values=values)


def check_folder(folder: Path) -> Checked:
    """Check a folder by its dataset.json, or by the card of its name where the official layout has none.

    A card of the folder's name says what the patients are and what is known of the data set.
    """
    name = card_of(folder.resolve().name)
    card = known_cards()[name] if name else None
    if name and card and card["layout"] == "custom" and not (folder / "dataset.json").exists():
        return check_task(task_from_card(name, card), {**card, "folder": folder.name}, folder.parent)
    try:
        content = dataset_json(folder)
        modalities = [modality_of(channel) for channel in channel_names(folder, content)] or ["MR"]
        values, ignored = label_values(folder, content)
        classes = card["classes"] if card else class_names(content)
        cases = folder_cases(folder, content, patient_of=lambda case: patient_of(card or {}, case), classes=classes)
    except InputError as error:
        return Checked(f"{folder}: refused", list(error.problems), [])
    problems, seen = _check_cases(cases, values | ignored, modalities, title=folder.name, ignored=ignored)
    problems = [*_stated_count(folder, content, len(cases)), *problems]
    notices = notices_of(seen, values, modalities, cases=cases) if seen else []
    notices += [*unlisted(folder, cases), *unlabelled(folder, cases)]
    notices += annotation_notices(cases, classes)
    notices += card_notices(name, known_cards(), len(cases)) if name else []
    return _checked(str(folder), problems, notices, cases=cases, modalities=modalities, values=values)


def _checked(
    title: str, problems: list[Problem], notices: list[str], *, cases: Sequence, modalities: Sequence, values: set[int]
) -> Checked:
    state = "refused" if problems else "accepted"
    counts = f"{len(cases)} cases, {len(modalities)} channel(s), labels {sorted(values)}"
    return Checked(f"{title}: {state}, {counts}", problems, notices)


def _stated_count(folder: Path, content: dict, found: int) -> Iterator[Problem]:
    stated = content.get("numTraining")
    if stated is not None and stated != found:
        where, listed = str(folder / "dataset.json"), f"{found}, the cases it lists"
        yield Problem(where, f"numTraining {stated!r}", listed, "fix the number or the list")


def modality_of(name: str) -> str:
    """Return the modality of a channel name of a dataset.json: CT, PET or MR, which stands for all others."""
    return {"CT": "CT", "PET": "PET", "PT": "PET"}.get(name.upper(), "MR")


def label_values(folder: Path, content: dict) -> tuple[set[int], set[int]]:
    """Return the declared values and the ignored ones of {"0": name} (Decathlon) or {name: value(s)} (nnU-Net v2).

    The values of the name `ignore` mark voxels that nobody annotated, as in nnU-Net.
    """
    labels = content.get("labels")
    where = str(folder / "dataset.json")
    if not isinstance(labels, dict) or not labels:
        found = "a MONAI datalist, which names no labels" if is_datalist(content) else "no labels"
        found = f"`labels` {labels!r}"[:80] if labels else found
        expected, fix = "a mapping of label values to names", 'write `labels` as {"0": "background", "1": name, ...}'
        raise InputError([Problem(where, found, expected, fix)])
    pairs = [
        (name, value) for name, entry in _named(labels) for value in (entry if isinstance(entry, list) else [entry])
    ]
    values = [value for _, value in pairs]
    try:
        if any(isinstance(value, bool) or float(value) != int(value) for value in values):
            raise ValueError("a value that is not whole")
        ignored = {int(value) for name, value in pairs if str(name).strip().lower() == "ignore"}
        declared = {int(value) for value in values}
    except (TypeError, ValueError, OverflowError) as error:
        found = f"labels {labels}"[:120]
        raise InputError([Problem(where, found, "whole-number values", "fix `labels`")]) from error
    raise_problems(_wrong_labels(labels, declared, where))
    return declared - ignored, ignored


def _wrong_labels(labels: dict, declared: Collection[int], where: str) -> Iterator[Problem]:
    """Yield a value that two names of a `labels` have (regions, which are lists, may share values), and no 0."""
    names = defaultdict(list)
    for name, value in _named(labels):
        if not isinstance(value, list):
            names[int(value)].append(str(name))
    for value, of_value in names.items():
        if len(of_value) > 1:
            found = f"label value {value} for {' and '.join(of_value)}"
            yield Problem(where, found, "one name for each value", "give each class its own value")
    if 0 not in declared:
        expected = "the value 0 for the background"
        fix = 'add it to `labels`: "0": "background" (Decathlon) or "background": 0 (nnU-Net v2)'
        yield Problem(where, f"label values {sorted(declared)}", expected, fix)


def class_names(content: dict) -> dict[str, str]:
    """Return class value, as text, -> name of a dataset.json whose labels `label_values` accepts; no background."""
    pairs = _named(content["labels"])
    return {str(value): str(name) for name, value in pairs if not isinstance(value, list) and int(value) > 0}


def _named(labels: dict) -> list[tuple[Any, Any]]:
    """Return (name, value or values) of the `labels` of a dataset.json, whose keys are values in a Decathlon."""
    is_decathlon = all(str(key).isdigit() for key in labels)
    return [(name, key) for key, name in labels.items()] if is_decathlon else list(labels.items())


def _count_problems(card: dict, cases: list[CaseFiles], folder: Path) -> Iterator[Problem]:
    expected = expected_count(card)
    if not cases:
        yield Problem(str(folder), "no labelled case", card["title"], card["obtain"])
    elif expected and not card["synthetic"] and len(cases) < expected:
        yield Problem(str(folder), f"{len(cases)} labelled cases", f"{expected}", f"get the rest: {card['obtain']}")


def _check_cases(
    cases: list[CaseFiles], values: set[int], modalities: list[str], *, title: str, ignored: Collection[int]
) -> tuple[list[Problem], list[Seen]]:
    problems, seen = list(_name_problems(cases, title)), []
    contents: dict[int, CaseFiles] = {}
    with Progress(total=len(cases), title=f"check {title}") as progress:
        for case in cases:
            found, content = check_case(case, values, modalities, ignored)
            problems += found
            twin = case
            if content is not None:
                seen.append(content)
                twin = contents.setdefault(content.checksum, case)
            if twin.patient_id != case.patient_id:
                problems.append(
                    Problem(
                        str(case.image_paths[0]),
                        f"the voxels of {twin.image_paths[0].name}",
                        "one patient under one id",
                        "give both cases the same patient id, or remove one",
                    )
                )
            progress.advance(case.case_id)
    return problems, seen


def _name_problems(cases: list[CaseFiles], title: str) -> Iterator[Problem]:
    """Case ids must be file names that differ on every file system, and a label map belongs to one case.

    Patient ids that are spellings of one patient would put that patient on both sides of a split.
    """
    yield from name_problems(cases, title)
    alike = spelled_alike({case.case_id for case in cases})
    expected = "ids that differ in more than letter case and spelling"
    for spellings in alike:
        yield Problem(title, f"case ids {' and '.join(spellings)}", expected, "rename the files")
    for spellings in spelled_alike({case.patient_id for case in cases}):
        if spellings not in alike:
            yield Problem(title, f"patient ids {' and '.join(spellings)}", expected, "write each id in one way")


def name_problems(cases: Sequence[CaseFiles], title: str) -> Iterator[Problem]:
    """Yield case ids that cannot be file names or are there twice, and label maps of two cases."""
    ids, labels = defaultdict(list), defaultdict(list)
    for case in cases:
        if set(case.case_id) & set("/\\|") or not case.case_id.isprintable() or case.case_id.startswith("."):
            yield Problem(title, f"the case id {case.case_id!r}", "an id that can be a file name", "rename the case")
        ids[case.case_id].append(case.case_id)
        labels[case.label_path].append(case.case_id)
    for name, names in ids.items():
        if len(names) > 1:
            yield Problem(f"{title}/{name}", f"the case id {len(names)} times", "each once", "rename the files")
    for path, names in labels.items():
        if len(set(names)) > 1:
            yield Problem(str(path), f"the label of {' and '.join(names)}", "a label map per case", "fix the listing")


def check_case(
    case: CaseFiles, values: set[int], modalities: list[str], ignored: Collection[int] = ()
) -> tuple[list[Problem], Seen | None]:
    """Return the problems of one case and what was seen of it (None when its voxels could not be read).

    values: the label values that may occur, `ignored` ones included.
    """
    volumes, problems = _checked_headers(case, modalities)
    if problems:
        return problems, None
    return _voxel_problems(case, volumes, values, modalities, ignored)


def header_problems(case: CaseFiles, modalities: list[str]) -> list[Problem]:
    """Return what the headers of a case tell against it; no voxel is read."""
    return _checked_headers(case, modalities)[1]


def _checked_headers(case: CaseFiles, modalities: list[str]) -> tuple[list[Volume], list[Problem]]:
    """Return the opened files of a case, the label last, and the problems of their headers."""
    if case.label_path in case.image_paths:
        where = str(case.label_path)
        return [], [Problem(where, "one file as image and as label", "two files", "fix the listing")]
    opened = [_open(path) for path in (*case.image_paths, case.label_path)]
    problems = [problem for _, found in opened for problem in found]
    volumes = [volume for volume, _ in opened if volume is not None]
    if not problems:
        problems = [item for volume in volumes for item in _header_problems(volume)]
        problems += _geometry_problems(volumes[:-1], volumes[-1], modalities)
    return volumes, problems


def check_image(paths: Sequence[Path], modalities: list[str]) -> tuple[list[Problem], list[str]]:
    """Return problems and notices of one image without label: one file per channel on one grid, or one 4D file."""
    opened = [_open(path) for path in paths]
    problems = [problem for _, found in opened for problem in found]
    images = [volume for volume, _ in opened if volume is not None]
    if not problems:
        problems = [item for image in images for item in _header_problems(image)]
    if not problems:
        problems = [*_channel_count(images, modalities), *_off_grid(images[0], images[1:])]
    if problems:
        return problems, []
    notices = [f"{image.path}: {oddity}" for image in images for oddity in header_notices(image)]
    try:
        return list(_all_channel_problems(images, _ranges(_channels(images)), modalities)), notices
    except UNREADABLE as error:
        found = f"voxels that cannot be read ({short(error)})"
        return [Problem(str(images[0].path), found, "whole files", "get the files again")], []


def _open(path: Path | None) -> tuple[Volume | None, Sequence[Problem]]:
    if path is None or not path.exists():
        found = "a link to nothing" if path is not None and path.is_symlink() else "no file"
        return None, [Problem(str(path), found, "an image or a label map", "fix the name, or get the file")]
    if not path.is_file():  # a pipe would be waited for
        found = "a folder, which cannot be read as an image" if path.is_dir() else "no regular file"
        return None, [Problem(str(path), found, FORMATS, "name a file")]
    try:
        return readable_volume(path), []
    except InputError as error:
        return None, error.problems


def _header_problems(volume: Volume) -> Iterator[Problem]:
    path, shape = str(volume.path), volume.shape
    if len(shape) not in (3, 4) or min(shape) < 1:
        yield Problem(path, f"shape {shape}", "3 axes, or 4 with channels last", "fix the file")
        return
    if volume.dtype.kind not in "iuf":
        yield Problem(path, f"voxels of type {volume.dtype}"[:80], "one real number per voxel", "convert it")
        return
    if math.prod(shape) > MAX_VOXELS:
        yield Problem(path, f"a header that expects {math.prod(shape)} voxels", "a volume that fits", "fix the header")
    elif expected_bytes(volume) > _most_bytes(volume.path):
        yield Problem(
            path,
            f"a header that expects {math.prod(shape)} voxels, more than the file can hold",
            "a whole file",
            "get the file again, or fix the header",
        )
    affine = volume.affine
    if affine is None or not np.isfinite(affine).all():
        yield Problem(path, "an affine that is not finite", "millimetres", "fix the header")
        return
    sizes = np.asarray(volume.spacing_mm_xyz)
    stated = sizes if volume.header is None else _pixdim_mm(volume.header, volume)
    if not np.isfinite(stated).all() or (stated <= 0).any():
        yield Problem(path, f"voxel sizes {stated.tolist()}", "positive millimetres", "fix pixdim")
    elif problem := implausible_spacing(volume, [*sizes[sizes > 0], *stated]):
        yield problem
    elif abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        yield Problem(path, "a singular affine", "three independent axes", "fix the header")
    yield from factor_problems(volume)


def _pixdim_mm(header: nib.Nifti1Header, volume: Volume) -> np.ndarray:
    return np.asarray(header["pixdim"][1:4], dtype=float) * volume.mm_per_unit


def factor_problems(volume: Volume) -> Iterator[Problem]:
    """Yield a problem for each scale factor of the header whose result is no finite number."""
    factors = {} if volume.header is None else {key: float(volume.header[key]) for key in ("scl_slope", "scl_inter")}
    for key, value in factors.items():
        if math.isinf(value) or abs(value) > LARGEST_FACTOR:
            expected = "a factor whose result is a finite number"
            yield Problem(str(volume.path), f"{key} {value:g}", expected, "fix the header")


def implausible_spacing(volume: Volume, sizes_mm: Sequence[float]) -> Problem | None:
    """Return a problem when a voxel size cannot be one in millimetres, such as metres written without their unit."""
    if all(PLAUSIBLE_MM[0] <= size <= PLAUSIBLE_MM[1] for size in sizes_mm):
        return None
    unit = {"mm": "", "unknown": ""}.get(volume.unit, f", converted from the header's {volume.unit}")
    found = f"voxel sizes {np.round(volume.spacing_mm_xyz, 6).tolist()}{unit}"
    expected = f"millimetres, {PLAUSIBLE_MM[0]:g} to {PLAUSIBLE_MM[1]:g}"
    fix = "set the header's unit to that of its voxel sizes (in nibabel: header.set_xyzt_units), or fix the sizes"
    return Problem(str(volume.path), found, expected, fix)


def _most_bytes(path: Path) -> int:
    """Return how many bytes of voxels a file can hold at most, by its size alone."""
    return path.stat().st_size * (1 if path.name.lower().endswith(".nii") else DEFLATE_LIMIT)


def header_notices(volume: Volume) -> Iterator[str]:
    """Yield what programs read differently, what was converted, and what a copy of the voxels would lose."""
    if not volume.is_oriented:
        yield (
            "the header does not say how the axes lie in the patient (no sform, qform or space): programs show such a "
            "file in different orientations, and left may be right"
        )
    if not volume.has_spacing:
        yield (
            "the header does not say the voxel sizes, so 1 mm is taken; set `spacing_is_nominal` in the card, or "
            "--nominal-spacing of `score`, when that is not certain"
        )
    if volume.unit not in ("mm", "unknown"):
        yield f"the header's unit is {volume.unit}; lengths are converted to mm"
    sizes = np.asarray(volume.spacing_mm_xyz)
    cosines = volume.affine[:3, :3] / sizes
    if np.abs(cosines.T @ cosines - np.eye(3)).max() > ODD:
        yield "the axes are not at right angles"
    header = volume.header
    if header is None:
        return
    forms = [matrix for matrix, _ in volume.forms.values()]
    if len(forms) == 2 and not np.allclose(*forms, atol=ODD):
        yield "sform and qform differ (the sform is used)"
    if header["qform_code"] > 0 and volume.forms.keys() == {"sform"}:
        yield "the qform is no affine (the sform is used)"
    stated = _pixdim_mm(header, volume)
    if not np.allclose(sizes, stated, rtol=ODD, atol=0):
        both = " and ".join("x".join(f"{size:.4g}" for size in item) for item in (stated, sizes))
        yield (
            f"pixdim and affine have other voxel sizes, {both} mm (the affine's are used); if neither is certain, set "
            "`spacing_is_nominal` in the card, or --nominal-spacing of `score`"
        )
    if volume.path.name.lower().endswith(".nii"):
        offset = int(header["vox_offset"]) + expected_bytes(volume)
        if volume.path.stat().st_size > offset:
            yield "the file goes on after its voxels"


def _geometry_problems(images: list[Volume], label: Volume, modalities: list[str]) -> Iterator[Problem]:
    if len(label.shape) != 3:
        yield Problem(str(label.path), f"a label of shape {label.shape}", "3 axes", "store one label map per case")
        return
    yield from _channel_count(images, modalities)
    yield from _off_grid(images[0], [*images[1:], label])


def _off_grid(reference: Volume, others: Sequence[Volume]) -> Iterator[Problem]:
    """Compare grids; volumes whose affine is not finite have a problem of their own."""
    for other in others:
        if not (np.isfinite(reference.affine).all() and np.isfinite(other.affine).all()):
            continue
        alike = reference.is_oriented == other.is_oriented
        difference = grid_difference(
            (reference.shape, reference.affine), (other.shape, other.affine), both_oriented=alike
        )
        if difference:
            found, expected, fix = difference
            yield Problem(str(other.path), found, f"{expected}, as {reference.path}", fix)


def _channel_count(images: list[Volume], modalities: list[str]) -> Iterator[Problem]:
    channels = images[0].shape[3] if len(images) == 1 and len(images[0].shape) == 4 else len(images)
    where = str(images[0].path)
    if any(len(image.shape) == 4 for image in images) and len(images) > 1:
        yield Problem(where, "several files of which one is 4D", "one file per channel", "split the 4D file")
    if channels != len(modalities):
        yield Problem(where, f"{channels} channel(s)", f"{len(modalities)}", "add or remove channels")


def _voxel_problems(
    case: CaseFiles, opened: list[Volume], values: set[int], modalities: list[str], ignored: Collection[int]
) -> tuple[list[Problem], Seen | None]:
    *images, label = opened
    try:
        channels = _channels(images)
        labels = whole_numbers(label.voxels())
    except UNREADABLE as error:
        where, found = f"{images[0].path} or its label", f"voxels that cannot be read ({short(error)})"
        return [Problem(where, found, "whole files", "get the files again")], None
    present = np.unique(labels)
    ranges = _ranges(channels)
    problems = [*_label_problems(present, str(label.path), values), *_all_channel_problems(images, ranges, modalities)]
    problems += [] if problems else _contradictions(case, present, ignored)
    checksum = 0
    for channel in channels:
        checksum = zlib.crc32(np.ascontiguousarray(channel).tobytes(), checksum)
    kept = frozenset() if problems else frozenset(int(value) for value in present)
    oddities = tuple(dict.fromkeys(odd for volume in opened for odd in header_notices(volume)))
    quartiles = {} if problems else label_quartiles(channels, labels, modalities)
    seen = Seen(
        case, ranges, kept - set(ignored), checksum, oddities, frozenset(kept & set(ignored)), not problems, quartiles
    )
    return problems, seen


def _contradictions(case: CaseFiles, present: np.ndarray, ignored: Collection[int]) -> Iterator[Problem]:
    """Yield classes that a case holds although its listing says that nobody looked for them."""
    if case.annotated is None:
        return
    unexpected = sorted({int(value) for value in present} - {0, *ignored, *case.annotated})
    if unexpected:
        expected = f"annotated classes {list(case.annotated)} alone"
        yield Problem(str(case.label_path), f"voxels of {unexpected}", expected, "add them to `annotated`")


def _channels(images: list[Volume]) -> list[np.ndarray]:
    return [channel for image in images for channel in image.channels()]


def _ranges(volumes: list[np.ndarray]) -> tuple[tuple[float, float], ...]:
    return tuple((float(volume.min()), float(volume.max())) for volume in volumes)


def _all_channel_problems(
    images: list[Volume], ranges: Sequence[tuple[float, float]], modalities: list[str]
) -> Iterator[Problem]:
    for number, (range_of, modality) in enumerate(zip(ranges, modalities, strict=True)):
        where = f"{images[min(number, len(images) - 1)].path} channel {number}"
        yield from _channel_problems(range_of, where, modality)


def _label_problems(found: np.ndarray, path: str, values: set[int]) -> Iterator[Problem]:
    if not np.isfinite(found.astype(float)).all():
        yield Problem(path, "label values that are not finite", f"values of {sorted(values)}", "fix the label")
        return
    fractional = [float(value) for value in found if value != int(value)]
    if fractional:
        yield Problem(
            path, f"fractional label values {fractional[:3]}", "whole numbers", "resample by nearest neighbour"
        )
        return
    unknown = [int(value) for value in found if int(value) not in values]
    if unknown:
        yield Problem(
            path,
            f"undeclared label values {unknown[:5]}",
            f"values of {sorted(values)}",
            "fix the label, or declare it, merge it or name it in `ignore_labels` in the card",
        )


def _channel_problems(range_of: tuple[float, float], where: str, modality: str) -> Iterator[Problem]:
    low, high = range_of
    if not (math.isfinite(low) and math.isfinite(high)):
        yield Problem(where, "voxels that are not finite", "finite numbers", "fix the image")
    elif max(-low, high) > LARGEST:
        expected = f"at most {LARGEST:.2g} (float32)"
        yield Problem(where, f"values from {low:g} to {high:g}", expected, "rescale the image")
    elif low == high:
        yield Problem(where, f"a constant image ({low:g})", "an image", "get the file again, or leave the case out")
    elif modality == "CT" and high - low < 100:
        yield Problem(
            where,
            f"values from {low:g} to {high:g} in a CT channel",
            "Hounsfield-like units",
            "fix the order of channels, or the rescaling",
        )
    elif modality == "PET" and low < -100:
        yield Problem(
            where, f"values from {low:g} in a PET channel", "uptake, not below zero", "fix the order of channels"
        )
