"""Facts of metrics are whole: every status, every metric, and a formula for each."""

from dataclasses import MISSING, fields, replace

import pytest

from segbench.core.metric_facts import METRICS, Metric
from segbench.core.vocabulary import HANDLED_STATUSES, MISSED_STATUSES
from segbench.metrics.formulas import OF_ANY_MASKS, OF_TWO_MASKS


def test_no_fact_has_a_default():
    assert all(field.default is MISSING and field.default_factory is MISSING for field in fields(Metric))


@pytest.mark.parametrize("name", METRICS)
def test_every_status_is_handled(name):
    assert set(METRICS[name].handling) == set(HANDLED_STATUSES)


def test_a_metric_that_forgets_a_status_cannot_be_made():
    with pytest.raises(ValueError, match="Dice"):
        replace(METRICS["dice"], handling={"failed": 0.0})


@pytest.mark.parametrize("name", METRICS)
def test_a_failure_never_shrinks_n(name):
    """A failed or missing mask counts as something, or leaves the cell without a value."""
    for status in ("prediction_missing", "failed"):
        assert METRICS[name].handling[status] not in ("exclude", "own value")


@pytest.mark.parametrize("name", METRICS)
def test_a_missed_structure_is_never_better_than_the_worst_value(name):
    metric = METRICS[name]
    numbers = [metric.handling[status] for status in MISSED_STATUSES if not isinstance(metric.handling[status], str)]
    if metric.unit == "mm":
        assert not numbers
    if metric.highest == 1:
        assert set(numbers) == {0.0}


def test_every_metric_has_one_formula():
    assert sorted([*OF_ANY_MASKS, *OF_TWO_MASKS]) == sorted(METRICS)
