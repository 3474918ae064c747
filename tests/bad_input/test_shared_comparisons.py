"""Tables that people bring to `compare`: each kind gives the right number, or one line that helps."""

import pandas as pd
import pytest

from segbench.cli import main

HEAD = "model,task,case,structure,metric,value"
ROWS = [f"{model},t,c{case},s,dice,{value}" for model, values in {"A": (1, 2, 3, 4), "B": (4, 3, 2, 1)}.items()
        for case, value in enumerate(0.1 * number for number in values)]  # fmt: skip


def compare(folder, text, *options, encoding="utf-8"):
    """Compare a table; return the status."""
    (folder / "table.csv").write_text(text, encoding=encoding)
    return main(["compare", str(folder / "table.csv"), "--out", str(folder / "out"), "--resamples", "200", *options])


def table(*rows, head=HEAD):
    return "\n".join([head, *rows]) + "\n"


@pytest.mark.parametrize("values", [("0.1,0.2,0.3", "0.3,0.2,0.1"), ("0.1,0.2,0.3,0.4", "0.4,0.3,0.2,0.1")])
def test_equal_means_have_equal_ranks_in_every_table(values, tmp_path):
    rows = [
        f"{model},t,c{case},s,dice,{value}"
        for model, text in zip("AB", values, strict=True)
        for case, value in enumerate(text.split(","))
    ]
    assert compare(tmp_path, table(*rows)) == 0
    seen = 0
    for path in sorted((tmp_path / "out").glob("*.csv")):
        found = pd.read_csv(path)
        columns = [name for name in found.columns if name == "consensus_rank" or name.startswith("rank_by_")]
        for name in columns:
            seen += 1
            assert found[name].nunique() == 1, (path.name, name)
    assert seen


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_and_another_order_of_columns_change_nothing(encoding, tmp_path):
    other = table(*(",".join(reversed(row.split(","))) for row in ROWS), head=",".join(reversed(HEAD.split(","))))
    results = []
    for number, text in enumerate((table(*ROWS), other, table(*reversed(ROWS)))):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert compare(folder, text, encoding=encoding) == 0
        results.append({path.name: path.read_bytes() for path in (folder / "out").glob("*.csv")})
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("A,t,c9,s,dice,1.2", "0..1"),
        ("A,t,c9,s,dice,-0.1", "0..1"),
        ("A,t,c9,s,hd95,-1", "0 or more"),
        ("A,t,c9,s,dice,inf", "a finite number"),
        ("A,t,c9,s,dice,good", "a finite number"),
        ("A,t,c9,s,dice,95%", "a finite number"),
        ("A,t,c0,s,dice,0.5", "a key seen before"),
        ("A,t,,s,dice,0.5", "a name"),
        ("A,t,c9,s,dice,", "beside status ok"),
        ("A,t,c9,s,dise,0.5", "unknown direction"),
    ],
)
def test_a_row_that_cannot_be_is_named_with_its_line(row, words, tmp_path, capsys):
    assert compare(tmp_path, table(*ROWS, row)) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("status", ["prediction_missing", "failed", "skipped", "not_defined"])
def test_a_value_where_its_status_has_none_is_refused(status, tmp_path, capsys):
    rows = [f"{row},ok" for row in ROWS[:-1]] + [f"{ROWS[-1]},{status}"]
    assert compare(tmp_path, table(*rows, head=f"{HEAD},status")) == 2
    assert "no value beside the status" in capsys.readouterr().err


def test_rows_that_one_method_lacks_are_named(tmp_path, capsys):
    assert compare(tmp_path, table(*ROWS[:-1])) == 2
    assert "1 of 4 rows missing" in capsys.readouterr().err


def test_methods_are_told_by_their_key_and_never_joined(tmp_path, capsys):
    rows = [
        f"{model},{start},t,c{case},s,dice,{value}"
        for model, start, value in (("A (x)", "none", 0.2), ("A", "x", 0.9))
        for case in range(4)
    ]
    head = "model,initialisation,task,case,structure,metric,value"
    assert compare(tmp_path, table(*rows, head=head)) == 2
    printed = capsys.readouterr().err
    assert "method A (x): found model 'A (x)'" in printed
    assert "and model 'A' with initialisation 'x'" in printed


def test_a_task_name_of_any_length_is_compared(tmp_path):
    assert compare(tmp_path, table(*(row.replace(",t,", f",{'t' * 260},") for row in ROWS))) == 0


def test_wide_tables_are_refused_with_the_columns_that_are_needed(tmp_path, capsys):
    assert compare(tmp_path, "case,A,B\nc0,0.1,0.2\n") == 2
    assert "no column 'model'" in capsys.readouterr().err


@pytest.mark.parametrize(("separator", "decimal"), [(";", "."), (";", ",")])
def test_another_separator_and_decimal_commas_give_the_same_tables(separator, decimal, tmp_path):
    results = []
    for name, text in (
        ("comma", table(*ROWS)),
        ("other", table(*ROWS).replace(",", separator).replace("0.", f"0{decimal}")),
    ):
        folder = tmp_path / name
        folder.mkdir()
        assert compare(folder, text) == 0
        results.append({path.name: path.read_bytes() for path in (folder / "out").glob("*.csv")})
    assert results[0] == results[1]
