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
