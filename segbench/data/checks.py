"""Check labelled volumes before anything is written; all problems of a data set come in one list.

Headers are judged before voxels are read, so a header that expects a giant volume costs nothing.
"""

from __future__ import annotations

import math
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from segbench.core.cards import patient_of, task_from_card
from segbench.core.case import CaseFiles
from segbench.core.errors import InputError, Problem, short
from segbench.core.progress import Progress
from segbench.core.task import Task
from segbench.data.ingest import card_of, discover, known_cards
from segbench.data.layouts import channel_names, dataset_json, folder_cases
from segbench.data.notices import Seen, card_notices, notices_of, unlisted
from segbench.data.presence import expected_count

MAX_VOXELS = 2**31
DEFLATE_LIMIT = 1032  # the largest factor by which deflate packs
AFFINE_TOLERANCE_MM = 1e-2
ODD = 0.05  # mm, fraction of a voxel size, or cosine: above this, headers are said to disagree
PLAUSIBLE_MM = (0.01, 100.0)  # metres and micrometres written as millimetres lie outside
LARGEST_FACTOR = 1e28  # a 32-bit integer times this is still a finite float32
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    nib.filebasedimages.ImageFileError,
    OverflowError,
    nib.spatialimages.HeaderDataError,
    MemoryError,
)


@dataclass(frozen=True)
class Checked:
    """What became of a data set: one line of summary, every problem, and what a person should know all the same."""

    summary: str
    problems: list[Problem]
    notices: list[str]


def check_task(task: Task, card: dict, data_root: Path, *, accept_partial: bool = False) -> Checked:
    """Check a task's files by its card. accept_partial: fewer cases than the card expects are no problem."""
    try:
        cases = discover(task.name, card, data_root)
    except InputError as error:
        return Checked(f"{task.name}: refused", list(error.problems), [])
    values = {int(value) for value in card["classes"]} | {int(value) for value in card.get("merge", {})} | {0}
    modalities = [channel.modality for channel in task.channels]
    problems = [] if accept_partial and cases else list(_count_problems(card, cases, data_root / card["folder"]))
    found, seen = _check_cases(cases, values, modalities, title=task.name)
    notices = notices_of(seen, values, modalities) if seen else []
    notices += card_notices(task.name, {**known_cards(), task.name: card}, len(cases))
    return _checked(task.name, problems + found, notices, cases=cases, modalities=modalities, values=values)


def check_folder(folder: Path) -> Checked:
    """Check a folder by its dataset.json, or by the card of its name where the official layout has none.

    A card of the folder's name says what the patients are and what is known of the data set.
    """
    name = card_of(folder.resolve().name)
    card = known_cards()[name] if name else None
    if card is not None and card["layout"] == "custom" and not (folder / "dataset.json").exists():
        return check_task(task_from_card(name, card), {**card, "folder": folder.name}, folder.parent)
    try:
        content = dataset_json(folder)
        modalities = [_modality(channel) for channel in channel_names(folder, content)] or ["MR"]
        values = _label_values(folder, content)
        cases = folder_cases(folder, content, patient_of=lambda case: patient_of(card or {}, case))
    except InputError as error:
        return Checked(f"{folder}: refused", list(error.problems), [])
    problems, seen = _check_cases(cases, values, modalities, title=folder.name)
    problems = [*_stated_count(folder, content, len(cases)), *problems]
    notices = (notices_of(seen, values, modalities) if seen else []) + unlisted(folder, cases)
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


def _modality(name: str) -> str:
    return {"CT": "CT", "PET": "PET", "PT": "PET"}.get(name.upper(), "MR")


def _label_values(folder: Path, content: dict) -> set[int]:
    """Return the declared values of {"0": name} (Decathlon) or {name: value or values} (nnU-Net v2)."""
    labels = content.get("labels")
    where = str(folder / "dataset.json")
    if not isinstance(labels, dict) or not labels:
        raise InputError([Problem(where, "no labels", "a mapping of label values to names", "add `labels`")])
    named = list(labels) if all(str(key).isdigit() for key in labels) else list(labels.values())
    values = [value for entry in named for value in (entry if isinstance(entry, list) else [entry])]
    try:
        if any(isinstance(value, bool) or float(value) != int(value) for value in values):
            raise ValueError("a value that is not whole")
        return {int(value) for value in values}
    except (TypeError, ValueError, OverflowError) as error:
        found = f"labels {labels}"[:120]
        raise InputError([Problem(where, found, "whole-number values", "fix `labels`")]) from error


def _count_problems(card: dict, cases: list[CaseFiles], folder: Path) -> Iterator[Problem]:
    expected = expected_count(card)
    if not cases:
        yield Problem(str(folder), "no labelled case", card["title"], card["obtain"])
    elif expected and not card["synthetic"] and len(cases) < expected:
        yield Problem(str(folder), f"{len(cases)} labelled cases", f"{expected}", f"get the rest: {card['obtain']}")


def _check_cases(
    cases: list[CaseFiles], values: set[int], modalities: list[str], *, title: str
) -> tuple[list[Problem], list[Seen]]:
    problems, seen = list(_name_problems(cases, title)), []
    contents: dict[int, CaseFiles] = {}
    with Progress(total=len(cases), title=f"check {title}") as progress:
        for case in cases:
            found, content = check_case(case, values, modalities)
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
    """Case ids must be file names that differ on every file system, and no two cases may share a label map."""
    ids, labels = defaultdict(list), defaultdict(list)
    for case in cases:
        if set(case.case_id) & set("/\\|\0\n") or case.case_id.startswith("."):
            yield Problem(title, f"the case id {case.case_id!r}", "an id that can be a file name", "rename the case")
        ids[unicodedata.normalize("NFC", case.case_id).casefold()].append(case.case_id)
        labels[case.label_path].append(case.case_id)
    for names in (group for group in ids.values() if len(group) > 1):
        if len(set(names)) == 1:
            yield Problem(f"{title}/{names[0]}", f"the case id {len(names)} times", "each once", "rename the files")
        else:
            found = f"case ids {' and '.join(sorted(set(names)))}"
            yield Problem(title, found, "ids that differ in more than letter case", "rename the files")
    for path, names in labels.items():
        if len(set(names)) > 1:
            yield Problem(str(path), f"the label of {' and '.join(names)}", "a label map per case", "fix the listing")


def check_case(case: CaseFiles, values: set[int], modalities: list[str]) -> tuple[list[Problem], Seen | None]:
    """Return the problems of one case and what was seen of it (None when its voxels could not be read)."""
    if case.label_path in case.image_paths:
        where = str(case.label_path)
        return [Problem(where, "one file as image and as label", "two files", "fix the listing")], None
    opened = [_open(path) for path in (*case.image_paths, case.label_path)]
    problems = [found for _, found in opened if found]
    if problems:
        return problems, None
    headers = [header for header, _ in opened]
    problems = [item for header in headers for item in _header_problems(header)]
    problems += _geometry_problems(headers[:-1], headers[-1], modalities)
    if problems:
        return problems, None
    return _voxel_problems(case, headers, values, modalities)


def check_image(paths: Sequence[Path], modalities: list[str]) -> list[Problem]:
    """Return the problems of one image without label: one file per channel on one grid, or one 4D file."""
    opened = [_open(path) for path in paths]
    problems = [found for _, found in opened if found]
    if problems:
        return problems
    images = [image for image, _ in opened]
    problems = [item for image in images for item in _header_problems(image)] or list(
        _channel_count(images, modalities)
    )
    for image in images[1:]:
        if image.shape != images[0].shape or not np.allclose(image.affine, images[0].affine, atol=AFFINE_TOLERANCE_MM):
            problems.append(
                Problem(_path(image), "another grid", f"that of {_path(images[0])}", "resample the channels")
            )
    if problems:
        return problems
    try:
        return list(_all_channel_problems(images, _ranges(_volumes(images)), modalities))
    except UNREADABLE as error:
        found = f"voxels that cannot be read ({short(error)})"
        return [Problem(_path(images[0]), found, "whole files", "get the files again")]


def _open(path: Path | None) -> tuple[nib.Nifti1Image | None, Problem | None]:
    if path is None or not path.exists():
        return None, Problem(
            str(path), "no file", "a file that the data set lists", "get the file, or leave the case out"
        )
    if path.exists() and not path.is_file():  # a pipe would be waited for
        return None, Problem(
            str(path), "a file that cannot be opened (no regular file)", "NIfTI", "put the file in its place"
        )
    try:
        image = nib.load(path)
    except UNREADABLE as error:
        return None, Problem(str(path), f"a file that cannot be opened ({short(error)})", "NIfTI", "get the file again")
    return image, None


def _path(image: nib.Nifti1Image) -> str:
    return str(image.get_filename())


def _header_problems(image: nib.Nifti1Image) -> Iterator[Problem]:
    path, shape = _path(image), image.shape
    if len(shape) not in (3, 4) or min(shape) < 1:
        yield Problem(path, f"shape {shape}", "3 axes, or 4 with channels last", "fix the file")
        return
    if image.get_data_dtype().kind not in "iuf":
        yield Problem(path, f"voxels of type {image.get_data_dtype()}"[:80], "one real number per voxel", "convert it")
        return
    if math.prod(shape) > MAX_VOXELS:
        yield Problem(path, f"a header that expects {math.prod(shape)} voxels", "a volume that fits", "fix the header")
    elif _promised_bytes(image) > _most_bytes(Path(path)):
        yield Problem(
            path,
            f"a header that expects {math.prod(shape)} voxels, more than the file can hold",
            "a whole file",
            "get the file again, or fix the header",
        )
    affine = image.affine
    if affine is None or not np.isfinite(affine).all():
        yield Problem(path, "an affine that is not finite", "millimetres", "fix the header")
        return
    stored = _stored_header(image)
    if stored is None:
        return
    sizes = np.asarray(stored["pixdim"][1:4], dtype=float)
    if not np.isfinite(sizes).all() or (sizes <= 0).any():
        yield Problem(path, f"voxel sizes {sizes.tolist()}", "positive millimetres", "fix pixdim")
    elif _implausible(sizes) or _implausible(nib.affines.voxel_sizes(affine)[nib.affines.voxel_sizes(affine) > 0]):
        yield Problem(
            path,
            f"voxel sizes {np.round(nib.affines.voxel_sizes(affine), 6).tolist()}",
            f"millimetres, {PLAUSIBLE_MM[0]:g} to {PLAUSIBLE_MM[1]:g}",
            "fix the units",
        )
    elif abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        yield Problem(path, "a singular affine", "three independent axes", "fix the header")
    for key in ("scl_slope", "scl_inter"):
        value = float(stored[key])
        if math.isinf(value) or abs(value) > LARGEST_FACTOR:
            yield Problem(path, f"{key} {value:g}", "a factor whose result is a finite number", "fix the header")


def _implausible(sizes_mm: np.ndarray) -> bool:
    return bool(((sizes_mm < PLAUSIBLE_MM[0]) | (sizes_mm > PLAUSIBLE_MM[1])).any())


def _promised_bytes(image: nib.Nifti1Image) -> int:
    return math.prod(image.shape) * image.get_data_dtype().itemsize


def _most_bytes(path: Path) -> int:
    """Return how many bytes of voxels a file can hold at most, by its size alone."""
    return path.stat().st_size * (1 if path.suffix == ".nii" else DEFLATE_LIMIT)


def _oddities(image: nib.Nifti1Image) -> Iterator[str]:
    """Tell what programs read differently, or what a copy of the voxels would lose."""
    stored = _stored_header(image)
    if stored is None:
        return
    sform, qform = image.get_sform(coded=True), image.get_qform(coded=True)
    if sform[1] and qform[1] and not np.allclose(sform[0], qform[0], atol=ODD):
        yield "sform and qform differ (the sform is used)"
    sizes = nib.affines.voxel_sizes(image.affine)
    if not np.allclose(sizes, stored["pixdim"][1:4], rtol=ODD, atol=0):
        yield "pixdim and affine have other voxel sizes (the affine's are used)"
    cosines = image.affine[:3, :3] / sizes
    if np.abs(cosines.T @ cosines - np.eye(3)).max() > ODD:
        yield "the axes are not at right angles"
    if image.file_map["image"].filename.endswith(".nii"):
        offset = int(stored["vox_offset"]) + _promised_bytes(image)
        if Path(image.get_filename()).stat().st_size > offset:
            yield "the file goes on after its voxels"


def _stored_header(image: nib.Nifti1Image) -> nib.Nifti1Header | None:
    """Return a NIfTI header as it is stored, before nibabel fixes it; None for other formats."""
    if not isinstance(image, nib.Nifti1Image):
        return None
    with nib.openers.ImageOpener(image.get_filename()) as stream:
        return image.header_class.from_fileobj(stream, check=False)


def _geometry_problems(images: list, label, modalities: list[str]) -> Iterator[Problem]:
    path = _path(label)
    if len(label.shape) != 3:
        yield Problem(path, f"a label of shape {label.shape}", "3 axes", "store one label map per case")
        return
    yield from _channel_count(images, modalities)
    for image in images:
        if image.shape[:3] != label.shape:
            yield Problem(path, f"shape {label.shape}", f"the image's {image.shape[:3]}", "resample the label")
        elif not np.allclose(image.affine, label.affine, atol=AFFINE_TOLERANCE_MM):
            worst = float(np.abs(image.affine - label.affine).max())
            yield Problem(
                path,
                f"an affine that differs by up to {worst:.4g} from {_path(image)}",
                f"the image's within {AFFINE_TOLERANCE_MM}",
                "copy the image's header",
            )


def _channel_count(images: list, modalities: list[str]) -> Iterator[Problem]:
    channels = images[0].shape[3] if len(images) == 1 and len(images[0].shape) == 4 else len(images)
    if any(len(image.shape) == 4 for image in images) and len(images) > 1:
        yield Problem(_path(images[0]), "several files of which one is 4D", "one file per channel", "split the 4D file")
    if channels != len(modalities):
        yield Problem(_path(images[0]), f"{channels} channel(s)", f"{len(modalities)}", "add or remove channels")


def _voxel_problems(
    case: CaseFiles, headers: list, values: set[int], modalities: list[str]
) -> tuple[list[Problem], Seen | None]:
    *images, label = headers
    try:
        volumes = _volumes(images)
        labels = np.asarray(label.dataobj)
    except UNREADABLE as error:
        where, found = f"{_path(images[0])} or its label", f"voxels that cannot be read ({short(error)})"
        return [Problem(where, found, "whole files", "get the files again")], None
    present = np.unique(labels)
    problems = list(_label_problems(present, _path(label), values))
    ranges = _ranges(volumes)
    problems += _all_channel_problems(images, ranges, modalities)
    checksum = 0
    for volume in volumes:
        checksum = zlib.crc32(np.ascontiguousarray(volume).tobytes(), checksum)
    kept = frozenset() if problems else frozenset(int(value) for value in present)
    oddities = tuple(dict.fromkeys(odd for image in headers for odd in _oddities(image)))
    return problems, Seen(case, ranges, kept, checksum, oddities)


def _volumes(images: list) -> list[np.ndarray]:
    """Return one array per channel."""
    volumes = []
    for image in images:
        data = np.asarray(image.dataobj)
        volumes += [data] if data.ndim == 3 else list(np.moveaxis(data, -1, 0))
    return volumes


def _ranges(volumes: list[np.ndarray]) -> tuple[tuple[float, float], ...]:
    return tuple((float(volume.min()), float(volume.max())) for volume in volumes)


def _all_channel_problems(
    images: list, ranges: Sequence[tuple[float, float]], modalities: list[str]
) -> Iterator[Problem]:
    for number, (range_of, modality) in enumerate(zip(ranges, modalities, strict=True)):
        where = f"{_path(images[min(number, len(images) - 1)])} channel {number}"
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
            "fix the label, or declare or merge the value in the card",
        )


def _channel_problems(range_of: tuple[float, float], where: str, modality: str) -> Iterator[Problem]:
    low, high = range_of
    if not (math.isfinite(low) and math.isfinite(high)):
        yield Problem(where, "voxels that are not finite", "finite numbers", "fix the image")
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
