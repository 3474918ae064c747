"""Score label maps of external models: files or folders, any model, one row per structure and metric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from segbench.core.errors import InputError, Problem, raise_problems
from segbench.core.metric_facts import METRICS
from segbench.core.progress import Progress
from segbench.core.task import Structure
from segbench.data.parallel import mapped
from segbench.evaluation.label_maps import (
    LabelMap,
    Pair,
    grid_problems,
    pairs,
    present_labels,
    read_label_map,
    without_ignored,
)
from segbench.metrics import ScoreValue, score_pair
from segbench.metrics.score import diagonal_mm

__all__ = ["MEDPY", "Request", "Scored", "pairs", "score_all", "score_case"]
EXTERNAL = "external"


@dataclass(frozen=True)
class Request:
    """What to score and how.

    labels: the values that may occur, background and ignored ones included. ignored: values of the reference that mark
    voxels which count nowhere.
    """

    structures: tuple[Structure, ...]
    labels: frozenset[int]
    metrics: tuple[str, ...]
    engine: str = "segbench"
    spacing_is_nominal: bool = False
    model: str = EXTERNAL
    task: str = EXTERNAL
    ignored: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Scored:
    """Rows of a score table; in how many cases each label value occurs (either side), and each notice is due."""

    rows: tuple[dict, ...]
    cases_with_label: Counter[int]
    cases_with_notice: Counter[str]


def score_all(cases: Sequence[Pair], request: Request, *, workers: int = 1) -> Scored:
    """Return the rows of all cases; all problems of all cases are raised at once, so no partial table is made."""
    rows: list[dict] = []
    problems: list[Problem] = []
    labels: Counter[int] = Counter()
    notices: Counter[str] = Counter()
    with Progress(total=len(cases), title="score") as progress:
        for result in mapped(partial(_guarded, request=request), cases, workers=workers):
            if isinstance(result, InputError):
                problems += result.problems
            else:
                rows += result.rows
                labels += result.cases_with_label
                notices += result.cases_with_notice
            progress.advance()
    raise_problems(problems)
    return Scored(tuple(rows), labels, notices)


def _guarded(pair: Pair, *, request: Request) -> Scored | InputError:
    try:
        return score_case(pair, request)
    except InputError as error:
        return error


def score_case(pair: Pair, request: Request) -> Scored:
    """Return the rows of one case; a missing prediction is a row with its status in every cell."""
    maps: list[LabelMap] = []
    problems: list[Problem] = []
    for path in (pair.reference, *([pair.prediction] if pair.prediction else [])):
        try:
            maps.append(read_label_map(path, request.labels))
        except InputError as error:
            problems += error.problems
    if len(maps) == 2:
        problems += grid_problems(*maps)
    raise_problems(problems)
    labels = Counter({value for label_map in maps for value in present_labels(label_map.labels_XYZ)})
    notices = Counter({notice for label_map in maps for notice in label_map.notices})
    if pair.prediction is None:
        rows = [_missing_row(request, pair, maps[0], item, metric) for item, metric in _cells(request, pair)]
    else:
        rows = list(_scored_rows(request, pair, *maps))
    return Scored(tuple(rows), labels, notices)


def _missing_row(request: Request, pair: Pair, reference: LabelMap, structure: Structure, metric: str) -> dict:
    """Return a row without a value, which still states what a missing mask counts as: diagonal and volume."""
    facts: dict[str, object] = {}
    if not request.spacing_is_nominal:
        voxels, spacing = np.isin(reference.labels_XYZ, structure.labels).sum(), reference.spacing_mm_xyz
        facts["reference_volume_mm3"] = _text(float(voxels * np.prod(spacing)))
        facts["diagonal_mm"] = _text(diagonal_mm(reference.labels_XYZ.shape, spacing))
    return _row(
        request, pair, structure.name, metric, status="prediction_missing", reason="no prediction file", **facts
    )


def _scored_rows(request: Request, pair: Pair, reference: LabelMap, prediction: LabelMap) -> Iterable[dict]:
    predicted_XYZ = without_ignored(prediction.labels_XYZ, reference.labels_XYZ, request.ignored)
    spacing, masks = reference.spacing_mm_xyz, (reference.labels_XYZ, predicted_XYZ)
    if request.engine == "medpy":
        return [_medpy_row(request, pair, *masks, spacing, item) for item in _cells(request, pair)]
    values = score_pair(
        *masks,
        spacing,
        _structures(request, pair),
        metrics=request.metrics,
        spacing_is_nominal=request.spacing_is_nominal,
    )
    return [_value_row(request, pair, value) for value in values]


def _structures(request: Request, pair: Pair) -> list[Structure]:
    """Return the structures to score in a pair of files: all, or the one that the file's name says."""
    return [item for item in request.structures if pair.structure in (None, item.name)]


def _cells(request: Request, pair: Pair) -> list[tuple[Structure, str]]:
    return [(structure, metric) for structure in _structures(request, pair) for metric in request.metrics]


def _row(request: Request, pair: Pair, structure: str, metric: str, **cells: object) -> dict:
    return {
        "experiment": EXTERNAL,
        "model": request.model,
        "initialisation": "none",
        "recipe": "none",
        "scope": EXTERNAL,
        "fold": "0",
        "seed": "0",
        "protocol": EXTERNAL,
        "dataset": request.task,
        "task": request.task,
        "case": pair.case,
        "structure": structure,
        "metric": metric,
        "patient": pair.patient,
        "value": "",
        "unit_of_value": METRICS[metric].unit,
        "status": "ok",
        "reason": "",
        "reference_volume_mm3": "",
        "prediction_volume_mm3": "",
        "diagonal_mm": "",
    } | cells


def _value_row(request: Request, pair: Pair, value: ScoreValue) -> dict:
    return _row(
        request,
        pair,
        value.structure,
        value.metric,
        value=_text(value.value),
        status=value.status,
        reason=value.reason,
        reference_volume_mm3=_text(value.reference_volume_mm3),
        prediction_volume_mm3=_text(value.prediction_volume_mm3),
        diagonal_mm=_text(value.diagonal_mm),
    )


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


MEDPY = {"dice": "dc", "iou": "jc", "hd95": "hd95", "hd": "hd", "assd": "assd"}


def _medpy_row(request: Request, pair: Pair, labels_XYZ, predicted_XYZ, spacing, item: tuple[Structure, str]) -> dict:
    """Score one cell with MedPy itself; statuses are ours, values its."""
    from medpy.metric import binary  # GPL: called as an installed tool, only when it is asked for

    structure, metric = item
    if request.spacing_is_nominal and METRICS[metric].needs_spacing:
        return _row(request, pair, structure.name, metric, status="not_defined", reason="the spacing is nominal")
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
        pair,
        structure.name,
        metric,
        value=_text(value),
        status=status,
        reason="" if status == "ok" else status.replace("_", " "),
        reference_volume_mm3=_text(reference.sum() * voxel),
        prediction_volume_mm3=_text(prediction.sum() * voxel),
        diagonal_mm="" if request.spacing_is_nominal else _text(diagonal_mm(labels_XYZ.shape, spacing)),
    )
