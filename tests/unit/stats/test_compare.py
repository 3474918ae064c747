"""The command `compare` on tables of other origin: everything or nothing is written, problems are one line each."""

import re

import numpy as np
import pandas as pd
import pytest

from segbench.cli import main
from segbench.core.errors import InputError
from segbench.stats.comparison import TITLES
from segbench.stats.decision import ALL_PAIRS
from segbench.stats.longtable import read_long
from segbench.stats.missing_masks import lower_is_better


def long_rows(metric="dice", tasks=("T", "U"), models=("a", "b", "c"), cases=6):
    rng = np.random.default_rng(51)
    level = {(task, case): rng.uniform(0.6, 0.9) for task in tasks for case in range(cases)}
    return pd.DataFrame(
        [
            {
                "model": model,
                "task": task,
                "case": f"{case}",
                "structure": "organ",
                "metric": metric,
                "value": round(value + 0.02 * i + rng.normal(0, 0.01), 4),
            }
            for i, model in enumerate(models)
            for (task, case), value in level.items()
        ]
    )


def written(tmp_path, frame, name="long.csv"):
    frame.to_csv(tmp_path / name, index=False)
    return str(tmp_path / name)


def test_a_table_with_six_columns_gives_every_statistic(tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(
            [
                "compare",
                written(tmp_path, long_rows()),
                "--out",
                str(out),
                "--resamples",
                "200",
                "--universal",
                "c",
                "--single",
                "a",
            ]
        )
        == 0
    )
    names = {path.name for path in out.iterdir()}
    assert {f"{name}.csv" for name in TITLES if name != "published"} <= names
    figures = {path.name for path in (out / "figures").iterdir()}
    assert {
        f"comparison_dice_{part}.{kind}" for kind in ("png", "svg", "pdf") for part in ("cases", "rank_stability")
    } <= figures
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "dice: both empty counts as 1" in page
    assert "coverage" in page
    assert "Made from a table of scores" in page
    assert f"{ALL_PAIRS}: 6 tests" in page
    assert ALL_PAIRS in set(pd.read_csv(out / "paired.csv")["family_name"])
    cells = pd.read_csv(out / "cells.csv")
    assert (cells["n_scored"] == 6).all()
    assert (cells["low"] < cells["mean"]).all()
    assert (pd.read_csv(out / "transfer.csv")["difference"] > 0).all()
    assert "index.html" in capsys.readouterr().out


def test_same_input_same_bytes(tmp_path):
    path = written(tmp_path, long_rows(tasks=("T",), models=("a", "b")))
    for name in ("one", "two"):
        main(["compare", path, "--out", str(tmp_path / name), "--resamples", "100"])
    first, second = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
        for n in ("one", "two")
    )
    assert first == second


def bad(frame):
    return frame.assign(value=frame["value"].astype(object))


PROBLEMS = [
    (lambda f: f.drop(columns="case"), [], "no column 'case'"),
    (lambda f: bad(f).replace({"value": {f["value"].iloc[0]: "x"}}), [], "line 2: value: found 'x'"),
    (lambda f: f.assign(value=f["value"] * 100), [], "divide per cent by 100"),
    (lambda f: pd.concat([f, f.head(1)]), [], "a key seen before"),
    (lambda f: f.iloc[1:], [], "1 of 6 rows missing, first 0/organ/dice"),
    (lambda f: f.assign(metric="Dice"), [], "did you mean 'dice'?"),
    (lambda f: f.assign(status="okay"), [], "did you mean 'ok'?"),
    (lambda f: bad(f).replace({"value": {f["value"].iloc[0]: ""}}), [], "a number beside status ok"),
    (lambda f: f[(f["model"] != "a") | (f["task"] != "U")], [], "a none seed 0: found no row of U"),
    (lambda f: f.assign(protocol=f["model"].map({"a": "x"}).fillna("y")), [], "no row of T under protocol 'y'"),
    (lambda f: f.assign(metric="hd95", value=1e200), [], "found '1e+200'; expected a finite number up to 1e+100"),
    (lambda f: f.assign(structure=""), [], "line 2: structure: found ''; expected a name"),
    (lambda f: f.assign(metric="hd95", value=-3.0), [], "expected 0 or more"),
    (lambda f: f.head(0), [], "no rows"),
    (lambda f: f, ["--metric", "hd95"], "--metric hd95"),
    (lambda f: f, ["--missing-masks", "dice.both_empt=1"], "did you mean 'both_empty'?"),
    (lambda f: f, ["--missing-masks", "dice.failed=much"], "a number or 'exclude'"),
    (lambda f: f, ["--seed", "-1"], "--seed: found -1; expected at least 0"),
    (lambda f: f, ["--missing-masks", "dice.failed=100"], "found 100; expected 0 to 1"),
    (lambda f: f, ["--missing-masks", "dice.failed=own value"], "a number or 'exclude'; write"),
    (lambda f: f, ["--missing-masks", "dice.failed=diagonal"], "a number or 'exclude'; write"),
    (lambda f: f, ["--equivalence", "dice=-1"], "a positive number"),
    (lambda f: f, ["--universal", "zzz"], "--universal/--single zzz"),
    (lambda f: f, ["--alpha", "2"], "a number from 0.001 to 0.5"),
    (lambda f: f, ["--alpha", "0.9"], "a number from 0.001 to 0.5"),
    (lambda f: f, ["--resamples", "5"], "at least 100"),
]


@pytest.mark.parametrize(("corrupt", "options", "words"), PROBLEMS)
def test_bad_input_exits_with_2_and_writes_nothing(tmp_path, capsys, corrupt, options, words):
    path = written(tmp_path, corrupt(long_rows()))
    assert main(["compare", path, "--out", str(tmp_path / "out"), *options]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["scores.csv", "ranks.csv"])
def test_a_table_that_is_read_is_not_replaced(tmp_path, capsys, name):
    path = written(tmp_path, long_rows(), name)
    assert main(["compare", path, "--out", str(tmp_path)]) == 2
    assert f"--out: found {path}, a table that is read and would be replaced" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_one_protocol_per_task_leaves_no_task_out(tmp_path):
    rows = long_rows()
    path = written(tmp_path, rows.assign(protocol=rows["task"].map({"T": "seeded", "U": "official"})))
    assert main(["compare", path, "--out", str(tmp_path / "out"), "--resamples", "100"]) == 0
    cells = pd.read_csv(tmp_path / "out" / "cells.csv")
    assert dict(zip(cells["task"], cells["protocol"], strict=True)) == {"T": "seeded", "U": "official"}
    variants = pd.read_csv(tmp_path / "out" / "ranking_variants.csv")
    assert set(variants["protocol"]) == {"seeded + official"}
    assert variants["n_tasks"].max() == 2


@pytest.mark.parametrize(("models", "cases"), [(("a",), 6), (("a",), 1), (("a", "b"), 1), (("a", "b"), 2)])
def test_little_data_gives_what_can_be_said(tmp_path, models, cases):
    out = tmp_path / "out"
    path = written(tmp_path, long_rows(models=models, cases=cases))
    assert main(["compare", path, "--out", str(out), "--resamples", "100"]) == 0
    assert len(pd.read_csv(out / "cells.csv")) == 2 * len(models)
    assert (out / "paired.csv").exists() == (len(models) > 1)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert ("One method only" in page) == (len(models) == 1)


def test_a_method_without_any_value_is_shown_beside_the_others(tmp_path):
    rows = bad(long_rows(models=("a", "b")))
    rows.loc[rows["model"] == "b", ["value", "status"]] = ["", "not_defined"]
    out = tmp_path / "out"
    assert main(["compare", written(tmp_path, rows.fillna({"status": "ok"})), "--out", str(out)]) == 0
    assert pd.read_csv(out / "cells.csv").groupby("model")["mean"].count().to_dict() == {"a": 2, "b": 0}
    assert not (out / "paired.csv").exists()
    assert not (out / "detectable.csv").exists()


def test_a_table_saved_by_a_spreadsheet(tmp_path):
    long_rows().rename(columns=str.title).to_csv(tmp_path / "x.csv", index=False, encoding="utf-8-sig")
    assert len(read_long(tmp_path / "x.csv")) == 36


def test_unreadable_and_absent_tables(tmp_path, capsys):
    (tmp_path / "b.csv").write_bytes(b"\x00\xff\xfe")
    for name in ("b.csv", "none.csv"):
        assert main(["compare", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_metrics_of_others_need_a_direction(tmp_path):
    path = written(tmp_path, long_rows("Surface distance"))
    with pytest.raises(InputError, match="--lower-is-better"):
        read_long(path)
    rows = read_long(path, lower_is_better=["Surface distance"])
    assert set(rows["metric"]) == {"Surface distance"}
    assert lower_is_better("Surface distance")
    assert rows["patient"].tolist() == rows["case"].tolist()


def test_a_metric_has_one_direction(tmp_path):
    path = written(tmp_path, long_rows("Surface distance"))
    with pytest.raises(InputError, match="both directions"):
        read_long(path, lower_is_better=["Surface distance"], higher_is_better=["Surface distance"])
    with pytest.raises(InputError, match="--lower-is-better dice: found a metric of which higher is better"):
        read_long(written(tmp_path, long_rows()), lower_is_better=["dice"])


def test_missing_predictions_are_counted_not_dropped(tmp_path):
    frame = long_rows(tasks=("T",), models=("a", "b")).assign(status="ok")
    frame["value"] = frame["value"].astype(object)
    frame.loc[0, ["value", "status"]] = ["", "prediction_missing"]
    out = tmp_path / "out"
    assert main(["compare", written(tmp_path, frame), "--out", str(out), "--resamples", "100"]) == 0
    cell = pd.read_csv(out / "cells.csv").set_index("model").loc["a"]
    assert (cell["n_scored"], cell["n_expected"], cell["n_failed"]) == (6, 6, 1)
    assert cell["low"] < cell["low_as_seen"] + 0.1


def test_synthetic_tasks_are_named_so(tmp_path):
    frame = long_rows(tasks=("phantom_spleen", "phantom_liver"))
    out = tmp_path / "out"
    assert main(["compare", written(tmp_path, frame), "--out", str(out), "--resamples", "100"]) == 0
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<title>Synthetic data: segbench report of comparison</title>" in page
    assert "Synthetic data: the volumes were generated" in page


def test_two_files_are_joined_and_say_the_same_as_one(tmp_path):
    frame = long_rows(models=("a", "b"))
    paths = [written(tmp_path, part, f"{name}.csv") for name, part in frame.groupby("model")]
    both = written(tmp_path, pd.concat([frame[frame["model"] == "a"], frame[frame["model"] == "b"]]), "both.csv")
    for name, given in (("two", paths), ("one", [both])):
        assert main(["compare", *given, "--out", str(tmp_path / name), "--resamples", "100"]) == 0
    for name in ("cells.csv", "paired.csv", "scores.csv"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_semicolons_tabs_and_decimal_commas_are_read(tmp_path):
    frame = long_rows(tasks=("T",), models=("a", "b"))
    expected = read_long(written(tmp_path, frame))
    for separator in (";", "\t"):
        path = tmp_path / "other.csv"
        frame.assign(value=frame["value"].map(lambda value: str(value).replace(".", ","))).to_csv(
            path, index=False, sep=separator
        )
        pd.testing.assert_frame_equal(read_long(path), expected)


def test_long_names_fit_files_and_figures(tmp_path):
    frame = long_rows(tasks=("t" * 260, "t" * 259 + "u"), models=("a", "b"))
    out = tmp_path / "out"
    given = ["compare", written(tmp_path, frame.assign(experiment="e" * 260)), "--out", str(out), "--resamples", "100"]
    assert main(given) == 0
    assert max(len(path.name) for path in out.rglob("*")) < 150
    assert (out / "index.html").exists()


def test_controls_by_name_enlarge_no_family(tmp_path):
    out = tmp_path / "out"
    path = written(tmp_path, long_rows(models=("a", "b", "empty", "mean_shape")))
    assert main(["compare", path, "--out", str(out), "--resamples", "100"]) == 0
    assert set(pd.read_csv(out / "paired.csv")["method_a"]) == {"a"}
    assert "Controls by their name, not ranked: empty, mean_shape." in (out / "index.html").read_text(encoding="utf-8")


def test_no_type_of_python_reaches_a_table(tmp_path):
    out = tmp_path / "out"
    path = written(tmp_path, long_rows())
    assert main(["compare", path, "--out", str(out), "--resamples", "100"]) == 0
    tables = [*out.glob("*.csv"), *(out / "tables").glob("*.csv")]
    assert len(tables) > 20
    for table in tables:
        text = table.read_text()
        assert not re.search(r"np\.|\bTrue\b|\bFalse\b|\{|,\d+\.0(,|$)", text, flags=re.M), table.name
        first = text.partition(",")[0]
        assert first in ("data", "experiment", "metric", "choice"), (table.name, first)


def not_scored(status, metric="hd95", models=("a", "b")):
    rows = long_rows(metric=metric, tasks=("T",), models=models)
    return rows.assign(value="", status=status)


@pytest.mark.parametrize("status", ["not_defined", "skipped"])
def test_a_metric_that_is_defined_for_nobody_has_cells_without_a_value(tmp_path, status):
    """As `score --nominal-spacing` writes it: Dice beside distances that have no meaning."""
    dice = long_rows(tasks=("T",), models=("a", "b")).assign(status="ok")
    path = written(tmp_path, pd.concat([dice, not_scored(status)]))
    out = tmp_path / "out"
    assert main(["compare", path, "--out", str(out), "--resamples", "100"]) == 0
    found = pd.read_csv(out / "cells.csv").set_index(["metric", "model"])
    assert found.loc["hd95", ["n_scored", "n_expected"]].to_numpy().tolist() == [[0, 6], [0, 6]]
    assert found.loc["hd95", "mean"].isna().all()
    assert set(pd.read_csv(out / "ranks.csv")["metric"]) == {"dice"}
    assert main(["compare", written(tmp_path, not_scored(status)), "--out", str(tmp_path / "alone")]) == 0
    assert "No trained method has a comparable mean" in (tmp_path / "alone" / "index.html").read_text(encoding="utf-8")


def test_rows_that_are_all_excluded_leave_nothing_to_compare(tmp_path):
    path = written(tmp_path, not_scored("both_empty", "dice"))
    options = ["--missing-masks", "dice.both_empty=exclude", "--resamples", "100"]
    assert main(["compare", path, "--out", str(tmp_path / "out"), *options]) == 0
    assert pd.read_csv(tmp_path / "out" / "cells.csv")["mean"].isna().all()


def test_equal_means_share_the_first_place_on_the_page(tmp_path):
    rows = long_rows(tasks=("T",), models=("a", "b", "c"))
    equal = rows[rows["model"] == "c"]
    rows = pd.concat([rows[rows["model"] == "a"], equal.assign(model="b"), equal])
    assert main(["compare", written(tmp_path, rows), "--out", str(tmp_path / "out"), "--resamples", "100"]) == 0
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "b and c share the highest rank by mean Dice" in page
    assert "By the decision rule b is " in page
    assert "b and c have the best mean: b is " in page


def test_intervals_of_structures_have_the_level_of_the_page(tmp_path):
    path = written(tmp_path, long_rows(tasks=("T",), models=("a", "b")))
    options = ["--alpha", "0.2", "--seed", "3"]
    assert main(["compare", path, "--out", str(tmp_path / "out"), *options]) == 0
    own, beside = (
        pd.read_csv(tmp_path / "out" / name)[["mean", "low", "high"]]
        for name in ("structures.csv", "tables/comparison_dice_structures.csv")
    )
    pd.testing.assert_frame_equal(own, beside)


def test_a_pair_that_shares_one_of_two_tasks_has_no_difference_over_tasks(tmp_path):
    rows = long_rows(models=("a", "b")).assign(status="ok")
    skipped = (rows["model"] == "b") & (rows["task"] == "U")
    rows = rows.assign(
        value=rows["value"].astype(object).mask(skipped, ""), status=rows["status"].mask(skipped, "skipped")
    )
    options = ["--reference", "b", "--resamples", "100"]
    assert main(["compare", written(tmp_path, rows), "--out", str(tmp_path / "out"), *options]) == 0
    found = pd.read_csv(tmp_path / "out" / "tables" / "comparison_dice_differences.csv").set_index("column")
    assert np.isfinite(found.loc["T", "difference"])
    assert np.isnan(found.loc["Mean over tasks", "difference"])
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "mean over tasks unknown (the two do not share every task), not tested" in page
