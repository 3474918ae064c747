"""What a status counts as: applied when rows are aggregated, printed under every table, never baked into the scores.

The facts are in `segbench.core.metric_facts`; config and `--missing-masks` may state other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from segbench.core.errors import input_error, suggestion
from segbench.core.metric_facts import METRIC_NAMES, METRICS, Handling
from segbench.core.vocabulary import HANDLED_STATUSES, MISSED_STATUSES, NEVER_COUNTED
from segbench.stats.intervals import Scale

CELL_KEYS = ["experiment", "model", "initialisation", "task", "metric"]
_OTHER_ORIGIN: Handling = dict.fromkeys(HANDLED_STATUSES, "own value")
_DECLARED_LOWER: dict[str, bool] = {}


def declare_metric(metric: str, *, lower_is_better: bool) -> None:
    """Make the direction of a metric of another origin known; its rows count with their own values."""
    _DECLARED_LOWER[metric] = lower_is_better


def known_metrics() -> tuple[str, ...]:
    """Return the names of our metrics and of those that were declared."""
    return (*METRIC_NAMES, *_DECLARED_LOWER)


def lower_is_better(metric: str) -> bool:
    """Return True for distances, errors and volumes; raises `InputError` for a metric of unknown direction."""
    if metric in _DECLARED_LOWER:
        return _DECLARED_LOWER[metric]
    if metric not in METRICS:
        raise input_error(
            f"metric {metric}",
            found="a metric of unknown direction",
            expected="higher or lower is better",
            fix=f"say which it is, or rename it; {suggestion(metric, METRIC_NAMES)}",
        )
    return METRICS[metric].better == "lower"


def handling_of(metric: str, missing_masks: Mapping[str, Handling] | None) -> Handling:
    """Return what each status of a metric counts as: the metric's own facts with `missing_masks` on top."""
    facts = METRICS[metric].handling if metric in METRICS else _OTHER_ORIGIN
    return {**facts, **((missing_masks or {}).get(metric, {}))}


def handling_text(metric: str, missing_masks: Mapping[str, Handling] | None) -> str:
    """Return the handling as one line for a table note."""
    return f"{metric}: " + ", ".join(
        f"{status.replace('_', ' ')} {_rule_text(rule)}" for status, rule in handling_of(metric, missing_masks).items()
    )


def _rule_text(rule: float | str) -> str:
    words = {
        "exclude": "excluded",
        "own value": "counts with its own value",
        "diagonal": "counts as the diagonal of the image",
        "reference volume": "counts as the volume of the reference",
        "not defined": "leaves the cell without a value",
    }
    return words[rule] if isinstance(rule, str) else f"counts as {rule:g}"


def scale_of(
    metric: str, missing_masks: Mapping[str, Handling] | None = None, rows: pd.DataFrame | None = None
) -> Scale:
    """Return the metric's range and the value of a missed structure.

    Args:
        metric: its name.
        missing_masks: handling that replaces the metric's own.
        rows: rows of `apply_handling`; a penalty that differs from case to case is their mean.

    Returns:
        `worst` is None when missed structures do not enter the mean, or when their value is known for no row.
    """
    low, high = (0.0, METRICS[metric].highest) if metric in METRICS else (-np.inf, np.inf)
    rules = [handling_of(metric, missing_masks)[status] for status in MISSED_STATUSES]
    if "diagonal" in rules:
        known = pd.Series(dtype=float) if rows is None else rows["diagonal_mm"].dropna()
        return Scale(low, high, float(known.mean()) if len(known) else None)
    numbers = [float(rule) for rule in rules if not isinstance(rule, str)]
    if not numbers:
        return Scale(low, high)
    return Scale(low, high, max(numbers) if np.isinf(high) else min(numbers))


def apply_handling(rows: pd.DataFrame, missing_masks: Mapping[str, Handling] | None = None) -> pd.DataFrame:
    """Return a copy of the rows with `scored`, `counted`, `missed` and `not_found`.

    scored is the number that enters means (NaN where the row does not count), counted tells whether there is one,
    missed whether it is the worst value, and not_found whether a structure of the reference was missed: it has no mask,
    or the worst value. `not_defined` and `skipped` rows never count. Where a row
    cannot have a right value ('not defined', or a missed structure without an own value), no row of its cell counts: n
    is never smaller because of a failure.
    Empty input gives empty output.

    Raises:
        InputError: a penalty is smaller than a measured distance, so that a missing mask would be better than a wrong
            one; or no row of a case states the diagonal or the reference volume that a failed one counts as.
    """
    rows = rows.copy()
    scored = rows["value"].mask(rows["status"].isin(NEVER_COUNTED)).astype(float)
    missed, undefined = (pd.Series(False, index=rows.index) for _ in range(2))
    for metric in rows["metric"].unique():
        of_metric = rows["metric"] == metric
        worst = scale_of(metric, missing_masks).worst
        for status, rule in handling_of(metric, missing_masks).items():
            chosen = of_metric & (rows["status"] == status)
            if not chosen.any():
                continue
            if rule == "not defined":
                undefined |= chosen
            elif rule == "diagonal":
                scored[chosen] = _stated(rows, chosen, "diagonal_mm", ["task", "case"])
                missed |= chosen
            elif rule == "reference volume":
                stated = _stated(rows, chosen, "reference_volume_mm3", ["task", "case", "structure"])
                scored[chosen] = stated / 1000
            elif rule == "own value":
                undefined |= chosen & scored.isna() & (status != "both_empty")
            elif rule == "exclude":
                scored[chosen] = np.nan
            else:
                _refuse_kind_penalty(metric, status, float(rule), rows.loc[of_metric, "value"])
                scored[chosen] = float(rule)
        if worst is not None:
            missed |= of_metric & (scored == worst)
    if undefined.any():
        scored = scored.mask(undefined.groupby([rows[key] for key in CELL_KEYS]).transform("any"))
    rows["scored"] = scored
    rows["counted"] = scored.notna()
    rows["missed"] = missed
    rows["not_found"] = rows["status"].isin(MISSED_STATUSES) | (missed & (rows["status"] != "reference_empty"))
    return rows


def _stated(rows: pd.DataFrame, chosen: pd.Series, column: str, keys: list[str]) -> pd.Series:
    """Return a fact of the chosen rows; a blank one is taken from another row of the same case."""
    found = rows[column].fillna(rows.groupby(keys)[column].transform("max"))[chosen]
    if found.isna().any():
        first = rows.loc[found.index[found.isna()][0]]
        raise input_error(
            f"{first['metric']} of {first['task']}/{first['case']}",
            found=f"status {first['status']}, and no row of the case with a value in {column}",
            expected=f"{column}, because such a row counts as it",
            fix=f"add the column, or give a number: missing_masks (--missing-masks {first['metric']}."
            f"{first['status']}=NUMBER)",
        )
    return found


def _refuse_kind_penalty(metric: str, status: str, penalty: float, values: pd.Series) -> None:
    """Refuse a penalty in mm that lies below a measured distance."""
    if metric in METRICS and METRICS[metric].unit == "mm" and status in ("reference_empty", *MISSED_STATUSES):
        largest = values.max()
        if largest > penalty:
            raise input_error(
                f"missing_masks {metric}.{status}",
                found=f"{penalty:g} mm, and a measured distance of {largest:.4g} mm",
                expected="a penalty that no measured distance exceeds",
                fix="leave it out, so that a missing mask counts as the diagonal of its image, or state a larger one",
            )
