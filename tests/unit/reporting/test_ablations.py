"""Does the prompt pay? The same network with other options, by the one decision rule of the report."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pandas as pd
import pytest

from segbench.reporting import ablations, statistics
from segbench.reporting.page import render
from segbench.reporting.run import Run
from segbench.reporting.tables import build_table
from segbench.reporting.verify import differing_files
from segbench.stats.decision import oriented
from tests.unit.reporting.synthetic_run import write_run

VARIANT = "UniSeg (no prompt)"


@pytest.fixture
def results(tmp_path) -> Path:
    """A run whose second upstream method is UniSeg without its prompt."""
    folder = write_run(tmp_path / "results", seeds=(0,), cases=4, upstream=3, methods=4, curves=False)
    change(folder, variant_of="uniseg", title=VARIANT, options_text="prompt = none")
    return folder


def change(folder: Path, **facts) -> None:
    record = json.loads((folder / "run.json").read_text())
    method = next(item for item in record["methods"] if (item["experiment"], item["model"]) == ("upstream", "dodnet"))
    method |= facts
    (folder / "run.json").write_text(json.dumps(record))


def frame_of(results: Path, metric: str = "dice") -> tuple[pd.DataFrame, pd.DataFrame, Run]:
    run = Run(results)
    paired = statistics.compared(run, "upstream", metric)
    return ablations.ablation_frame(run, build_table(run, "upstream", metric), paired), paired, run


@pytest.mark.parametrize(("metric", "sign"), [("dice", 1), ("hd95", -1)])
def test_gaps_and_decisions_are_those_of_the_paired_table(results, metric, sign):
    frame, paired, run = frame_of(results, metric)
    assert list(frame["column"]) == [statistics.MEAN_COLUMN, *(task.title for task in run.tasks("upstream"))]
    pair = oriented(paired, "uniseg", "dodnet").set_index("task")
    words = {"a": "positive", "b": "negative", "conflicting": "conflicting", "": "not shown"}
    for row in frame[frame["task"] != ""].to_dict("records"):
        own = pair.loc[row["task"]]
        assert row["difference"] == pytest.approx(sign * own["difference"])
        assert sorted((sign * own["low"], sign * own["high"])) == pytest.approx([row["low"], row["high"]])
        assert row["decision"] == words[own["better"]]
    mean = pair.loc[statistics.ALL_TASKS]
    assert frame["difference"].iloc[0] == pytest.approx(sign * mean["difference"])
    assert frame["decision"].iloc[0] == words[mean["better"]]


def test_the_page_has_a_card_a_section_and_a_table_that_are_rebuilt(results, tmp_path):
    report = tmp_path / "report"
    render(results, report)
    page = html.unescape((report / "index.html").read_text(encoding="utf-8"))
    assert '<a href="#upstream-ablation">Does the prompt pay?</a>' in page[: page.index("<table")]
    assert '<details class="fold" id="upstream-ablation">' in page
    frame, _, _ = frame_of(results)
    assert page.count(ablations.ablation_text(frame, "dice")) == 2
    table = pd.read_csv(report / "tables" / "upstream_dice_ablation.csv")
    assert set(table.columns) == {"data", *ablations.COLUMNS}
    assert set(table["variant"]) == {VARIANT}
    assert differing_files(report) == []


def test_a_run_without_such_a_pair_has_no_row(results):
    change(results, variant_of="", title="DoDNet", options_text="")
    run = Run(results)
    table = build_table(run, "upstream", "dice")
    assert ablations.ablated_pairs(run, "upstream") == []
    assert ablations.ablation_frame(run, table, pd.DataFrame()).empty


def test_nothing_is_said_where_nothing_was_compared(results):
    run = Run(results)
    assert ablations.ablation_frame(run, build_table(run, "upstream", "dice"), None).empty


def test_a_variant_of_a_method_that_is_not_there_has_no_partner(results):
    change(results, variant_of="absent")
    assert ablations.ablated_pairs(Run(results), "upstream") == []


@pytest.mark.parametrize(
    ("options_text", "title"),
    [
        ("prompt = none", "Does the prompt pay?"),
        ("position = 1, prompt = none", "Does the prompt pay?"),
        ("position = 1", "Do the options of UniSeg pay?"),
        ("no_prompt = 1", "Do the options of UniSeg pay?"),
    ],
)
def test_the_title_asks_about_what_was_changed(results, options_text, title):
    change(results, options_text=options_text)
    assert ablations.ablation_title(Run(results), "upstream") == title


def test_the_card_says_the_decision_and_not_the_sign(results):
    frame, _, run = frame_of(results)
    table = build_table(run, "upstream", "dice")
    for decision, word in (
        ("positive", "better"),
        ("negative", "worse"),
        ("conflicting", "mean and ranks disagree"),
        ("not shown", "not distinguishable"),
        ("", "not tested"),
    ):
        frame.loc[frame["column"] == statistics.MEAN_COLUMN, "decision"] = decision
        text = ablations.ablation_text(frame, "dice")
        assert text.startswith(f"Against {VARIANT} ")
        assert text.endswith(f": {word}.")
        assert ablations.ablation_table(run, table, frame, "").rows[0][4] == word
