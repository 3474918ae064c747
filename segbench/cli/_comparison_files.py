"""What `segbench compare` reads from its options and writes beside the page: one CSV table per statistic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segbench.core.errors import Problem, suggestion
from segbench.core.files import write_text
from segbench.core.metric_facts import Handling, rules_of
from segbench.core.vocabulary import HANDLED_STATUSES
from segbench.experiment.config.statistics import impossible_value
from segbench.reporting.csv_text import table_text


def parse_missing_masks(texts: Sequence[str], metrics: Sequence[str]) -> tuple[dict[str, Handling], list[Problem]]:
    """Return metric -> handling from METRIC.STATUS=VALUE, and a problem for each text that is not one."""
    missing_masks: dict[str, dict[str, Any]] = {}
    problems = []
    for text in texts:
        name, _, value = text.partition("=")
        metric, _, status = name.rpartition(".")
        number = _number(value)
        if metric not in metrics:
            problems.append(
                Problem(f"--missing-masks {text}", repr(metric), "a metric of the table", suggestion(metric, metrics))
            )
        elif status not in HANDLED_STATUSES:
            problems.append(
                Problem(f"--missing-masks {text}", repr(status), "a status", suggestion(status, HANDLED_STATUSES))
            )
        elif number is None and value not in rules_of(metric):
            expected = f"a number or {', '.join(map(repr, rules_of(metric)))}"
            problems.append(Problem(f"--missing-masks {text}", repr(value), expected, "write METRIC.STATUS=VALUE"))
        else:
            if number is not None:
                problems += impossible_value(f"--missing-masks {text}", metric, number)
            missing_masks.setdefault(metric, {})[status] = value if number is None else number
    return dict(missing_masks), problems


def parse_equivalence(texts: Sequence[str], metrics: Sequence[str]) -> tuple[dict[str, float], list[Problem]]:
    """Return metric -> half-width from METRIC=NUMBER, and a problem for each text that is not one."""
    widths, problems = {}, []
    for text in texts:
        metric, _, value = text.partition("=")
        number = _number(value)
        if metric not in metrics:
            known = suggestion(metric, metrics)
            problems.append(Problem(f"--equivalence {text}", repr(metric), "a metric of the table", known))
        elif number is None or number <= 0:
            problems.append(
                Problem(f"--equivalence {text}", repr(value), "a positive number", "write METRIC=HALF_WIDTH")
            )
        else:
            widths[metric] = number
    return widths, problems


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def write_tables(out: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Write each table as NAME.csv; all are rendered before any is written."""
    content = {f"{name}.csv": table_text(table) for name, table in tables.items()}
    for name, text in content.items():
        write_text(out / name, text)
