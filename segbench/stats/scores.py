"""Read and check the score table, the one file that every statistic is derived from.

`read_scores` is strict: our own tables have exactly `SCORE_COLUMNS`. `segbench.stats.longtable` reads tables of others.
Values and statuses stay apart here; `segbench.stats.aggregate` decides what a status counts as.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Collection, Iterator
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from segbench.core.errors import Problem, in_words, input_error, raise_problems, suggestion
from segbench.core.metric_facts import METRIC_NAMES, METRICS
from segbench.core.vocabulary import KEY_COLUMNS, NEVER_COUNTED, SCORE_COLUMNS, STATUSES, WITHOUT_MASK_STATUSES

NAMED_COLUMNS = ("model", "task", "case", "structure")
VOLUME_COLUMNS = ["reference_volume_mm3", "prediction_volume_mm3"]
NUMBER_COLUMNS = ("value", *VOLUME_COLUMNS, "diagonal_mm")
UNIT_INTERVAL_METRICS = tuple(name for name, metric in METRICS.items() if metric.highest == 1)
VALUELESS_STATUSES = (*WITHOUT_MASK_STATUSES, *NEVER_COUNTED)
"""Statuses of rows that hold no value: no mask was scored, or the metric has no meaning there."""
MILLIMETRE_METRICS = tuple(name for name, metric in METRICS.items() if metric.unit == "mm")
MOST_PROBLEMS = 20
MOST_BYTES = 2_000_000_000
"""What a table that gzip packed may hold."""
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""First bytes of .xlsx, .ods and other zip files, and of .xls."""
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
LARGEST = 1e100
"""Numbers beyond it are refused: the squares of larger ones are no numbers any more."""
EXACT = 1e-4
"""Fractions that differ by no more are the same, whatever their digits."""
COARSEST_FRACTION, COARSEST_LENGTH = 0.005, 0.5
"""How far the rounding of a cell is believed in: two decimals of a fraction, whole mm, mm3 and ml."""
BELOW_HD = ("hd95", "hd95_max", "assd", "masd")
"""Means and percentiles of the distances whose largest one is `hd`."""
PART_OF = {
    "false_positive_volume_ml": "prediction_volume_mm3",
    "autopet_false_positive_volume_ml": "prediction_volume_mm3",
    "autopet_false_negative_volume_ml": "reference_volume_mm3",
}
"""Volumes of a part of one of the two masks."""


def read_csv_text(path: Path | str, *, separator: str = ",") -> pd.DataFrame:
    """Return a CSV file as text cells, blanks as ''; raises `InputError` when it cannot be read or has no rows."""
    return rows_of_text(table_text(path), path, separator=separator)


def table_text(path: Path | str) -> str:
    """Return the text of a table in UTF-8, or in UTF-16 with its mark; anything else raises `InputError`.

    A file that gzip packed is unpacked.
    """
    try:
        content = Path(path).read_bytes()
        packed = content.startswith(b"\x1f\x8b")
        if packed:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
                content = stream.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise input_error(path, found=in_words(error), expected="a readable CSV table", fix="check the file") from error
    if packed and len(content) > MOST_BYTES:
        found, fix = f"more than {MOST_BYTES / 1e9:g} GB of text", "unpack it"
        raise input_error(path, found=found, expected="a CSV table of a usual size", fix=fix)
    if content.startswith(WORKBOOKS):
        fix = "export it as CSV (in a spreadsheet program: save as CSV UTF-8)"
        raise input_error(path, found="a workbook or an archive", expected="a CSV table", fix=fix)
    try:
        text = content.decode("utf-16" if content.startswith(UTF16_MARKS) else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise input_error(path, found="no text in UTF-8", expected="a CSV table", fix="save the table as CSV UTF-8")
    return text


def rows_of_text(text: str, where: Path | str, *, separator: str) -> pd.DataFrame:
    """Return the rows of a table as text cells, blanks as ''.

    Lines without any cell are left out, and so are columns without name and cells. Raises `InputError` when a quote is
    not closed, a row has more cells than the head, a column is there twice, or there are no rows.
    """
    try:
        every = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        fix = "close the quotes of every cell, and double those inside"
        raise input_error(where, found=f"text that is no CSV ({error})", expected="a CSV table", fix=fix) from error
    table = [(number, row) for number, row in enumerate(every, start=1) if any(cell.strip() for cell in row)]
    if not table:
        raise input_error(where, found="an empty file", expected="a CSV table", fix="check the file")
    (_, head), *body = table
    raise_problems(_shape_problems(where, head, body))
    size = len(head)
    cells = pd.DataFrame([(row + [""] * size)[:size] for _, row in body], dtype=str)
    if cells.empty:
        raise input_error(where, found="no rows", expected="one row per expected score", fix="run the scorer first")
    named = [place for place, name in enumerate(head) if name.strip() or (cells[place] != "").any()]
    return cells[named].set_axis([head[place] or f"Unnamed: {place}" for place in named], axis="columns")


def _shape_problems(where: Path | str, head: list[str], body: list[tuple[int, list[str]]]) -> list[Problem]:
    names = [name for name in dict.fromkeys(head) if name.strip() and head.count(name) > 1]
    twice = [Problem(str(where), f"column {name!r} twice", "each column once", "remove one") for name in names]
    longer = [number for number, row in body if any(cell.strip() for cell in row[len(head) :])]
    if longer:
        found = f"more cells than the {len(head)} names of the head (rows like this: {len(longer)})"
        fix = "quote cells that hold the separator, decimal commas too, or name every column"
        twice.append(Problem(f"{where}: row {longer[0]}", found, "one cell per column", fix))
    return twice


def read_scores(path: Path | str) -> pd.DataFrame:
    """Return the checked rows of a score table written by this project.

    Columns are `SCORE_COLUMNS`; `value` and the volumes are floats in the units of the table (NaN where blank), `seed`
    and `fold` integers, everything else text. A blank patient becomes that of the case's other rows, or else the case.
    Raises `InputError` with every problem.
    """
    rows = read_csv_text(path)
    if tuple(rows.columns) != SCORE_COLUMNS:
        raise_problems(_column_problems(path, list(rows.columns)))
    return validate_rows(rows, where=str(path))


def validate_rows(
    rows: pd.DataFrame, *, where: str = "scores", metrics: Collection[str] = METRIC_NAMES
) -> pd.DataFrame:
    """Return the rows with typed columns, or raise `InputError` with one problem per defect (`MOST_PROBLEMS` shown).

    Checked: numbers are numbers up to LARGEST, statuses are known and metrics are among `metrics`, names are not blank,
    bounded metrics lie in 0..1, units are those of their metric, other metrics of ours and volumes are not negative, no
    key occurs twice, a value stands beside status `ok` and none beside VALUELESS_STATUSES, an empty mask has the volume
    and the value of one. Within the rounding of the cells, no distance exceeds the diagonal of its row or the `hd` of
    its masks, Dice and IoU are possible with the volumes of their row and with each other, and volumes in ml with those
    of their row. `rows` is not changed.
    """
    given, rows = rows, rows.copy()
    lines = pd.Series(np.arange(2, len(rows) + 2), index=rows.index)
    problems: list[Problem] = []
    unreadable = lines.index[:0]
    for column in NUMBER_COLUMNS:
        rows[column], bad = _as_numbers(rows[column])
        unreadable = unreadable.union(bad.index) if column == "value" else unreadable
        problems += _listed(
            where, lines[bad.index], column, bad, f"a finite number up to {LARGEST:g} or nothing", "fix the cell"
        )
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
    problems += _impossible_values(where, lines, given, rows)
    problems += _duplicate_problems(where, lines, rows)
    raise_problems(shortened(problems, where))
    rows["patient"] = _patients(rows)
    return rows.reset_index(drop=True)


def _patients(rows: pd.DataFrame) -> pd.Series:
    """Return the patient of each row; a blank one is that of other rows of its case, or else the case."""
    named = rows["patient"].where(rows["patient"].astype(str) != "")
    of_case = named.groupby([rows["task"], rows["case"]], sort=False).transform("first")
    return named.fillna(of_case).fillna(rows["case"])


def shortened(problems: list[Problem], where: str) -> list[Problem]:
    """Return the first MOST_PROBLEMS, with a line that counts the others where there are any."""
    more = len(problems) - MOST_PROBLEMS
    rest = [Problem(where, f"{more} further problems", "none", "fix the ones above first")] if more > 0 else []
    return problems[:MOST_PROBLEMS] + rest


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
        return column.astype(float), column[column.astype(float).abs() > LARGEST]
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    blank = column.isna() | (column.astype(str).str.strip() == "")
    return numbers, column[(numbers.isna() & ~blank) | (numbers.abs() > LARGEST)]


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
    for metric in rows.loc[rows["metric"].isin(METRIC_NAMES), "metric"].unique():
        units, unit = rows.loc[rows["metric"] == metric, "unit_of_value"], METRICS[metric].unit
        other = units[~units.isin(("", unit))]
        what = f"{unit} or nothing"
        problems += _listed(where, lines[other.index], "unit_of_value", other, what, "convert the values")
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


def _impossible_values(where: str, lines: pd.Series, given: pd.DataFrame, rows: pd.DataFrame) -> list[Problem]:
    """Return values that no two masks have: too far apart for their image, or too much overlap for their volumes.

    given: the same rows before cells became numbers, which tell how far each was rounded.
    """
    bounded = rows["metric"].isin(UNIT_INTERVAL_METRICS)
    scored = rows[(rows["status"] == "ok") & (rows["value"] <= np.where(bounded, 1.0, np.finfo(float).max))]
    far = scored[scored["metric"].isin(MILLIMETRE_METRICS) & scored["diagonal_mm"].notna()]
    rounded = sum(_roundings(given.loc[far.index, name]) for name in ("value", "diagonal_mm"))
    outside = far.loc[far["value"] > far["diagonal_mm"] * (1 + EXACT) + rounded, "value"]
    what = "at most diagonal_mm, the diagonal of the image"
    problems = _listed(where, lines[outside.index], "value", outside, what, "correct value or diagonal_mm")
    for metric in ("dice", "iou"):
        over = _above_volumes(scored[scored["metric"] == metric], given)
        what = f"a {METRICS[metric].title} that is possible with both volumes"
        problems += _listed(where, lines[over.index], "value", over, what, "correct value or volumes")
    for wrong, what in _wrong_volumes(rows, given):
        problems += _listed(where, lines[wrong.index], "value", wrong, what, "correct value or volumes")
    above = _above_hd(scored, given)
    what = "at most the hd of the same masks"
    problems += _listed(where, lines[above.index], "value", above, what, "correct it or hd")
    apart = _dice_without_its_iou(scored, given)
    what = "2 IoU / (1 + IoU) with the IoU of the same masks"
    return problems + _listed(where, lines[apart.index], "value", apart, what, "correct Dice or IoU")


def _wrong_volumes(rows: pd.DataFrame, given: pd.DataFrame) -> Iterator[tuple[pd.Series, str]]:
    """Yield values in ml that cannot be beside the volumes of their row, and what is expected."""
    rows = rows[rows["metric"].isin(("volume_error_ml", *PART_OF))]
    given = given.loc[rows.index]
    rounded = sum(_roundings(given[side]) for side in VOLUME_COLUMNS) / 1000 + _roundings(given["value"])
    difference = (rows["prediction_volume_mm3"] - rows["reference_volume_mm3"]).abs() / 1000
    slack = rounded + EXACT * rows[VOLUME_COLUMNS].max(axis=1) / 1000
    wrong = (rows["metric"] == "volume_error_ml") & ((rows["value"] - difference).abs() > slack)
    yield rows.loc[wrong, "value"], "the difference of both volumes, in ml"
    for side in VOLUME_COLUMNS:
        is_part = rows["metric"].map(PART_OF) == side
        yield rows.loc[is_part & (rows["value"] > rows[side] / 1000 + slack), "value"], f"at most {side}, in ml"


def _above_hd(rows: pd.DataFrame, given: pd.DataFrame) -> pd.Series:
    """Return distances above the largest distance of the same masks."""
    both = _beside(rows[rows["metric"].isin(BELOW_HD)], rows[rows["metric"] == "hd"], given, _rounding)
    wrong = both[both["value"] > both["value_other"] * (1 + EXACT) + both["rounded"] + both["rounded_other"]]
    return pd.Series(wrong["value"].to_numpy(), index=wrong["line"].to_numpy())


def _beside(
    rows: pd.DataFrame, others: pd.DataFrame, given: pd.DataFrame, rounding: Callable[[object], float]
) -> pd.DataFrame:
    """Return value, rounded and line of rows, and with `_other` those of the same masks in rows of another metric."""
    key = [name for name in KEY_COLUMNS if name != "metric"]
    parts = [
        part[["value", *key]].assign(line=part.index, rounded=_roundings(given.loc[part.index, "value"], rounding))
        for part in (rows, others)
    ]
    return parts[0].merge(parts[1], on=key, suffixes=("", "_other"))


def _above_volumes(rows: pd.DataFrame, given: pd.DataFrame) -> pd.Series:
    """Return Dice or IoU above that of two masks of which one lies inside the other."""
    volumes = rows[VOLUME_COLUMNS]
    smaller, larger, whole = volumes.min(axis=1, skipna=False), volumes.max(axis=1), volumes.sum(axis=1)
    is_dice = rows["metric"] == "dice"
    highest = (2 * smaller / whole).where(is_dice, smaller / larger)
    rounded = sum(_roundings(given.loc[rows.index, side]) for side in VOLUME_COLUMNS) * 2 / larger
    fraction = _roundings(given.loc[rows.index, "value"], _rounding_of_fraction)
    return rows.loc[rows["value"] > highest + rounded + fraction, "value"]


def _dice_without_its_iou(rows: pd.DataFrame, given: pd.DataFrame) -> pd.Series:
    """Return values of Dice that differ from what the IoU of the same masks gives."""
    both = _beside(rows[rows["metric"] == "dice"], rows[rows["metric"] == "iou"], given, _rounding_of_fraction)
    differs = (both["value"] - 2 * both["value_other"] / (1 + both["value_other"])).abs()
    wrong = both[differs > both["rounded"] + 2 * both["rounded_other"]]
    return pd.Series(wrong["value"].to_numpy(), index=wrong["line"].to_numpy())


def _rounding(cell: object, coarsest: float = COARSEST_LENGTH) -> float:
    """Return half a unit of a number's last digit, at most `coarsest`."""
    try:
        exponent = Decimal(str(cell)).as_tuple().exponent
    except InvalidOperation:
        return coarsest
    return min(coarsest, 0.5 * 10.0**exponent) if isinstance(exponent, int) else coarsest


def _rounding_of_fraction(cell: object) -> float:
    return max(EXACT, _rounding(cell, COARSEST_FRACTION))


def _roundings(cells: pd.Series, of: Callable[[object], float] = _rounding) -> pd.Series:
    """Return the rounding of each cell, as numbers where there is no cell too, whose map pandas leaves a text."""
    return cells.map(of).astype(float)


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
