"""Read and check the score table, the one file that every statistic is derived from.

`read_scores` is strict: our own tables have exactly `SCORE_COLUMNS`. `segbench.stats.longtable` reads tables of others.
Values and statuses stay apart here; `segbench.stats.aggregate` decides what a status counts as.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from segbench.core.errors import Fault, fault, raise_faults, suggestion
from segbench.core.vocabulary import KEY_COLUMNS, METRIC_NAMES, SCORE_COLUMNS, STATUSES

NAMED_COLUMNS = ("model", "task", "case", "structure")
NUMBER_COLUMNS = ("value", "reference_volume_mm3", "prediction_volume_mm3")
UNIT_INTERVAL_METRICS = (
    "dice", "iou", "nsd", "nsd_voxel", "lesion_f1", "lesion_precision", "lesion_recall", "uniseg_dice", "dodnet_dice",
)  # fmt: skip
MOST_FAULTS = 20


def read_csv_text(path: Path | str) -> pd.DataFrame:
    """Return a CSV file as text cells, blanks as ''; raises `InputFaults` when it cannot be read or has no rows."""
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        found = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise fault(path, found=found, expected="a readable CSV table", mend="check the file") from error
    if rows.empty:
        raise fault(path, found="no rows", expected="one row per expected score", mend="run the scorer first")
    return rows


def read_scores(path: Path | str) -> pd.DataFrame:
    """Return the checked rows of a score table written by this project.

    Columns are `SCORE_COLUMNS`; `value` and the volumes are floats in the units of the table (NaN where blank), `seed`
    and `fold` integers, everything else text. A blank patient becomes the case. Raises `InputFaults` with every fault.
    """
    rows = read_csv_text(path)
    if tuple(rows.columns) != SCORE_COLUMNS:
        raise_faults(_column_faults(path, list(rows.columns)))
    return validate_rows(rows, where=str(path))


def validate_rows(
    rows: pd.DataFrame, *, where: str = "scores", metrics: Collection[str] = METRIC_NAMES
) -> pd.DataFrame:
    """Return the rows with typed columns, or raise `InputFaults` with one fault per defect (`MOST_FAULTS` shown).

    Checked: numbers are finite numbers, statuses are known and metrics are among `metrics`, names are not blank,
    bounded metrics lie in 0..1 and other metrics of ours are not negative, no key occurs twice, a value stands beside
    status `ok`. `rows` is not changed.
    """
    rows = rows.copy()
    lines = pd.Series(np.arange(2, len(rows) + 2), index=rows.index)
    faults: list[Fault] = []
    unreadable = lines.index[:0]
    for column in NUMBER_COLUMNS:
        rows[column], bad = _as_numbers(rows[column])
        unreadable = unreadable.union(bad.index) if column == "value" else unreadable
        faults += _listed(where, lines[bad.index], column, bad, "a finite number or nothing", "mend the cell")
    for column in ("seed", "fold"):
        rows[column], bad = _as_integers(rows[column])
        faults += _listed(where, lines[bad.index], column, bad, "a whole number", "mend the cell")
    for column in NAMED_COLUMNS:
        blank = rows.loc[rows[column].astype(str).str.strip() == "", column]
        faults += _listed(where, lines[blank.index], column, blank, "a name", "fill the cell")
    faults += _unknown(where, lines, rows["status"], STATUSES)
    faults += _unknown(where, lines, rows["metric"], metrics)
    faults += _value_faults(where, lines, rows.drop(unreadable))
    faults += _duplicate_faults(where, lines, rows)
    raise_faults(faults[:MOST_FAULTS] + _overflow(where, faults))
    rows["patient"] = rows["patient"].where(rows["patient"].astype(str) != "", rows["case"])
    return rows.reset_index(drop=True)


def _column_faults(path: Path | str, columns: list[str]) -> Iterator[Fault]:
    mend = "use `segbench compare` for tables of other origin"
    for name in SCORE_COLUMNS:
        if name not in columns:
            yield Fault(str(path), f"no column '{name}'", "the columns of a score table", mend)
    for name in columns:
        if name not in SCORE_COLUMNS:
            yield Fault(str(path), f"column '{name}'", "only known columns", suggestion(name, SCORE_COLUMNS))
    if sorted(columns) == sorted(SCORE_COLUMNS):
        yield Fault(str(path), "columns in another order", ", ".join(SCORE_COLUMNS), mend)


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


def _listed(where: str, lines: pd.Series, column: str, cells: pd.Series, expected: str, mend: str) -> list[Fault]:
    return [
        Fault(f"{where}: line {line}: {column}", repr(str(cell)), expected, mend)
        for line, cell in zip(lines, cells, strict=True)
    ]


def _unknown(where: str, lines: pd.Series, column: pd.Series, known: Collection[str]) -> list[Fault]:
    wrong = column[~column.isin(known)]
    return [
        Fault(f"{where}: line {lines[index]}: {column.name}", repr(word), f"a known {column.name}",
              suggestion(str(word), known))
        for index, word in wrong.items()
    ]  # fmt: skip


def _value_faults(where: str, lines: pd.Series, rows: pd.DataFrame) -> list[Fault]:
    bounded = rows["metric"].isin(UNIT_INTERVAL_METRICS)
    outside = rows.loc[bounded & ((rows["value"] < 0) | (rows["value"] > 1)), "value"]
    faults = _listed(where, lines[outside.index], "value", outside, "a share in 0..1", "divide per cent by 100")
    below = rows.loc[rows["metric"].isin(METRIC_NAMES) & ~bounded & (rows["value"] < 0), "value"]
    faults += _listed(where, lines[below.index], "value", below, "0 or more", "mend the cell")
    blank = rows.loc[(rows["status"] == "ok") & rows["value"].isna(), "status"]
    return faults + _listed(where, lines[blank.index], "value", blank.map(lambda _: ""), "a number beside status ok",
                            "write the value, or the status that explains its absence")  # fmt: skip


def _duplicate_faults(where: str, lines: pd.Series, rows: pd.DataFrame) -> list[Fault]:
    again = rows.index[rows.duplicated(list(KEY_COLUMNS))]
    return [
        Fault(
            f"{where}: line {lines[index]}",
            "a key seen before: " + "/".join(str(rows.at[index, name]) for name in KEY_COLUMNS),
            "one row per key",
            "remove the duplicate",
        )
        for index in again
    ]


def _overflow(where: str, faults: list[Fault]) -> list[Fault]:
    more = len(faults) - MOST_FAULTS
    return [Fault(where, f"{more} further faults", "none", "mend the ones above first")] if more > 0 else []
