"""Several score tables as one: rows that are in two tables must agree, and methods keep their key columns."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pandas as pd

from segbench.core.errors import Problem, raise_problems
from segbench.core.vocabulary import KEY_COLUMNS
from segbench.stats.methods import check_complete, method_labels, patient_problems
from segbench.stats.scores import shortened

log = logging.getLogger(__name__)
ROW_KEY = [name for name in KEY_COLUMNS if name not in ("scope", "dataset")]
CASE = ["task", "case"]
SAME = 1e-9
"""Two values closer than this are one value that was written with other digits."""


def join_tables(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of all tables, each once.

    Args:
        tables: checked rows by the name of their file, as `segbench.stats.longtable.read_long` returns them.

    Raises:
        InputError: a row is in two tables with another value or status, a case has another patient in each, two methods
            have the same name, or a method lacks rows that another one has.

    A table in which no patient differs from its case names none; it takes those of the other tables, and the log says
    so.
    """
    names, tables = list(tables), _with_patients(tables)
    every = pd.concat([rows.assign(source=name) for name, rows in tables.items()], ignore_index=True)
    where = " and ".join(names)
    raise_problems(shortened(patient_problems(every, where), where))
    again = every.duplicated(ROW_KEY)
    first = every.drop_duplicates(ROW_KEY)
    twice = every[again].merge(first, on=ROW_KEY, suffixes=("", "_first"))
    same = ((twice["value"] - twice["value_first"]).abs() <= SAME) | (
        twice["value"].isna() & twice["value_first"].isna()
    )
    wrong = twice[~same | (twice["status"] != twice["status_first"])]
    problems = [
        Problem(
            f"{row['source_first']} and {row['source']}: " + "/".join(str(row[name]) for name in ROW_KEY),
            f"{_shown(row['value_first'], row['status_first'])} and {_shown(row['value'], row['status'])}",
            "one value per row",
            "remove one of the rows, or give the second method another name in the column model",
        )
        for row in wrong.to_dict("records")
    ]
    raise_problems(shortened(problems, where))
    if len(twice):
        log.info("%d rows are in two tables with the same value and are used once", len(twice))
    joined = first.drop(columns="source").reset_index(drop=True)
    raise_problems(_clashes(joined, where))
    check_complete(joined, where=where)
    return joined


def _with_patients(tables: Mapping[str, pd.DataFrame]) -> Mapping[str, pd.DataFrame]:
    """Return the tables; those that name no patients have them from those that do."""
    naming = {name: rows for name, rows in tables.items() if (rows["patient"] != rows["case"]).any()}
    if not naming:
        return tables
    known = pd.concat(naming.values()).drop_duplicates(CASE).set_index(CASE)["patient"]
    found = dict(tables)
    for name in tables.keys() - naming.keys():
        rows = tables[name]
        patients = known.reindex(pd.MultiIndex.from_frame(rows[CASE])).set_axis(rows.index)
        found[name] = rows.assign(patient=patients.fillna(rows["case"]))
        if patients.notna().any():
            log.warning("%s names no patients; those of its cases in %s are used", name, " and ".join(naming))
    return found


def _shown(value: float, status: str) -> str:
    return f"{value:g} ({status})" if value == value else f"no value ({status})"


def _clashes(rows: pd.DataFrame, where: str) -> list[Problem]:
    """Return a problem for every name that two methods would share; identity is the key columns."""
    names = ["experiment", "model", "initialisation"]
    keys = rows[names].assign(label=method_labels(rows)).drop_duplicates()
    return [
        Problem(
            f"{where}: method {label}",
            " and ".join(
                f"model {row.model!r} with initialisation {row.initialisation!r}" for row in part.itertuples()
            ),
            "a name of its own for every method",
            "rename one in the column model",
        )
        for (_, label), part in keys.groupby(["experiment", "label"], sort=False)
        if len(part) > 1
    ]
