"""What each metric means: unit, title, direction, definition, and its value when a mask is empty.

Plain data, imported by every table, so nothing heavier than the standard library is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

UNISEG_PENALTY_VOXELS = 998.0
DODNET_PENALTY_VOXELS = 373.12866
_ONE_EMPTY = ("reference_empty", "prediction_empty")


@dataclass(frozen=True)
class Metric:
    """One metric.

    unit: '1', 'mm', 'ml' or 'voxel'; better: 'higher' or 'lower'. empty: the value that the definition itself gives for
    a status with an empty mask; a status that is not named has no value. needs_spacing: not defined where the spacing
    is nominal. needs_tolerance, lesion_only: not defined without a tolerance, or for a structure that is no lesion.
    """

    unit: str
    title: str
    better: str
    definition: str
    empty: Mapping[str, float] = field(default_factory=dict)
    needs_spacing: bool = False
    needs_tolerance: bool = False
    lesion_only: bool = False


def _overlap(title: str, definition: str, *, both_empty: float | None = None) -> Metric:
    empty = dict.fromkeys(_ONE_EMPTY, 0.0) | ({} if both_empty is None else {"both_empty": both_empty})
    return Metric("1", title, "higher", definition, empty=empty)


def _distance(title: str, definition: str) -> Metric:
    return Metric("mm", title, "lower", definition, needs_spacing=True)


def _surface_dice(title: str, definition: str) -> Metric:
    empty = dict.fromkeys(_ONE_EMPTY, 0.0)
    return Metric("1", title, "higher", definition, empty=empty, needs_spacing=True, needs_tolerance=True)


def _lesion(title: str, definition: str) -> Metric:
    return Metric("1", title, "higher", definition, lesion_only=True)


def _published_distance(title: str, penalty: float) -> Metric:
    definition = f"HD95 (pooled) at unit spacing; {penalty:.8g} when exactly one mask is empty, 0 when both are"
    return Metric("voxel", title, "lower", definition, empty=dict.fromkeys(_ONE_EMPTY, penalty) | {"both_empty": 0.0})


METRICS: dict[str, Metric] = {
    "dice": _overlap("Dice", "2|A and B| / (|A| + |B|)"),
    "iou": _overlap("IoU", "|A and B| / |A or B|"),
    "hd95": _distance(
        "HD95 (pooled)", "95th percentile of both directions' surface distances pooled, 6-neighbour surface (MedPy)"
    ),
    "hd95_max": _distance(
        "HD95 (max of directed)", "larger of the two directed 95th percentiles, 6-neighbour surface (MONAI)"
    ),
    "hd": _distance("Hausdorff distance", "largest surface distance of both directions, 6-neighbour surface"),
    "assd": _distance(
        "ASSD (pooled)", "mean of both directions' surface distances pooled, 6-neighbour surface (MedPy's assd)"
    ),
    "masd": _distance("MASD", "mean of the two directed mean surface distances, 6-neighbour surface"),
    "nsd": _surface_dice(
        "NSD (area-weighted)",
        "fraction of both surfaces' area within the tolerance of the other, marching-cubes surface (surface-distance)",
    ),
    "nsd_voxel": _surface_dice(
        "NSD (voxel count)", "fraction of both surfaces' voxels within the tolerance of the other, 6-neighbour surface"
    ),
    "volume_error_ml": Metric(
        "ml", "Absolute volume error", "lower", "|V(prediction) - V(reference)|", needs_spacing=True
    ),
    "lesion_f1": _lesion("Lesion F1", "harmonic mean of lesion precision and recall"),
    "lesion_precision": _lesion(
        "Lesion precision", "fraction of predicted components (26-connected) that share a voxel with the reference"
    ),
    "lesion_recall": _lesion(
        "Lesion recall", "fraction of reference components (26-connected) that share a voxel with the prediction"
    ),
    "false_positive_volume_ml": Metric(
        "ml",
        "False-positive volume",
        "lower",
        "volume of predicted components (26-connected) that share no voxel with the reference",
        needs_spacing=True,
        lesion_only=True,
    ),
    "uniseg_dice": _overlap("Dice (UniSeg's script)", "Dice; 1 when both masks are empty", both_empty=1.0),
    "uniseg_hd95": _published_distance("HD95 (UniSeg's script)", UNISEG_PENALTY_VOXELS),
    "dodnet_dice": _overlap(
        "Dice (DoDNet's script)", "2|A and B| / (|A| + |B| + 1); 0 when both are empty", both_empty=0.0
    ),
    "dodnet_hd95": _published_distance("HD95 (DoDNet's script)", DODNET_PENALTY_VOXELS),
}
