"""Tables: what a cell shows, how it ranks, and that csv, Markdown and LaTeX say the same."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from segbench.core.errors import InputError
from segbench.core.files import sha256_of
from segbench.reporting.run import Run
from segbench.reporting.sections import pair_table
from segbench.reporting.statistics import MEAN_COLUMN, against, outcome, over_tasks, statistics_of
from segbench.reporting.tables import (
    DASH,
    Cell,
    Row,
    _interval_sentence,
    _ranked,
    build_table,
    cell_text,
    folds_text,
    interval_text,
    missed_text,
    shown,
    table_csv,
    table_markdown,
)
from tests.unit.reporting.synthetic_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return Run(write_run(tmp_path_factory.mktemp("tables") / "toy", curves=False))


@pytest.fixture(scope="module")
def dice(run):
    return build_table(run, "upstream", "dice")


def _cell(table, model: str, task: str):
    row = next(row for row in table.rows if row.method.model == model)
    return row.cells[[item.name for item in table.tasks].index(task)]


def test_cell_is_the_mean_over_structures_of_means_over_cases(run, dice):
    rows = run.rows[
        (run.rows["metric"] == "dice") & (run.rows["model"] == "uniseg") & (run.rows["task"] == "toy_liver")
    ]
    values_of = {"both_empty": 1.0, "reference_empty": 0.0, "prediction_empty": 0.0}
    values = [values_of.get(row.status, row.value) for row in rows.itertuples()]
    by_hand = rows.assign(counted=values).groupby("structure")["counted"].mean().mean()
    assert _cell(dice, "uniseg", "toy_liver").mean == pytest.approx(by_hand, rel=1e-12)


def test_failed_skipped_partial_and_undefined_cells_say_so(run, dice):
    failed = _cell(dice, "unetr", "toy_colon")
    assert (failed.state, failed.mean, failed.rank) == ("failed", 0.0, 0)
    assert failed.reason == "RunFailed: the loss is nan at step 40"
    skipped = _cell(dice, "nnformer", "toy_brain")
    assert skipped.state == "skipped"
    assert skipped.n_scored == 0 < skipped.n_expected
    partial = _cell(dice, "swin_unetr", "toy_petct")
    assert (partial.state, partial.n_failed, partial.n_expected) == ("ok", 6, 12)
    hd95 = build_table(run, "upstream", "hd95")
    assert {_cell(hd95, row.method.model, "toy_prostate").state for row in hd95.rows} == {"not_defined"}
    notes = "\n".join(dice.notes)
    assert "UNETR, Colon tumour (CT): failed (counts as 0.0 %)" in notes
    assert "nnFormer: mean over 10 of 11 tasks, therefore not ranked on the mean" in notes


def test_a_pair_that_does_not_share_every_task_has_no_mean_over_tasks(run):
    """nnFormer skips a task of eleven: a difference over the other ten is not that of the column."""
    found = statistics_of(run, "upstream", "dice")
    labels = {title: label for label, title in found.titles.items()}
    partial = over_tasks(found.paired, labels["nnFormer"], labels["UniSeg"])
    assert partial.isna().all()
    assert outcome(found.paired, labels["nnFormer"], labels["UniSeg"]) is None
    rows = [row for row in pair_table(run, found, "").rows if "nnFormer" in row[:2]]
    assert {tuple(row[2:6]) for row in rows} == {(DASH,) * 4}
    whole = over_tasks(found.paired, labels["UNETR"], labels["UniSeg"])
    turned = over_tasks(found.paired, labels["UniSeg"], labels["UNETR"])
    assert whole["difference"] == -turned["difference"] != 0
    assert (whole["low"], whole["high"]) == (-turned["high"], -turned["low"])
    methods = {method.title: method for method in run.methods_of("upstream")}
    against_uniseg = against(found.paired, methods["nnFormer"], methods["UniSeg"], {"toy_liver": "Liver"}, sign=1)
    assert against_uniseg["column"].tolist() == [MEAN_COLUMN, "Liver"]
    assert against_uniseg["difference"].isna().tolist() == [True, False]
    assert against_uniseg["transfer"].iloc[0] == ""


@pytest.mark.parametrize(("metric", "sign"), [("dice", -1), ("hd95", 1)])
def test_ranks_are_by_mean_among_trained_methods_only_and_mark_nothing(run, metric, sign):
    table = build_table(run, "upstream", metric)
    assert {row.method.model for row in table.rows if not row.method.trained} >= {"oracle", "empty"}
    for i in range(len(table.tasks) + 1):
        column = [(row.method, row.columns[i]) for row in table.rows]
        assert all(cell.rank == 0 for method, cell in column if not method.trained)
        assert not any(cell.marked for _, cell in column)
        ranked = sorted((cell.rank, sign * cell.mean) for _, cell in column if cell.rank)
        assert [rank for rank, _ in ranked] == list(range(1, len(ranked) + 1))
        assert [value for _, value in ranked] == sorted(value for _, value in ranked)


def test_equal_means_share_the_best_rank(dice):
    row = dice.ranking()[0]
    rows = [Row(row.method, replace(row.mean, mean=mean), row.cells) for mean in (0.5, 0.7, 0.7, 0.2)]
    assert [row.mean.rank for row in _ranked(rows, -1)] == [3, 1, 1, 4]


def test_missed_structures_stand_in_the_cell(run, dice):
    cell = _cell(dice, "unetr", "toy_liver")
    rows = run.rows[(run.rows["model"] == "unetr") & (run.rows["task"] == "toy_liver") & (run.rows["metric"] == "dice")]
    without = rows["status"].isin(("prediction_empty", "prediction_missing", "failed"))
    zero = (rows["value"] == 0) & (rows["status"] != "reference_empty")
    assert cell.n_missed == (without | zero).sum() >= without.sum() == 4
    assert cell_text(dice, cell).missed == f"{cell.n_missed} missed"
    assert cell_text(dice, cell).as_seen == ""


@pytest.mark.parametrize(
    ("missed", "text"), [(0, "0 % missed"), (1, "< 1 % missed"), (8, "1 % missed"), (747, "100 % missed")]
)
def test_a_rare_miss_beside_a_distance_is_not_rounded_to_none(missed, text):
    assert missed_text("hd95", Cell("ok", n_missed=missed, n_expected=747)) == text


def test_the_interval_as_seen_stands_beside_the_other_where_nothing_was_missed(dice):
    cell = _cell(dice, "uniseg", "toy_liver")
    text = cell_text(dice, cell)
    assert cell.n_missed == 0
    assert text.as_seen == interval_text("dice", cell.low_as_seen, cell.high_as_seen) != text.interval


def test_a_mean_over_fewer_tasks_is_not_ranked(dice):
    mean = next(row.mean for row in dice.rows if row.method.model == "nnformer")
    assert mean.partial
    assert mean.rank == 0
    assert "nnformer" not in [row.method.model for row in dice.ranking()]
    values = [row.mean.mean for row in dice.ranking()]
    assert values == sorted(values, reverse=True)


def test_an_undefined_task_does_not_make_every_mean_partial(run):
    hd95 = build_table(run, "upstream", "hd95")
    assert not next(row.mean for row in hd95.rows if row.method.model == "uniseg").partial


def test_caption_is_one_line_and_the_legend_says_the_rest(dice):
    for words in ("Synthetic data", "Dice (%, higher is better)", "upstream tasks", "protocol seeded"):
        assert words in dice.caption
    assert "\n" not in dice.caption
    assert len(dice.caption) < 300
    for words in ("95 % interval", "failed counts as 0", "between 2 seeds", "patients", "mid-P"):
        assert words in dice.legend


@pytest.mark.parametrize(
    ("simulated", "sentence"),
    [
        ([np.nan, np.nan], "Coverage is not measured for so few patients."),
        ([np.nan, 9.0], "Measured coverage in simulations: 93\u201396 % with 9 patients."),
    ],
)
def test_the_legend_quotes_no_coverage_where_none_was_measured(simulated, sentence):
    known = ~np.isnan(simulated)
    limits = {"coverage_low": np.where(known, 0.93, np.nan), "coverage_high": np.where(known, 0.96, np.nan)}
    text = _interval_sentence(pd.DataFrame({"n_patients": [2, 9], "coverage_n": simulated} | limits), seeds=1)
    assert text.endswith(sentence)


def test_pooled_folds_say_that_their_models_differ():
    assert folds_text(pd.DataFrame({"n_folds": [1, 1]})) == ""
    said = folds_text(pd.DataFrame({"n_folds": [1, 5]}))
    assert said.startswith(" 5 folds are pooled, each with models of its own.")
    assert "where every fold tests two patients or more" in said


def test_csv_has_one_line_per_cell_with_the_values_of_the_table(dice):
    lines = list(csv.DictReader(io.StringIO(table_csv(dice))))
    assert len(lines) == len(dice.rows) * (len(dice.tasks) + 1)
    assert {line["data"] for line in lines} == {"synthetic"}
    line = next(line for line in lines if (line["model"], line["task"]) == ("dodnet", "toy_liver"))
    cell = _cell(dice, "dodnet", "toy_liver")
    assert float(line["mean"]) == pytest.approx(100 * cell.mean, abs=1e-4)
    assert float(line["low"]) <= float(line["mean"]) <= float(line["high"])
    assert (int(line["n_scored"]), int(line["n_expected"])) == (cell.n_scored, cell.n_expected)
    skipped = next(line for line in lines if line["state"] == "skipped")
    assert (skipped["mean"], skipped["reason"]) == ("", "accepts 1 input channel, the task has 4")


def test_markdown_shows_every_method_and_bold_only_where_a_cell_is_marked(dice):
    best = dice.ranking()[0]
    rows = [
        replace(row, mean=replace(row.mean, marked=True)) if row.method == best.method else row for row in dice.rows
    ]
    text = table_markdown(replace(dice, rows=rows))
    assert f"**{shown('dice', best.mean.mean)}**" in text
    assert "**8" not in table_markdown(dice)
    assert all(row.method.title in text for row in dice.rows)
    assert "failed" in text


def test_names_cannot_break_markdown(dice):
    hostile = "<script>alert(1)</script> | *x* `y`\n# z"
    method = dice.rows[0].method.model_copy(update={"title": hostile})
    text = table_markdown(replace(dice, rows=[replace(dice.rows[0], method=method)]))
    assert "<script" not in text
    line = next(line for line in text.splitlines() if "alert" in line)
    assert line.replace("\\|", "").count("|") == len(dice.tasks) + 4
    assert "\\*x\\* \\`y\\` # z" in line


def test_values_are_shown_in_the_unit_of_the_table():
    assert shown("dice", 0.12345) == "12.3"
    assert shown("hd95", 12.345, sign=True) == "+12.3"
    assert shown("dice", -0.0001, sign=True) == "0.0"
    assert shown("dice", np.nan) == "\u2013"
    assert interval_text("dice", 0.1, 0.2) == "10.0\u201320.0"
    assert interval_text("dice", -0.1, 0.2, sign=True) == "\u221210.0 to +20.0"
    assert interval_text("dice", np.nan, 0.2) == "\u2013"


def test_a_folder_without_a_run_is_the_users_problem(tmp_path):
    with pytest.raises(InputError, match=r"run\.json"):
        Run(tmp_path)
    (tmp_path / "run.json").write_text('{"run": "x"}')
    with pytest.raises(InputError, match="no format version"):
        Run(tmp_path)


def edited(folder, tmp_path, change):
    """A folder whose rows were changed by hand."""
    rows = pd.read_csv(folder / "scores.csv", dtype=str, keep_default_na=False)
    change(rows).to_csv(tmp_path / "scores.csv", index=False, lineterminator="\n")
    (tmp_path / "run.json").write_bytes((folder / "run.json").read_bytes())
    with pytest.raises(InputError) as caught:
        Run(tmp_path)
    return str(caught.value)


def test_rows_that_are_not_those_of_the_record_are_refused(tmp_path):
    folder = write_run(tmp_path / "toy", seeds=(0,), cases=2, upstream=2, methods=3)
    raised = edited(
        folder, tmp_path, lambda rows: rows.assign(value=rows["value"].mask(rows["status"] == "ok", "0.25"))
    )
    assert "SHA-256" in raised
    assert "run.json was written for" in raised
    case = pd.read_csv(folder / "scores.csv")["case"].iloc[0]
    assert "1 test cases; expected 2" in edited(folder, tmp_path, lambda rows: rows[rows["case"] != case])
    assert "rows missing" in edited(folder, tmp_path, lambda rows: rows.iloc[1:])
    assert "no row of the method upstream/uniseg/random" in edited(
        folder, tmp_path, lambda rows: rows[(rows["model"] != "uniseg") | (rows["experiment"] != "upstream")]
    )
    assert "rows of the task upstream/other" in edited(
        folder, tmp_path, lambda rows: rows.assign(task=rows["task"].replace("toy_liver", "other"))
    )


def test_a_metric_without_a_rule_for_missing_masks_is_read(tmp_path):
    folder = write_run(tmp_path / "toy", seeds=(0,), cases=2, upstream=2, methods=3)
    record = json.loads((folder / "run.json").read_text())
    del record["missing_masks"]["hd95_max"]
    (folder / "run.json").write_text(json.dumps(record))
    assert "hd95_max" in Run(folder).metrics


def test_a_table_says_in_how_many_cases_a_structure_was_annotated(tmp_path):
    folder = write_run(tmp_path / "partly", cases=4, upstream=2, methods=3)
    with open(folder / "scores.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    before = build_table(Run(folder), "upstream", "dice")
    assert not [note for note in before.notes if "annotated" in note]
    for row in rows:
        if row["structure"] == "liver tumour" and row["case"].endswith(("000", "003")):
            row |= {"status": "not_defined", "value": "", "reason": "liver tumour not annotated in this case"}
    with open(folder / "scores.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    record = json.loads((folder / "run.json").read_text())
    record["scores_sha256"] = sha256_of(folder / "scores.csv")
    (folder / "run.json").write_text(json.dumps(record))
    table = build_table(Run(folder), "upstream", "dice")
    words = "Liver and tumour (CT): liver tumour is annotated in 2 of 4 test cases and counts in these alone"
    assert [note for note in table.notes if "annotated" in note] == [words]
    assert f"- {words}" in table_markdown(table)
    own = _cell(table, "uniseg", "toy_liver")
    assert own.state == "ok"
    assert np.isfinite(own.mean)


def test_a_table_says_what_is_not_as_in_an_original(tmp_path):
    folder = write_run(tmp_path / "toy", seeds=(0,), cases=2, upstream=2, methods=3)
    assert not [note for note in build_table(Run(folder), "upstream", "dice").notes if "original" in note]
    record = json.loads((folder / "run.json").read_text())
    differing = [method for method in record["methods"] if method["experiment"] == "upstream"][:2]
    for method in differing:
        method |= {"fidelity": "network", "differs": "width 8 instead of 32"}
    (folder / "run.json").write_text(json.dumps(record))
    first, second = (method["title"] for method in differing)
    words = f"Not as in the original, {first}, {second}: width 8 instead of 32"
    table = build_table(Run(folder), "upstream", "dice")
    assert table.notes[0] == words
    assert f"- {words}" in table_markdown(table)
