"""What `segbench compare` checks and reads of its options and writes beside the page: one CSV table per statistic."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segbench.cli._counts import count_problems
from segbench.core.errors import Problem, suggestion
from segbench.core.files import write_text
from segbench.core.metric_facts import Handling, rules_of
from segbench.core.paths import SCORES
from segbench.core.vocabulary import HANDLED_STATUSES
from segbench.experiment.config.statistics import impossible_value
from segbench.reporting.csv_text import table_text
from segbench.stats.comparison import TITLES

LEVELS = (0.001, 0.5)
"""Levels at which 2000 draws have limits, and a difference that is found with 80 % power."""


def option_problems(
    args: argparse.Namespace, rows: pd.DataFrame, methods: Sequence[str], competitors: Sequence[str]
) -> Iterator[Problem]:
    """Yield what options name and the table does not hold, and numbers that cannot be.

    Args:
        args: options of the command.
        rows: the joined table.
        methods: names of all methods.
        competitors: names of those that are ranked.
    """
    if args.reference is not None and args.reference not in competitors:
        found = "a control, which is not ranked" if args.reference in methods else "not in the table"
        fix = suggestion(args.reference, competitors)
        yield Problem(f"--reference {args.reference}", found, "a method of the table", fix)
    metrics, models = set(rows["metric"]), set(rows["model"])
    for name in args.metric:
        if name not in metrics:
            yield Problem(f"--metric {name}", "not in the table", "a metric of the table", suggestion(name, metrics))
    for name in (*args.universal, *args.single):
        if name not in models:
            where = f"--universal/--single {name}"
            yield Problem(where, "not in the table", "a model of the table", suggestion(name, models))
    if not LEVELS[0] <= args.alpha <= LEVELS[1]:
        yield Problem("--alpha", str(args.alpha), f"a number from {LEVELS[0]} to {LEVELS[1]}", "use 0.05")
    yield from count_problems(resamples=(args.resamples, 100), seed=(args.seed, 0))
    if args.out.is_file():
        yield Problem("--out", f"{args.out} is a file", "a folder", "name another")
    written = {args.out.resolve() / name for name in (SCORES, *(f"{title}.csv" for title in TITLES))}
    for path in args.scores:
        if path.resolve() in written:
            yield Problem("--out", f"{path}, a table that is read and would be replaced", "another folder", "name one")


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
