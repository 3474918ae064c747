"""Read any long table of per-case scores: who scored what on which case; the rest is filled in."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from segbench.core.errors import Problem, raise_problems, suggestion
from segbench.core.metric_facts import METRIC_NAMES, METRICS
from segbench.core.vocabulary import SCORE_COLUMNS
from segbench.stats.methods import check_complete
from segbench.stats.missing_masks import declare_metric, known_metrics
from segbench.stats.recipes import split_rows
from segbench.stats.scores import NUMBER_COLUMNS, rows_of_text, table_text, validate_rows

log = logging.getLogger(__name__)
NEEDED = ("model", "task", "case", "structure", "metric", "value")
DEFAULTS = {
    "experiment": "comparison",
    "initialisation": "none",
    "recipe": "equal",
    "scope": "unknown",
    "fold": "0",
    "seed": "0",
    "protocol": "as given",
    "status": "ok",
}


SEPARATORS = (",", ";", "\t")
STATED_SEPARATOR = re.compile(r'"?sep=([^\w\s"]|\t)"?[,;\t]*(\r\n?|\n)', re.IGNORECASE)
AROUND = re.compile(r"^[\s\u200b\u2060\ufeff]+|[\s\u200b\u2060\ufeff]+$")
"""Blanks of every kind, those without width too."""


def read_long(
    path: Path | str, *, lower_is_better: Sequence[str] = (), higher_is_better: Sequence[str] = (), whole: bool = True
) -> pd.DataFrame:
    """Return the checked rows of a long table with the columns of a score table.

    Columns are separated by commas, semicolons or tabs; the first line tells which, also as `sep=;`. With semicolons or
    tabs a comma in a number is a decimal comma; other numbers with a point are refused. Blanks around a cell are taken
    off.

    Needed: `NEEDED`; other columns of a score table are used where present and filled with `DEFAULTS` otherwise
    (dataset: the task, patient: the case), further columns are ignored with a log line. Metrics that are not ours must
    be named in one of the two directions. Rows of a recipe other than `equal` are an experiment of their own
    (`segbench.stats.recipes`). A blank value needs a status that explains it. Raises `InputError` with
    every problem, rows that one method has and another lacks included; a table that is one of several (not `whole`) is
    checked for the latter after it is joined (`segbench.stats.joined`).
    """
    separator, text = _separator(table_text(path))
    rows = rows_of_text(text, path, separator=separator).map(_stripped)
    rows.columns = [_stripped(name).lower() for name in rows.columns]
    raise_problems(_column_problems(path, list(rows.columns)))
    raise_problems(_direction_problems(lower_is_better, higher_is_better))
    for name in (*lower_is_better, *higher_is_better):
        declare_metric(name, lower_is_better=name in lower_is_better)
    raise_problems(_metric_problems(path, rows["metric"]))
    ignored = [name for name in rows.columns if name not in SCORE_COLUMNS]
    if ignored:
        log.info("%s: columns not used: %s", path, ", ".join(ignored))
    for name, value in DEFAULTS.items():
        rows[name] = rows[name].where(rows[name] != "", value) if name in rows else value
    rows["dataset"] = rows.get("dataset", rows["task"])
    rows = rows.reindex(columns=list(SCORE_COLUMNS), fill_value="")
    if separator != ",":
        raise_problems(_decimal_problems(path, rows))
        for name in NUMBER_COLUMNS:
            rows[name] = rows[name].str.replace(",", ".", regex=False)
    checked = split_rows(validate_rows(rows, where=str(path), metrics=known_metrics()))
    if whole:
        check_complete(checked, where=str(path))
    return checked


def _separator(text: str) -> tuple[str, str]:
    """Return the separator of a table and its text without the line `sep=` that Excel writes before the head.

    Without such a line it is the one of SEPARATORS that stands most often in the first line.
    """
    stated = STATED_SEPARATOR.match(text)
    if stated:
        return stated.group(1), text[stated.end() :]
    return max(SEPARATORS, key=text.lstrip("\r\n").partition("\n")[0].partition("\r")[0].count), text


def _stripped(cell: str) -> str:
    return AROUND.sub("", cell)


def _column_problems(path: Path | str, columns: list[str]) -> list[Problem]:
    if len(columns) == 1:
        found, expected = f"one column, {columns[0]!r}"[:120], "commas, semicolons or tabs between cells"
        return [Problem(str(path), found, expected, "save the table with one of them")]
    missing = [
        Problem(str(path), f"no column '{name}'", f"the columns {', '.join(NEEDED)}", suggestion(name, columns))
        for name in NEEDED
        if name not in columns
    ]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    return missing + [Problem(str(path), f"column '{name}' twice", "each column once", "remove one") for name in twice]


def _direction_problems(lower: Sequence[str], higher: Sequence[str]) -> Iterator[Problem]:
    """Yield metrics that are declared in both directions, or in another one than their own."""
    for option, names, others, own in (
        ("--lower-is-better", lower, higher, "lower"),
        ("--higher-is-better", higher, lower, "higher"),
    ):
        for name in dict.fromkeys(names):
            if name in METRICS and METRICS[name].better != own:
                found, fix = f"a metric of which {METRICS[name].better} is better", "leave the option out"
                yield Problem(f"{option} {name}", found, "a metric of other origin", fix)
            elif name in others:
                yield Problem(f"{option} {name}", "both directions", "one direction", "leave one option out")


def _decimal_problems(path: Path | str, rows: pd.DataFrame) -> Iterator[Problem]:
    """Yield a problem where some numbers have a point and others a comma: 1,234 may then be 1234."""
    cells = pd.concat([rows[name] for name in NUMBER_COLUMNS])
    comma, point = (cells[cells.str.contains(mark, regex=False)] for mark in ",.")
    if len(comma) and len(point):
        found = f"numbers with a comma ({comma.iloc[0]}) and with a point ({point.iloc[0]})"
        yield Problem(str(path), found, "one decimal sign", "write all numbers in one way, thousands without a sign")


def _metric_problems(path: Path | str, metrics: pd.Series) -> list[Problem]:
    return [
        Problem(
            f"{path}: metric {name}",
            "a metric of unknown direction",
            "a metric of segbench, or its direction",
            f"name it with --lower-is-better or --higher-is-better; {suggestion(str(name), METRIC_NAMES)}",
        )
        for name in metrics.drop_duplicates()
        if name and name not in known_metrics()
    ]
