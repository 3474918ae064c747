"""Score tables joined: agreeing rows once, disagreements listed, methods known by their key columns."""

from __future__ import annotations

import pandas as pd
import pytest

from segbench.core.errors import InputError
from segbench.stats.joined import join_tables
from segbench.stats.longtable import read_long


def table(tmp_path, name, rows):
    columns = ["model", "initialisation", "task", "case", "structure", "metric", "value"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / name, index=False)
    return read_long(tmp_path / name, whole=False)


def row(model, value, *, case="c0", initialisation="none"):
    return (model, initialisation, "T", case, "organ", "dice", value)


def test_a_row_of_two_tables_is_there_once(tmp_path):
    one = table(tmp_path, "one.csv", [row("a", 0.5), row("a", 0.6, case="c1")])
    two = table(tmp_path, "two.csv", [row("b", 0.7), row("b", 0.8, case="c1"), row("a", 0.5)])
    joined = join_tables({"one.csv": one, "two.csv": two})
    assert len(joined) == 4
    assert joined.groupby("model")["value"].mean().to_dict() == pytest.approx({"a": 0.55, "b": 0.75})


def test_rows_that_differ_are_listed_with_both_files(tmp_path):
    one = table(tmp_path, "one.csv", [row("a", 0.5), row("a", 0.6, case="c1")])
    two = table(tmp_path, "two.csv", [row("a", 0.4), row("a", 0.6, case="c1")])
    with pytest.raises(InputError) as caught:
        join_tables({"one.csv": one, "two.csv": two})
    (problem,) = caught.value.problems
    assert problem.line().startswith("one.csv and two.csv: comparison/a/none")
    assert "found 0.5 (ok) and 0.4 (ok)" in problem.line()


def test_a_method_that_lacks_cases_of_another_file_is_refused(tmp_path):
    one = table(tmp_path, "one.csv", [row("a", 0.5), row("a", 0.6, case="c1")])
    two = table(tmp_path, "two.csv", [row("b", 0.4)])
    with pytest.raises(InputError, match="1 of 2 rows missing"):
        join_tables({"one.csv": one, "two.csv": two})


def test_two_methods_of_one_name_are_refused(tmp_path):
    rows = table(tmp_path, "one.csv", [row("A (x)", 0.5), row("A", 0.9, initialisation="x")])
    with pytest.raises(InputError, match=r"method A \(x\): .*a name of its own for every method"):
        join_tables({"one.csv": rows})


def named(tmp_path, name, model, patients):
    """Write a table of one method; `patients` maps cases to patients, or is a list of cases without patients."""
    rows = [
        {"model": model, "task": "T", "case": c, "structure": "s", "metric": "dice", "value": 0.5} for c in patients
    ]
    frame = pd.DataFrame(rows)
    if isinstance(patients, dict):
        frame["patient"] = frame["case"].map(patients)
    frame.to_csv(tmp_path / name, index=False)
    return read_long(tmp_path / name, whole=False)


def test_a_table_without_patients_takes_those_of_the_other(tmp_path, caplog):
    ours, theirs = named(tmp_path, "o.csv", "a", {"c0": "p", "c1": "p"}), named(tmp_path, "t.csv", "b", ["c0", "c1"])
    for tables in ({"o.csv": ours, "t.csv": theirs}, {"t.csv": theirs, "o.csv": ours}):
        assert set(join_tables(tables)["patient"]) == {"p"}
        assert "t.csv names no patients; those of its cases in o.csv are used" in caplog.text
        caplog.clear()


def test_other_patients_of_one_case_are_refused(tmp_path):
    tables = {
        "o.csv": named(tmp_path, "o.csv", "a", {"c0": "p", "c1": "p"}),
        "t.csv": named(tmp_path, "t.csv", "b", {"c0": "p", "c1": "q"}),
    }
    with pytest.raises(InputError, match="case c1 of task T: found the patients p and q"):
        join_tables(tables)


def test_one_case_in_two_spellings_is_refused(tmp_path):
    tables = {"o.csv": named(tmp_path, "o.csv", "a", ["case_01"]), "t.csv": named(tmp_path, "t.csv", "b", ["Case-1"])}
    with pytest.raises(InputError, match="task T: case: found 'Case-1' and 'case_01'; expected one spelling"):
        join_tables(tables)
