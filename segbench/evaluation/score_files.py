"""Score label maps that were made elsewhere: files or folders, any model, one row per structure and metric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segbench.core.errors import InputError, RunFailed, raise_problems
from segbench.core.progress import Progress
from segbench.core.task import Structure
from segbench.evaluation.label_maps import LabelMap, Pair, grid_problems, pairs, present_labels, read_label_map
from segbench.metrics import METRICS, ScoreValue, score_pair

__all__ = ["MEDPY", "Request", "Scored", "pairs", "score_all", "score_case"]
EXTERNAL = "external"


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


@dataclass(frozen=True)
class Scored:
    """Rows of a score table, and in how many cases each label value occurs (either side)."""

    rows: tuple[dict, ...]
    cases_with_label: Counter[int]


def score_all(cases: Sequence[Pair], request: Request, *, workers: int = 1) -> Scored:
    """Return the rows of all cases; all problems of all cases are raised at once, so no partial table is made."""
    rows, problems, seen = [], [], Counter()
    with Progress(total=len(cases), title="score") as progress:
        for result in _results(cases, request, workers):
            if isinstance(result, InputError):
                problems += result.problems
            else:
                rows += result.rows
                seen += result.cases_with_label
            progress.advance()
    raise_problems(problems)
    return Scored(tuple(rows), seen)


def _results(cases: Sequence[Pair], request: Request, workers: int) -> Iterator[Scored | InputError]:
    jobs = [(*case, request) for case in cases]
    if workers == 1 or len(jobs) == 1:
        yield from map(_guarded, jobs)
        return
    try:
        with ProcessPoolExecutor(min(workers, len(jobs))) as pool:
            yield from pool.map(_guarded, jobs)
    except BrokenProcessPool as error:
        raise RunFailed("a worker process died, perhaps for lack of memory; take fewer --workers") from error


def _guarded(job: tuple) -> Scored | InputError:
    try:
        return score_case(*job)
    except InputError as error:
        return error


def score_case(case: str, reference: Path, prediction: Path | None, request: Request) -> Scored:
    """Return the rows of one case; a missing prediction is a row with its status in every cell."""
    maps, problems = [], []
    for path in (reference, *([prediction] if prediction else [])):
        try:
            maps.append(read_label_map(path, request.labels))
        except InputError as error:
            problems += error.problems
    if len(maps) == 2:
        problems += grid_problems(*maps)
    raise_problems(problems)
    seen = Counter({value for label_map in maps for value in present_labels(label_map.labels_XYZ)})
    if prediction is None:
        missing = {"status": "prediction_missing", "reason": "no prediction file"}
        return Scored(
            tuple(_row(request, case, item.name, metric, **missing) for item, metric in _cells(request)), seen
        )
    return Scored(tuple(_scored_rows(request, case, *maps)), seen)


def _scored_rows(request: Request, case: str, reference: LabelMap, prediction: LabelMap) -> Iterable[dict]:
    spacing, masks = reference.spacing_mm_xyz, (reference.labels_XYZ, prediction.labels_XYZ)
    if request.engine == "medpy":
        return [_medpy_row(request, case, *masks, spacing, item) for item in _cells(request)]
    values = score_pair(
        *masks, spacing, request.structures, metrics=request.metrics, spacing_is_nominal=request.spacing_is_nominal
    )
    return [_value_row(request, case, value) for value in values]


def _cells(request: Request) -> list[tuple[Structure, str]]:
    return [(structure, metric) for structure in request.structures for metric in request.metrics]


def _row(request: Request, case: str, structure: str, metric: str, **cells: object) -> dict:
    return {
        "experiment": EXTERNAL,
        "model": request.model,
        "initialisation": "none",
        "scope": EXTERNAL,
        "fold": "0",
        "seed": "0",
        "protocol": EXTERNAL,
        "dataset": request.task,
        "task": request.task,
        "case": case,
        "structure": structure,
        "metric": metric,
        "patient": case,
        "value": "",
        "unit_of_value": METRICS[metric].unit,
        "status": "ok",
        "reason": "",
        "reference_volume_mm3": "",
        "prediction_volume_mm3": "",
    } | cells


def _value_row(request: Request, case: str, value: ScoreValue) -> dict:
    return _row(
        request,
        case,
        value.structure,
        value.metric,
        value=_text(value.value),
        status=value.status,
        reason=value.reason,
        reference_volume_mm3=_text(value.reference_volume_mm3),
        prediction_volume_mm3=_text(value.prediction_volume_mm3),
    )


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
        (True, True): "ok",
        (True, False): "prediction_empty",
        (False, True): "reference_empty",
        (False, False): "both_empty",
    }[bool(reference.any()), bool(prediction.any())]
    value = None
    if status == "ok":
        extra = {} if metric in ("dice", "iou") else {"voxelspacing": spacing}
        value = float(getattr(binary, MEDPY[metric])(prediction, reference, **extra))
    elif metric in ("dice", "iou") and status != "both_empty":
        value = 0.0
    return _row(
        request,
        case,
        structure.name,
        metric,
        value=_text(value),
        status=status,
        reason="" if status == "ok" else status.replace("_", " "),
        reference_volume_mm3=_text(reference.sum() * voxel),
        prediction_volume_mm3=_text(prediction.sum() * voxel),
    )
