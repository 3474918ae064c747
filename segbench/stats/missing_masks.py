"""What a status counts as: applied when rows are aggregated, printed under every table, never baked into the scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from segbench.core.errors import input_error, suggestion
from segbench.core.vocabulary import HANDLED_STATUSES, METRIC_NAMES
from segbench.stats.intervals import Scale
from segbench.stats.scores import UNIT_INTERVAL_METRICS

Handling = Mapping[str, float | Literal["exclude"]]
MISSED_STATUSES = ("prediction_empty", "prediction_missing", "failed")
NEVER_COUNTED = ("not_defined", "skipped")
PENALTY_MM = 300.0
DISTANCES = ("hd95", "hd95_max", "hd", "assd", "masd")
PUBLISHED_DISTANCES = {"uniseg_hd95": 998.0, "dodnet_hd95": 373.12866}


def _misses_count_as(value: float, *, both_empty: float | Literal["exclude"]) -> Handling:
    return {"both_empty": both_empty, **dict.fromkeys(("reference_empty", *MISSED_STATUSES), value)}


_OVERLAP = _misses_count_as(0.0, both_empty=1.0)

DEFAULT_HANDLING: dict[str, Handling] = {
    **dict.fromkeys(UNIT_INTERVAL_METRICS, _OVERLAP),
    **{name: _misses_count_as(PENALTY_MM, both_empty=0.0) for name in DISTANCES},
    **{name: _misses_count_as(value, both_empty=0.0) for name, value in PUBLISHED_DISTANCES.items()},
    "dodnet_dice": _misses_count_as(0.0, both_empty=0.0),
    "lesion_precision": {**_OVERLAP, "both_empty": "exclude", "prediction_empty": "exclude"},
    "lesion_recall": {**_OVERLAP, "both_empty": "exclude", "reference_empty": "exclude"},
}
"""Per metric: what a status counts as; a status that is not named keeps the row's own value, blank means excluded."""


_DECLARED_LOWER: dict[str, bool] = {}


def declare_metric(metric: str, *, lower_is_better: bool) -> None:
    """Make the direction of a metric of another origin known; its values have no range and no handling of their own."""
    _DECLARED_LOWER[metric] = lower_is_better


def known_metrics() -> tuple[str, ...]:
    """Return the names of our metrics and of those that were declared."""
    return (*METRIC_NAMES, *_DECLARED_LOWER)


def lower_is_better(metric: str) -> bool:
    """Return True for distances, errors and volumes; raises `InputError` for a metric of unknown direction."""
    if metric in _DECLARED_LOWER:
        return _DECLARED_LOWER[metric]
    if metric not in METRIC_NAMES:
        raise input_error(
            f"metric {metric}",
            found="a metric of unknown direction",
            expected="higher or lower is better",
            fix=f"say which it is, or rename it; {suggestion(metric, METRIC_NAMES)}",
        )
    return metric not in UNIT_INTERVAL_METRICS


def handling_of(metric: str, missing_masks: Mapping[str, Handling] | None) -> Handling:
    """Return the full handling of a metric: the default with the keys of `missing_masks` on top."""
    return {**DEFAULT_HANDLING.get(metric, {}), **((missing_masks or {}).get(metric, {}))}


def handling_text(metric: str, missing_masks: Mapping[str, Handling] | None) -> str:
    """Return the handling as one line for a table note."""
    named = handling_of(metric, missing_masks)
    parts = [
        f"{status.replace('_', ' ')} {'excluded' if value == 'exclude' else f'counts as {value:g}'}"
        for status, value in named.items()
    ]
    rest = [] if set(HANDLED_STATUSES) <= set(named) else ["other rows count with their own value, blank ones do not"]
    return f"{metric}: " + ", ".join(parts + rest)


def scale_of(metric: str, missing_masks: Mapping[str, Handling] | None) -> Scale:
    """Return the metric's range and the value of a miss under the handling (None when misses are excluded)."""
    if metric in UNIT_INTERVAL_METRICS:
        low, high = 0.0, 1.0
    else:
        low, high = (0.0 if metric in METRIC_NAMES else -np.inf), np.inf
    handling = handling_of(metric, missing_masks)
    numbers = [float(handling[status]) for status in MISSED_STATUSES if handling.get(status, "exclude") != "exclude"]
    if not numbers:
        return Scale(low, high)
    return Scale(low, high, max(numbers) if np.isinf(high) else min(numbers))


def apply_handling(rows: pd.DataFrame, missing_masks: Mapping[str, Handling] | None = None) -> pd.DataFrame:
    """Return a copy of the rows with `scored` (float, NaN when excluded) and `counted` (bool).

    A status that the handling names counts as the handling says, whatever the row holds; `ok` and statuses that it
    does not name keep the row's value. `not_defined` and `skipped` are always excluded. Empty input gives empty output.
    """
    rows = rows.copy()
    scored = rows["value"].mask(rows["status"].isin(NEVER_COUNTED)).astype(float)
    for metric in rows["metric"].unique():
        for status, value in handling_of(metric, missing_masks).items():
            chosen = (rows["metric"] == metric) & (rows["status"] == status)
            scored[chosen] = np.nan if value == "exclude" else float(value)
    rows["scored"] = scored
    rows["counted"] = scored.notna()
    return rows
