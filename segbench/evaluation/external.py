"""Score label maps that were made elsewhere: files or folders, any model, one row per structure and metric."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from segbench.core.errors import Fault, InputFaults, raise_faults
from segbench.core.progress import Progress
from segbench.core.task import Structure
from segbench.data.checks import UNREADABLE
from segbench.data.layouts import stem
from segbench.metrics import METRICS, ScoreValue, score_pair

AFFINE_TOLERANCE_MM = 1e-2
EXTERNAL = "external"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What to score and how; `labels` are the values that may occur, background and ignored ones included."""

    structures: tuple[Structure, ...]
    labels: frozenset[int]
    metrics: tuple[str, ...]
    engine: str = "segbench"
    spacing_is_nominal: bool = False
    model: str = EXTERNAL
    task: str = EXTERNAL


def pairs(reference: Path, prediction: Path) -> list[tuple[str, Path, Path | None]]:
    """Return (case, reference, prediction or None) for two files or two folders; an extra prediction is a fault."""
    if reference.is_file():
        return [(stem(reference.name), reference, prediction if prediction.exists() else None)]
    references, predictions = _volumes(reference), _volumes(prediction)
    if not references:
        raise InputFaults(
            [Fault(str(reference), "no label map", "*.nii or *.nii.gz files", "name the folder of labels")]
        )
    raise_faults(
        Fault(str(predictions[case]), "a prediction without a reference", "one of the references",
              "remove it, or add its reference")
        for case in sorted(predictions.keys() - references.keys())
    )  # fmt: skip
    return [(case, path, predictions.get(case)) for case, path in sorted(references.items())]


def _volumes(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputFaults([Fault(str(folder), "no such file or folder", "a file or a folder", "mend the path")])
    return {stem(path.name): path for path in sorted(folder.iterdir()) if path.name.endswith((".nii", ".nii.gz"))}


def score_all(cases: Sequence[tuple[str, Path, Path | None]], request: Request, *, workers: int = 1) -> list[dict]:
    """Return the rows of all cases; all faults of all cases are raised at once, so no partial table is made."""
    rows, faults = [], []
    with Progress(total=len(cases), title="score") as progress:
        for result in _results(cases, request, workers):
            rows += [] if isinstance(result, InputFaults) else result
            faults += result.faults if isinstance(result, InputFaults) else ()
            progress.advance()
    raise_faults(faults)
    return rows


def _results(cases, request: Request, workers: int) -> Iterable[list[dict] | InputFaults]:
    jobs = [(*case, request) for case in cases]
    if workers == 1:
        yield from map(_guarded, jobs)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(_guarded, jobs)


def _guarded(job: tuple) -> list[dict] | InputFaults:
    try:
        return score_case(*job)
    except InputFaults as error:
        return error


def score_case(case: str, reference: Path, prediction: Path | None, request: Request) -> list[dict]:
    """Return the rows of one case; a missing prediction is a row with its status in every cell."""
    labels_XYZ, affine = _read(reference, request.labels)
    if prediction is None:
        return [
            _row(request, case, structure.name, metric, status="prediction_missing", reason="no prediction file")
            for structure in request.structures
            for metric in request.metrics
        ]
    predicted_XYZ, predicted_affine = _read(prediction, request.labels)
    faults = []
    if predicted_XYZ.shape != labels_XYZ.shape:
        faults.append(
            Fault(str(prediction), f"shape {predicted_XYZ.shape}", f"{labels_XYZ.shape}", "resample to the reference")
        )
    elif not np.allclose(affine, predicted_affine, atol=AFFINE_TOLERANCE_MM):
        worst = float(np.abs(affine - predicted_affine).max())
        faults.append(
            Fault(str(prediction), f"an affine that differs by up to {worst:.4g}", "the reference's affine",
                  "write predictions with the reference's header")
        )  # fmt: skip
    raise_faults(faults)
    spacing = tuple(float(size) for size in nib.affines.voxel_sizes(affine))
    if request.engine == "medpy":
        return [_medpy_row(request, case, labels_XYZ, predicted_XYZ, spacing, item) for item in _cells(request)]
    values = score_pair(
        labels_XYZ, predicted_XYZ, spacing, request.structures, metrics=request.metrics,
        spacing_is_nominal=request.spacing_is_nominal,
    )  # fmt: skip
    return [_value_row(request, case, value) for value in values]


def _cells(request: Request) -> list[tuple[Structure, str]]:
    return [(structure, metric) for structure in request.structures for metric in request.metrics]


def _read(path: Path, labels: frozenset[int]) -> tuple[np.ndarray, np.ndarray]:
    try:
        image = nib.load(path)
        data = np.asarray(image.dataobj)
    except UNREADABLE as error:
        found = f"a file that cannot be read ({' '.join(str(error).split())[:80]})"
        raise InputFaults([Fault(str(path), found, "a NIfTI label map", "write the file again")]) from error
    values = np.unique(data)
    problem = None
    if data.ndim != 3:
        problem = (f"{data.ndim} axes", "3 axes", "store one label map per case")
    elif not np.isfinite(values.astype(float)).all():
        problem = ("values that are not finite", "whole numbers", "write labels, not probabilities")
    elif (values != np.round(values)).any():
        problem = (f"fractional values {values[values != np.round(values)][:3].tolist()}", "whole numbers",
                   "write labels, not probabilities")  # fmt: skip
    elif unknown := [int(value) for value in values if int(value) not in labels]:
        problem = (f"labels {unknown[:5]}", f"one of {sorted(labels)}", "name them in --labels or --ignore-labels")
    if problem:
        raise InputFaults([Fault(str(path), *problem)])
    return data.astype(np.int32), image.affine


def _row(request: Request, case: str, structure: str, metric: str, **cells: object) -> dict:
    return {
        "experiment": EXTERNAL, "model": request.model, "initialisation": "none", "unit": EXTERNAL, "fold": "0",
        "seed": "0", "protocol": EXTERNAL, "dataset": request.task, "task": request.task, "case": case,
        "structure": structure, "metric": metric, "patient": case, "value": "", "unit_of_value": METRICS[metric].unit,
        "status": "ok", "reason": "", "reference_volume_mm3": "", "prediction_volume_mm3": "",
    } | cells  # fmt: skip


def _value_row(request: Request, case: str, value: ScoreValue) -> dict:
    return _row(
        request, case, value.structure, value.metric, value=_text(value.value), status=value.status,
        reason=value.reason, reference_volume_mm3=_text(value.reference_volume_mm3),
        prediction_volume_mm3=_text(value.prediction_volume_mm3),
    )  # fmt: skip


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


MEDPY = {"dice": "dc", "iou": "jc", "hd95": "hd95", "hd": "hd", "assd": "assd"}


def _medpy_row(request, case, labels_XYZ, predicted_XYZ, spacing, item: tuple[Structure, str]) -> dict:
    """Score one cell with MedPy itself; statuses are ours, values its."""
    from medpy.metric import binary  # GPL: called as an installed tool, only when it is asked for

    structure, metric = item
    if request.spacing_is_nominal and METRICS[metric].needs_spacing:
        return _row(request, case, structure.name, metric, status="not_defined", reason="the spacing is nominal")
    reference, prediction = (np.isin(labels, structure.labels) for labels in (labels_XYZ, predicted_XYZ))
    voxel = float(np.prod(spacing))
    status = {
        (True, True): "ok", (True, False): "prediction_empty", (False, True): "reference_empty",
        (False, False): "both_empty",
    }[bool(reference.any()), bool(prediction.any())]  # fmt: skip
    value = None
    if status == "ok":
        extra = {} if metric in ("dice", "iou") else {"voxelspacing": spacing}
        value = float(getattr(binary, MEDPY[metric])(prediction, reference, **extra))
    elif metric in ("dice", "iou") and status != "both_empty":
        value = 0.0
    return _row(
        request, case, structure.name, metric, value=_text(value), status=status,
        reason="" if status == "ok" else status.replace("_", " "), reference_volume_mm3=_text(reference.sum() * voxel),
        prediction_volume_mm3=_text(prediction.sum() * voxel),
    )  # fmt: skip
