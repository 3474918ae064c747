"""Every fact about a metric: title, unit, direction, range, definition, and what an empty or missing mask counts as.

Plain data, imported by every table and by the config, so nothing heavier than the standard library is imported here.
A metric states each fact: none has a default that a new metric could forget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from segbench.core.vocabulary import HANDLED_STATUSES, MISSED_STATUSES, WITHOUT_MASK_STATUSES

Rule = Literal["exclude", "own value", "diagonal", "reference volume", "not defined"]
Handling = Mapping[str, float | Rule]
"""Status of a row without two masks -> what it counts as: a number in the metric's unit, or a rule.

exclude: the row does not count. own value: the value that the definition gave. diagonal: the diagonal of the case's
image, in mm, which no distance in it exceeds. reference volume: the volume of the reference structure, in ml. not
defined: no value is right, so the cell that holds the row has none; it never counts fewer cases.
"""

UNISEG_PENALTY_VOXELS = 998.0
DODNET_PENALTY_VOXELS = 373.12866


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        title: the name in tables.
        unit: '1', 'mm', 'ml' or 'voxel'.
        better: 'higher' or 'lower'.
        highest: the largest possible value; the smallest is 0.
        definition: what is computed from two masks that are not empty.
        empty: the value that the definition itself gives for a status with an empty mask; others have no value.
        handling: what a row of each status in `HANDLED_STATUSES` counts as, unless config says otherwise.
        needs_spacing: not defined where the spacing is nominal.
        needs_tolerance: not defined for a structure without a tolerance.
        lesion_only: not defined for a structure that is no lesion.
    """

    title: str
    unit: str
    better: Literal["higher", "lower"]
    highest: float
    definition: str
    empty: Mapping[str, float]
    handling: Handling
    needs_spacing: bool
    needs_tolerance: bool
    lesion_only: bool

    def __post_init__(self) -> None:
        if set(self.handling) != set(HANDLED_STATUSES):
            raise ValueError(f"{self.title}: the handling names {set(self.handling)}, not {HANDLED_STATUSES}")


def _handled(missed: float | Rule, *, both_empty: float | Rule) -> Handling:
    """Return the handling in which every missed structure and every invented one counts the same."""
    return MappingProxyType({"both_empty": both_empty, **dict.fromkeys(("reference_empty", *MISSED_STATUSES), missed)})


_ONE_EMPTY = dict.fromkeys(("reference_empty", "prediction_empty"), 0.0)
_OVERLAP = _handled(0.0, both_empty=1.0)


def _fraction(
    title: str,
    definition: str,
    *,
    empty: Mapping[str, float],
    handling: Handling = _OVERLAP,
    surface: bool = False,
    lesion: bool = False,
) -> Metric:
    return Metric(
        title=title,
        unit="1",
        better="higher",
        highest=1.0,
        definition=definition,
        empty=empty,
        handling=handling,
        needs_spacing=surface,
        needs_tolerance=surface,
        lesion_only=lesion,
    )


def _lower_is_better(
    title: str, unit: str, definition: str, *, empty: Mapping[str, float], handling: Handling, lesion: bool = False
) -> Metric:
    return Metric(
        title=title,
        unit=unit,
        better="lower",
        highest=math.inf,
        definition=definition,
        empty=empty,
        handling=handling,
        needs_spacing=unit != "voxel",
        needs_tolerance=False,
        lesion_only=lesion,
    )


def _distance(title: str, definition: str) -> Metric:
    return _lower_is_better(title, "mm", definition, empty={}, handling=_handled("diagonal", both_empty=0.0))


def _published_distance(title: str, penalty: float) -> Metric:
    return _lower_is_better(
        title,
        "voxel",
        f"HD95 (pooled) at unit spacing; {penalty:.8g} when exactly one mask is empty, 0 when both are",
        empty=dict.fromkeys(_ONE_EMPTY, penalty) | {"both_empty": 0.0},
        handling=_handled(penalty, both_empty=0.0),
    )


def _volume(title: str, definition: str, *, missing: Rule, lesion: bool) -> Metric:
    """Return a volume that empty masks have too; a row without any mask counts as `missing`."""
    handling: dict[str, float | Rule] = dict.fromkeys(HANDLED_STATUSES, "own value")
    handling |= dict.fromkeys(WITHOUT_MASK_STATUSES, missing)
    return _lower_is_better(title, "ml", definition, empty={}, handling=handling, lesion=lesion)


METRICS: dict[str, Metric] = {
    "dice": _fraction("Dice", "2|A and B| / (|A| + |B|)", empty=_ONE_EMPTY),
    "iou": _fraction("IoU", "|A and B| / |A or B|", empty=_ONE_EMPTY),
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
    "nsd": _fraction(
        "NSD (area-weighted)",
        "fraction of both surfaces' area within the tolerance of the other, marching-cubes surface (surface-distance)",
        empty=_ONE_EMPTY,
        surface=True,
    ),
    "nsd_voxel": _fraction(
        "NSD (voxel count)",
        "fraction of both surfaces' voxels within the tolerance of the other, 6-neighbour surface",
        empty=_ONE_EMPTY,
        surface=True,
    ),
    "volume_error_ml": _volume(
        "Absolute volume error", "|V(prediction) - V(reference)|", missing="reference volume", lesion=False
    ),
    "lesion_f1": _fraction("Lesion F1", "harmonic mean of lesion precision and recall", empty={}, lesion=True),
    "lesion_precision": _fraction(
        "Lesion precision",
        "fraction of predicted components (26-connected) that share a voxel with the reference",
        empty={},
        handling={**_OVERLAP, "both_empty": "exclude", "prediction_empty": "exclude"},
        lesion=True,
    ),
    "lesion_recall": _fraction(
        "Lesion recall",
        "fraction of reference components (26-connected) that share a voxel with the prediction",
        empty={},
        handling={**_OVERLAP, "both_empty": "exclude", "reference_empty": "exclude"},
        lesion=True,
    ),
    "false_positive_volume_ml": _volume(
        "False-positive volume",
        "volume of predicted components (26-connected) that share no voxel with the reference",
        missing="not defined",
        lesion=True,
    ),
    "autopet_false_positive_volume_ml": _volume(
        "False-positive volume (autoPET)",
        "volume of predicted components (18-connected) that share no voxel with the reference",
        missing="not defined",
        lesion=True,
    ),
    "autopet_false_negative_volume_ml": _volume(
        "False-negative volume (autoPET)",
        "volume of reference components (18-connected) that share no voxel with the prediction",
        missing="reference volume",
        lesion=True,
    ),
    "uniseg_dice": _fraction(
        "Dice (UniSeg's script)", "Dice; 1 when both masks are empty", empty={**_ONE_EMPTY, "both_empty": 1.0}
    ),
    "uniseg_hd95": _published_distance("HD95 (UniSeg's script)", UNISEG_PENALTY_VOXELS),
    "dodnet_dice": _fraction(
        "Dice (DoDNet's script)",
        "2|A and B| / (|A| + |B| + 1); 0 when both are empty",
        empty={**_ONE_EMPTY, "both_empty": 0.0},
        handling=_handled(0.0, both_empty=0.0),
    ),
    "dodnet_hd95": _published_distance("HD95 (DoDNet's script)", DODNET_PENALTY_VOXELS),
}
METRIC_NAMES = tuple(METRICS)


def rules_of(metric: str) -> tuple[Rule, ...]:
    """Return the rules that a user may state beside numbers; the diagonal only of a metric in mm or an unknown one."""
    in_mm = metric not in METRICS or METRICS[metric].unit == "mm"
    return ("exclude", "diagonal") if in_mm else ("exclude",)
