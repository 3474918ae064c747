"""Card of Vestibular-Schwannoma-SEG, contrast-enhanced T1: NIfTI as the authors' script or `convert` writes it.

`convert` reads the DICOM edition of The Cancer Imaging Archive. Its mask comes from the RTSTRUCT that was drawn on the
T1 series, whose contours the planning software had interpolated onto the T1 slices; the authors' script starts from the
separately published contours.json, which may lie between slices. The authors' notes call the differences small.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import defaultdict
from pathlib import Path

import nibabel as nib
import numpy as np

from segbench.core.case import CaseFiles
from segbench.core.errors import InputError, Problem, RunFailed, input_error, raise_problems
from segbench.core.progress import Progress
from segbench.data.layouts import find

CARD = {
    "title": "Vestibular schwannoma",
    "layout": "custom",
    "folder": "Vestibular-Schwannoma-SEG",
    "channels": [{"name": "T1", "modality": "MR"}],
    "classes": {"1": "vestibular schwannoma"},
    "structures": [{"name": "vestibular schwannoma", "labels": [1], "tolerance_mm": 1.0, "lesion": True}],
    "tumours": {"1": None},
    "preprocessing": "default",
    "expected_cases": {"total": 242},
    "patient_namespace": "vs_seg",
    "spacing_is_nominal": False,
    "synthetic": False,
    "licence": "CC BY 4.0",
    "permits": {"commercial": True, "show_images": True},
    "citation": "Shapey et al., Segmentation of vestibular schwannoma from MRI, an open annotated dataset and "
    "baseline algorithm, Scientific Data 8, 2021",
    "url": "https://doi.org/10.7937/TCIA.9YTJ-5Q73",
    "obtain": "download Vestibular-Schwannoma-SEG (images and structures, DICOM) from The Cancer Imaging Archive, then "
    "run python -m segbench convert vs_seg --source DICOM_FOLDER --data-root DIR",
}
IMAGE, LABEL = "vs_gk_t1_refT1.nii.gz", "vs_gk_seg_refT1.nii.gz"

# Clinicians named the structures freely. A plain name of the tumour wins over a dated outline of it.
TUMOUR_NAMES = (
    re.compile(r"(?:[rl]t )?(?:tv(?:t[12])?|an|gtv|acoustic neuroma|tumou?r)", re.IGNORECASE),
    re.compile(r"vol.*|\d+ ?(?:m|mo|y)|t1\+.*", re.IGNORECASE),
)


def discover(root: Path, card: dict) -> list[CaseFiles]:
    """Return vs_gk_N/vs_gk_t1_refT1.nii.gz with vs_gk_seg_refT1.nii.gz."""
    labels = sorted(find(root, f"vs_gk_*/{LABEL}"), key=lambda path: int(path.parent.name.split("_")[2]))
    if not labels:
        raise input_error(root, found=f"no vs_gk_N/{LABEL}", expected=card["title"], fix=card["obtain"])
    return [CaseFiles(path.parent.name, path.parent.name, (path.with_name(IMAGE),), path) for path in labels]


def convert(source: Path, target: Path) -> int:
    """Write vs_gk_N below `target` for every VS-SEG-NNN folder of the DICOM edition; return how many were written.

    A case that is there is left alone, so that a broken run goes on. Every case that cannot be converted, and a patient
    with two folders, is a problem; the others are written first. A disk that cannot be written raises RunFailed.
    """
    patients: dict[int, list[Path]] = defaultdict(list)
    for path in find(source, "**/VS-SEG-*"):
        if re.fullmatch(r"VS-SEG-\d+", path.name):
            patients[int(path.name.removeprefix("VS-SEG-"))].append(path)
    if not patients:
        raise input_error(source, found="no VS-SEG-NNN folder", expected="the DICOM edition", fix=CARD["obtain"])
    problems: list[Problem] = []
    written = 0
    with Progress(total=len(patients), title="convert vs_seg") as progress:
        for number, (patient, *others) in patients.items():
            try:
                if others:
                    found, fix = f"the same patient as {patient}", "move one of the folders away"
                    raise input_error(others[0], found=found, expected="one folder for each patient", fix=fix)
                written += _convert_case(patient, target / f"vs_gk_{number}")
            except InputError as error:
                problems += error.problems
            except OSError as error:
                raise RunFailed(f"{error.filename or target}: {error.strerror or error}") from error
            progress.advance(patient.name)
    raise_problems(problems)
    return written


def _convert_case(patient: Path, case: Path) -> bool:
    if (case / IMAGE).is_file() and (case / LABEL).is_file():
        return False
    if case.exists():
        raise input_error(
            case, found="a case without image or label", expected="both files", fix="move the folder away"
        )
    image, mask, affine = _read_case(patient)
    case.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=case.parent) as scratch:
        made = Path(scratch) / case.name
        made.mkdir()
        _save(made / IMAGE, image, affine)
        _save(made / LABEL, mask, affine)
        os.replace(made, case)
    return True


def _read_case(patient: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images_XYZ, mask_XYZ and the affine of a patient's T1 series; what is missing raises InputError."""
    from segbench.data import dicom

    try:
        series = dicom.headers_by_series(patient)
        uid = _only(patient, "T1 series", [uid for uid, headers in series.items() if _is_t1(headers[0])])
        every = (header for headers in series.values() for header in headers)
        sets = [header for header in every if header.get("Modality") == "RTSTRUCT"]
        drawn = _only(patient, "RTSTRUCT of it", [item for item in sets if uid in dicom.referenced_series(item)])
        contours = dicom.contours_of(drawn, _tumour(patient, dicom.structure_names(drawn)))
        image, affine = dicom.read_series(series[uid])
    except InputError:
        raise
    except dicom.UNREADABLE as error:
        raise input_error(
            patient,
            found=dicom.in_words(error),
            expected="readable DICOM files",
            fix="get the patient again",
        ) from error
    mask = dicom.mask_of(contours, shape_xyz=image.shape, affine=affine, where=Path(drawn.filename))
    return image, mask, affine


def _is_t1(header) -> bool:
    return header.get("Modality") == "MR" and "t1_" in str(header.get("SeriesDescription", "")).lower()


def _only(patient: Path, what: str, found: list):
    if len(found) != 1:
        raise input_error(patient, found=f"{len(found)} x {what}", expected="exactly one", fix="get the patient again")
    return found[0]


def _tumour(patient: Path, names: list[str]) -> str:
    """Return the first structure that bears a name of the tumour, plain names first."""
    for pattern in TUMOUR_NAMES:
        for name in names:
            if pattern.fullmatch(name.strip()):
                return name
    shown = ", ".join(names) or "no structure"
    raise input_error(
        patient,
        found=f"structures {shown}",
        expected="contours named TV, AN, GTV, ...",
        fix="convert this case with the authors' script",
    )


def _save(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
