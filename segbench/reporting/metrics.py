"""What a page says about a metric: a metric of segbench, or one that a table of other origin declared."""

from __future__ import annotations

from segbench.metrics.registry import METRICS, Metric
from segbench.stats.missing_masks import lower_is_better


def about(metric: str) -> Metric:
    """Return title, unit, direction and definition; a metric of other origin has its name and no unit.

    Raises:
        InputError: the metric is not one of segbench and its direction was not declared.
    """
    if metric in METRICS:
        return METRICS[metric]
    better = "lower" if lower_is_better(metric) else "higher"
    return Metric("", metric, better, "as given in the table of scores")
