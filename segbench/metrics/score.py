"""Scores of one reference and one prediction: a value and a status for every structure and metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segbench.core.errors import input_error, suggestion
from segbench.core.metric_facts import METRICS, Metric
from segbench.core.task import Structure
from segbench.metrics.crop import structure_masks
from segbench.metrics.formulas import OF_ANY_MASKS, OF_TWO_MASKS
from segbench.metrics.pair import MaskPair, Spacing


@dataclass(frozen=True)
class ScoreValue:
    """One value of one metric and structure.

    `value` is None where the definition gives no number. `status` says what the masks are, so that a value may stand
    beside an empty mask (Dice is 0 there), or that the metric is `not_defined` for this structure, with the reason.
    Volumes and `diagonal_mm`, the diagonal of the whole image, are None where the spacing is nominal.
    """

    structure: str
    metric: str
    value: float | None
    unit_of_value: str
    status: str
    reason: str
    reference_volume_mm3: float | None
    prediction_volume_mm3: float | None
    diagonal_mm: float | None


def score_pair(
    reference_XYZ: np.ndarray,
    prediction_XYZ: np.ndarray,
    spacing_mm_xyz: Sequence[float],
    structures: Sequence[Structure],
    *,
    metrics: Sequence[str] | None = None,
    spacing_is_nominal: bool = False,
    threads: int = 1,
) -> list[ScoreValue]:
    """Return one value per structure and metric, in the order given; without `metrics` all that there are.

    Both label maps are whole numbers of one shape, on the same grid. A structure may be empty in either or both. Only
    what the metrics need is computed. `threads` is used for distances.
    Raises `InputError` for other arrays, a spacing that is not three positive numbers, an unknown metric, and a
    structure with label 0 or a negative tolerance.
    """
    spacing = _checked_spacing(spacing_mm_xyz)
    names = _checked_metrics(metrics)
    _check_structures(structures)
    _check_label_maps(reference_XYZ, prediction_XYZ)
    diagonal = None if spacing_is_nominal else diagonal_mm(reference_XYZ.shape, spacing)
    values = []
    for structure, *masks in structure_masks((reference_XYZ, prediction_XYZ), structures):
        tolerance = None if math.isnan(structure.tolerance_mm) else structure.tolerance_mm
        pair = MaskPair(*masks, spacing_mm_xyz=spacing, tolerance_mm=tolerance, threads=threads)
        values += [_score(pair, structure, name, diagonal) for name in names]
    return values


def not_defined_reason(metric: Metric, structure: Structure, *, spacing_is_nominal: bool) -> str:
    """Return why a metric has no meaning for a structure, or an empty string."""
    if metric.needs_spacing and spacing_is_nominal:
        return "the spacing of this data set is nominal"
    if metric.lesion_only and not structure.lesion:
        return "the structure is not declared as a lesion"
    if metric.needs_tolerance and math.isnan(structure.tolerance_mm):
        return "the structure has no tolerance"
    return ""


def diagonal_mm(shape_xyz: Sequence[int], spacing_mm_xyz: Sequence[float]) -> float:
    """Return the diagonal of an image in mm, its voxels included; no distance inside it is larger."""
    return math.hypot(*(count * size for count, size in zip(shape_xyz, spacing_mm_xyz, strict=True)))


def _score(pair: MaskPair, structure: Structure, name: str, diagonal: float | None) -> ScoreValue:
    metric, status, spacing_is_nominal = METRICS[name], pair.status, diagonal is None
    reason = not_defined_reason(metric, structure, spacing_is_nominal=spacing_is_nominal)
    value = None
    if reason:
        status = "not_defined"
    elif name in OF_ANY_MASKS:
        value = OF_ANY_MASKS[name](pair)
    elif status == "ok":
        value = OF_TWO_MASKS[name](pair)
    else:
        value = metric.empty.get(status)
    volumes = (None, None) if spacing_is_nominal else (pair.reference_voxels, pair.prediction_voxels)
    return ScoreValue(
        structure=structure.name,
        metric=name,
        value=value,
        unit_of_value=metric.unit,
        status=status,
        reason=reason or ("" if status == "ok" else status.replace("_", " ")),
        **{
            f"{side}_volume_mm3": None if voxels is None else voxels * pair.voxel_mm3
            for side, voxels in zip(("reference", "prediction"), volumes, strict=True)
        },
        diagonal_mm=diagonal,
    )


def _checked_spacing(spacing_mm_xyz: Sequence[float]) -> Spacing:
    spacing = tuple(float(size) for size in spacing_mm_xyz)
    if len(spacing) != 3 or not all(math.isfinite(size) and size > 0 for size in spacing):
        raise input_error("spacing", found=spacing, expected="three positive numbers in mm", fix="give the voxel sizes")
    return spacing


def _checked_metrics(metrics: Sequence[str] | None) -> Sequence[str]:
    for name in metrics or ():
        if name not in METRICS:
            raise input_error("metrics", found=repr(name), expected="a metric", fix=suggestion(name, METRICS))
    return tuple(METRICS) if metrics is None else metrics


def _check_structures(structures: Sequence[Structure]) -> None:
    for structure in structures:
        if not structure.labels or min(structure.labels) < 1:
            raise input_error(
                f"structure {structure.name}",
                found=f"labels {structure.labels}",
                expected="labels from 1",
                fix="0 is the background",
            )
        if structure.tolerance_mm < 0 or math.isinf(structure.tolerance_mm):
            raise input_error(
                f"structure {structure.name}",
                found=f"a tolerance of {structure.tolerance_mm} mm",
                expected="0 mm or more, or NaN for none",
                fix="give the tolerance in mm",
            )


def _check_label_maps(reference_XYZ: np.ndarray, prediction_XYZ: np.ndarray) -> None:
    for name, labels in (("reference", reference_XYZ), ("prediction", prediction_XYZ)):
        if labels.dtype.kind not in "bui" or labels.ndim != 3:
            raise input_error(
                name,
                found=f"{labels.ndim} axes of {labels.dtype}",
                expected="3 axes of whole numbers",
                fix="give a label map",
            )
    if reference_XYZ.shape != prediction_XYZ.shape:
        raise input_error(
            "prediction",
            found=f"shape {prediction_XYZ.shape}",
            expected=f"{reference_XYZ.shape}",
            fix="resample the prediction to the grid of the reference",
        )
