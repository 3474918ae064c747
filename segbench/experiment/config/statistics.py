"""Sections `statistics`, `metrics` and `missing_masks`: what is measured, and how the report compares it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from segbench.core.errors import Problem
from segbench.core.metric_facts import METRIC_NAMES, METRICS, rules_of
from segbench.core.schema import problem_of_value
from segbench.core.vocabulary import HANDLED_STATUSES
from segbench.experiment.config.section import Check, Distinct, Section, Text, unknown_names, without_truth_values

if TYPE_CHECKING:
    from segbench.experiment.config.experiment import Config


class Statistics(Section):
    """How the report compares models."""

    decision_rule: Literal["mean", "ranks"] = Field(
        "mean", description="What orders the models: their mean over tasks, or their ranks in each task."
    )


def _one_problem(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Check one value; a wrong one is one problem instead of one for a number and one for a word."""
    try:
        return handler(without_truth_values(value))
    except ValidationError as error:
        raise problem_of_value(repr(value), "a finite number, 'exclude' or 'diagonal'", "write one of them") from error


Handling = Annotated[float | Literal["exclude", "diagonal"], WrapValidator(_one_problem)]
"""What a row of a status counts as: a number in the unit of the metric, `exclude`, or the `diagonal` of its image."""
MissingMasks = Annotated[
    dict[str, dict[str, Handling]],
    Field(
        json_schema_extra={
            "propertyNames": {"title": "metric", "enum": list(METRIC_NAMES)},
            "additionalProperties": {
                "type": "object",
                "propertyNames": {"enum": list(HANDLED_STATUSES)},
                "additionalProperties": {
                    "anyOf": [{"type": "number"}, {"enum": ["exclude", "diagonal"], "type": "string"}]
                },
            },
        }
    ),
]
Metrics = Annotated[
    tuple[Text, ...],
    *Distinct,
    Field(json_schema_extra={"uniqueItems": True, "items": {"type": "string", "enum": list(METRIC_NAMES)}}),
]


def _metrics(config: Config) -> Iterator[Problem]:
    yield from unknown_names("metrics", config.metrics, METRIC_NAMES, "a metric")


def impossible_value(where: str, metric: str, value: float) -> Iterator[Problem]:
    """Yield a problem when a metric cannot have the value that a missing mask would count as."""
    if metric not in METRICS:
        return
    highest = METRICS[metric].highest
    if not 0 <= value <= highest:
        expected = "at least 0" if math.isinf(highest) else f"0 to {highest:g}"
        yield Problem(where, f"{value:g}", expected, "write a value that the metric can have, or exclude")


def _missing_masks(config: Config) -> Iterator[Problem]:
    yield from unknown_names("missing_masks", config.missing_masks, METRIC_NAMES, "a metric")
    for name, handling in config.missing_masks.items():
        yield from unknown_names(f"missing_masks.{name}", handling, HANDLED_STATUSES, "a status")
        for status, value in handling.items():
            if not isinstance(value, str):
                yield from impossible_value(f"missing_masks.{name}.{status}", name, value)
        if "diagonal" in handling.values() and "diagonal" not in rules_of(name):
            fix = "write a number in its unit, or exclude"
            yield Problem(f"missing_masks.{name}", "'diagonal'", "a metric in mm for a diagonal in mm", fix)


CHECKS = (
    Check(("metrics",), _metrics),
    Check(("missing_masks",), _missing_masks),
)
