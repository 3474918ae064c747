"""Read and check the score table, the one file that every statistic is derived from.

`read_scores` is strict: our own tables have exactly `SCORE_COLUMNS`. `segbench.stats.longtable` reads tables of others.
Values and statuses stay apart here; `segbench.stats.aggregate` decides what a status counts as.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from segbench.core.errors import Problem, input_error, raise_problems, suggestion
from segbench.core.metric_facts import METRIC_NAMES, METRICS
from segbench.core.vocabulary import KEY_COLUMNS, SCORE_COLUMNS, STATUSES

NAMED_COLUMNS = ("model", "task", "case", "structure")
NUMBER_COLUMNS = ("value", "reference_volume_mm3", "prediction_volume_mm3", "diagonal_mm")
UNIT_INTERVAL_METRICS = tuple(name for name, metric in METRICS.items() if metric.highest == 1)
VALUELESS_STATUSES = ("prediction_missing", "not_defined", "skipped", "failed")
"""Statuses of rows that hold no value: no mask was scored, or the metric has no meaning there."""
MOST_PROBLEMS = 20


def read_csv_text(path: Path | str, *, separator: str = ",") -> pd.DataFrame:
    """Return a CSV file as text cells, blanks as ''; raises `InputError` when it cannot be read or has no rows."""
    try:
        rows = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, na_filter=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        found = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise input_error(path, found=found, expected="a readable CSV table", fix="check the file") from error
    if rows.empty:
        raise input_error(path, found="no rows", expected="one row per expected score", fix="run the scorer first")
    return rows


def read_scores(path: Path | str) -> pd.DataFrame:
    """Return the checked rows of a score table written by this project.

    Columns are `SCORE_COLUMNS`; `value` and the volumes are floats in the units of the table (NaN where blank), `seed`
    and `fold` integers, everything else text. A blank patient becomes the case. Raises `InputError` with every problem.
    """
    rows = read_csv_text(path)
    if tuple(rows.columns) != SCORE_COLUMNS:
        raise_problems(_column_problems(path, list(rows.columns)))
    return validate_rows(rows, where=str(path))


def validate_rows(
    rows: pd.DataFrame, *, where: str = "scores", metrics: Collection[str] = METRIC_NAMES
) -> pd.DataFrame:
    """Return the rows with typed columns, or raise `InputError` with one problem per defect (`MOST_PROBLEMS` shown).

    Checked: numbers are finite numbers, statuses are known and metrics are among `metrics`, names are not blank,
    bounded metrics lie in 0..1, other metrics of ours and volumes are not negative, no key occurs twice, a value stands
    beside status `ok` and none beside VALUELESS_STATUSES, an empty mask has the volume and the value of one. `rows` is
    not changed.
    """
    rows = rows.copy()
    lines = pd.Series(np.arange(2, len(rows) + 2), index=rows.index)
    problems: list[Problem] = []
    unreadable = lines.index[:0]
    for column in NUMBER_COLUMNS:
        rows[column], bad = _as_numbers(rows[column])
        unreadable = unreadable.union(bad.index) if column == "value" else unreadable
        problems += _listed(where, lines[bad.index], column, bad, "a finite number or nothing", "fix the cell")
    for column in ("seed", "fold"):
        rows[column], bad = _as_integers(rows[column])
        problems += _listed(where, lines[bad.index], column, bad, "a whole number", "fix the cell")
    for column in NAMED_COLUMNS:
        blank = rows.loc[rows[column].astype(str).str.strip() == "", column]
        problems += _listed(where, lines[blank.index], column, blank, "a name", "fill the cell")
    problems += _unknown(where, lines, rows["status"], STATUSES)
    problems += _unknown(where, lines, rows["metric"], metrics)
    problems += _value_problems(where, lines, rows.drop(unreadable))
    problems += _status_problems(where, lines, rows.drop(unreadable))
    problems += _duplicate_problems(where, lines, rows)
    raise_problems(problems[:MOST_PROBLEMS] + _overflow(where, problems))
    rows["patient"] = rows["patient"].where(rows["patient"].astype(str) != "", rows["case"])
    return rows.reset_index(drop=True)


def _column_problems(path: Path | str, columns: list[str]) -> Iterator[Problem]:
    fix = "use `segbench compare` for tables of other origin"
    for name in SCORE_COLUMNS:
        if name not in columns:
            yield Problem(str(path), f"no column '{name}'", "the columns of a score table", fix)
    for name in columns:
        if name not in SCORE_COLUMNS:
            yield Problem(str(path), f"column '{name}'", "only known columns", suggestion(name, SCORE_COLUMNS))
    if sorted(columns) == sorted(SCORE_COLUMNS):
        yield Problem(str(path), "columns in another order", ", ".join(SCORE_COLUMNS), fix)


def _as_numbers(column: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Numbers with NaN for blanks, and the cells that are neither."""
    if pd.api.types.is_numeric_dtype(column):
        return column.astype(float), column[np.isinf(column.astype(float))]
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    blank = column.isna() | (column.astype(str).str.strip() == "")
    return numbers, column[(numbers.isna() & ~blank) | np.isinf(numbers)]


def _as_integers(column: pd.Series) -> tuple[pd.Series, pd.Series]:
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = numbers.isna() | np.isinf(numbers) | (numbers != numbers.round())
    return numbers.where(~wrong, -1).astype(int), column[wrong]


def _listed(where: str, lines: pd.Series, column: str, cells: pd.Series, expected: str, fix: str) -> list[Problem]:
    return [
        Problem(f"{where}: line {line}: {column}", repr(str(cell)), expected, fix)
        for line, cell in zip(lines, cells, strict=True)
    ]


def _unknown(where: str, lines: pd.Series, column: pd.Series, known: Collection[str]) -> list[Problem]:
    wrong = column[~column.isin(known)]
    return [
        Problem(
            f"{where}: line {lines[index]}: {column.name}",
            repr(word),
            f"a known {column.name}",
            suggestion(str(word), known),
        )
        for index, word in zip(wrong.index, wrong, strict=True)
    ]


def _value_problems(where: str, lines: pd.Series, rows: pd.DataFrame) -> list[Problem]:
    bounded = rows["metric"].isin(UNIT_INTERVAL_METRICS)
    outside = rows.loc[bounded & ((rows["value"] < 0) | (rows["value"] > 1)), "value"]
    problems = _listed(where, lines[outside.index], "value", outside, "a fraction in 0..1", "divide per cent by 100")
    below = rows.loc[rows["metric"].isin(METRIC_NAMES) & ~bounded & (rows["value"] < 0), "value"]
    problems += _listed(where, lines[below.index], "value", below, "0 or more", "fix the cell")
    impossible = rows.loc[rows["status"].isin(VALUELESS_STATUSES) & rows["value"].notna(), "value"]
    problems += _listed(
        where,
        lines[impossible.index],
        "value",
        impossible,
        f"no value beside the status {', '.join(VALUELESS_STATUSES)}",
        "clear the value, or correct the status",
    )
    for column in NUMBER_COLUMNS[1:]:
        negative = rows.loc[rows[column] < 0, column]
        problems += _listed(where, lines[negative.index], column, negative, "0 or more", "fix the cell")
    blank = rows.loc[(rows["status"] == "ok") & rows["value"].isna(), "status"]
    return problems + _listed(
        where,
        lines[blank.index],
        "value",
        blank.map(lambda _: ""),
        "a number beside status ok",
        "write the value, or the status that explains its absence",
    )


def _status_problems(where: str, lines: pd.Series, rows: pd.DataFrame) -> list[Problem]:
    """Return rows whose status, volumes and value cannot be true together; a blank volume says nothing."""
    problems: list[Problem] = []
    empty = {
        "ok": (False, False),
        "both_empty": (True, True),
        "reference_empty": (True, False),
        "prediction_empty": (False, True),
    }
    for status, sides in empty.items():
        own = rows[rows["status"] == status]
        for side, is_empty in zip(("reference", "prediction"), sides, strict=True):
            volume = own[f"{side}_volume_mm3"]
            wrong = volume[volume.notna() & ((volume == 0) != is_empty)]
            what = f"{'0' if is_empty else 'more than 0'} beside the status {status}"
            problems += _listed(where, lines[wrong.index], f"{side}_volume_mm3", wrong, what, "fix volume or status")
        if status != "ok":
            known = own["metric"].map(partial(_value_of_empty, status=status))
            wrong = own.loc[own["value"].notna() & known.notna() & (own["value"] != known), "value"]
            what = f"the value that the metric has beside the status {status}, or nothing"
            problems += _listed(where, lines[wrong.index], "value", wrong, what, "correct value or status")
    return problems


def _value_of_empty(metric: str, *, status: str) -> float:
    """Return the only value that a metric may have beside a status: infinite when none, NaN when any."""
    if metric not in METRICS or "own value" in METRICS[metric].handling.values() or METRICS[metric].lesion_only:
        return np.nan
    handled = METRICS[metric].handling[status]
    other = np.inf if isinstance(handled, str) else handled
    return METRICS[metric].empty.get(status, other)


def _duplicate_problems(where: str, lines: pd.Series, rows: pd.DataFrame) -> list[Problem]:
    again = rows.index[rows.duplicated(list(KEY_COLUMNS))]
    return [
        Problem(
            f"{where}: line {lines[index]}",
            "a key seen before: " + "/".join(str(rows.at[index, name]) for name in KEY_COLUMNS),
            "one row per key",
            "remove the duplicate",
        )
        for index in again
    ]


def _overflow(where: str, problems: list[Problem]) -> list[Problem]:
    more = len(problems) - MOST_PROBLEMS
    return [Problem(where, f"{more} further problems", "none", "fix the ones above first")] if more > 0 else []
