"""What a page says about a metric: a metric of segbench, or one that a table of other origin declared."""

from __future__ import annotations

import math

from segbench.core.metric_facts import METRICS, Metric
from segbench.stats.missing_masks import handling_of, lower_is_better


def about(metric: str) -> Metric:
    """Return title, unit, direction and definition; a metric of other origin has its name and no unit.

    Raises:
        InputError: the metric is not one of segbench and its direction was not declared.
    """
    if metric in METRICS:
        return METRICS[metric]
    return Metric(
        title=metric,
        unit="",
        better="lower" if lower_is_better(metric) else "higher",
        highest=math.inf,
        definition="as given in the table of scores",
        empty={},
        handling=handling_of(metric, None),
        needs_spacing=False,
        needs_tolerance=False,
        lesion_only=False,
    )
