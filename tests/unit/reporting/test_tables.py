"""Tables: what a cell shows, who is marked, and that csv, markdown and LaTeX tell the same."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from segbench.core.errors import InputError
from segbench.reporting.run import Run
from segbench.reporting.tables import build_table, interval_text, shown, table_csv, table_markdown, table_tex
from tests.unit.reporting.synthetic_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return Run(write_run(tmp_path_factory.mktemp("tables") / "toy", curves=False))


@pytest.fixture(scope="module")
def dice(run):
    return build_table(run, "upstream", "dice")


def _cell(table, model: str, task: str):
    row = next(row for row in table.rows if row.method.model == model)
    return row.cells[[item["name"] for item in table.tasks].index(task)]


def test_cell_is_the_mean_over_structures_of_means_over_cases(run, dice):
    rows = run.rows[
        (run.rows["metric"] == "dice") & (run.rows["model"] == "uniseg") & (run.rows["task"] == "toy_liver")
    ]
    policy = {"both_empty": 1.0, "reference_empty": 0.0, "prediction_empty": 0.0}
    values = [policy.get(row.status, row.value) for row in rows.itertuples()]
    by_hand = rows.assign(counted=values).groupby("structure")["counted"].mean().mean()
    assert _cell(dice, "uniseg", "toy_liver").mean == pytest.approx(by_hand, rel=1e-12)


def test_failed_skipped_partial_and_undefined_cells_say_so(run, dice):
    failed = _cell(dice, "unetr", "toy_colon")
    assert (failed.state, failed.mean, failed.place) == ("failed", 0.0, 0)
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


@pytest.mark.parametrize(("metric", "best"), [("dice", max), ("hd95", min)])
def test_best_and_second_are_marked_among_trained_methods_only(run, metric, best):
    table = build_table(run, "upstream", metric)
    assert {row.method.model for row in table.rows if not row.method.trained} >= {"oracle", "empty"}
    for i in range(len(table.tasks)):
        column = [(row.method, row.cells[i]) for row in table.rows]
        eligible = [cell.mean for method, cell in column if method.trained and cell.state == "ok"]
        assert all(cell.place == 0 for method, cell in column if not method.trained)
        if not eligible:
            assert all(cell.place == 0 for _, cell in column)
            continue
        first = [cell.mean for _, cell in column if cell.place == 1]
        second = [cell.mean for _, cell in column if cell.place == 2]
        assert first == [best(eligible)]
        assert second == [best(value for value in eligible if value != first[0])]


def test_a_mean_over_fewer_tasks_is_not_ranked(dice):
    mean = next(row.mean for row in dice.rows if row.method.model == "nnformer")
    assert mean.partial
    assert mean.place == 0
    assert "nnformer" not in [row.method.model for row in dice.ranking()]
    values = [row.mean.mean for row in dice.ranking()]
    assert values == sorted(values, reverse=True)


def test_an_undefined_task_does_not_make_every_mean_partial(run):
    hd95 = build_table(run, "upstream", "hd95")
    assert not next(row.mean for row in hd95.rows if row.method.model == "uniseg").partial


def test_caption_states_everything_a_reader_needs(dice):
    for words in (
        "Synthetic data",
        "Dice in %",
        "higher is better",
        "95 % interval",
        "n scored / n expected",
        "Protocol: seeded",
        "failed counts as 0",
        "between 2 seeds",
        "patients",
    ):
        assert words in dice.caption


def test_csv_has_one_line_per_cell_with_the_figures_of_the_table(dice):
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


def test_markdown_and_latex_show_every_method_and_mark_the_best(dice):
    markdown, tex = table_markdown(dice), table_tex(dice)
    best = dice.ranking()[0]
    value = shown("dice", best.mean.mean)
    assert f"**{value}**" in markdown
    assert f"\\textbf{{{value}}}" in tex
    assert "failed" in markdown
    assert "failed" in tex
    for row in dice.rows:
        assert row.method.title in markdown
        assert row.method.title in tex
    assert tex.count("{") == tex.count("}")
    assert "%" not in tex.replace("\\%", "").replace("% needs", "").replace("{!}{%", "")


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
    with pytest.raises(InputError, match="methods"):
        Run(tmp_path)
