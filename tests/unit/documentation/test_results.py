"""The tables of docs/results.md are those of the committed reports."""

import pandas as pd
import pytest

from tests.paths import ROOT

REPORTS = ROOT / "reports"
TASKS = ("mean over tasks", "task04_hippocampus", "openkbp_head_neck_ct", "sts_petct", "sts_mr_t1")
METHODS = {
    "Single-task U-Net": "single_task",
    "Multi-head": "multi_head",
    "UniSeg": "uniseg",
    "UniSeg (no prompt)": "uniseg_no_prompt",
    "DoDNet (dynamic head)": "dodnet",
    "nnU-Net (plain)": "nnunet_plain",
    "From scratch": "single_task (scratch)",
    "Pre-trained: Multi-head": "single_task (multi_head)",
    "Pre-trained: UniSeg": "single_task (uniseg)",
    "Pre-trained: DoDNet (dynamic head)": "single_task (dodnet)",
    "Self-supervised: Masked autoencoder": "single_task (masked_autoencoder)",
}
"""Title of a method -> its name in the files of pairs."""


def rows_below(title: str) -> list[list[str]]:
    """Return the cells of the first table below a title."""
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").split(f"\n## {title}\n", 1)[1]
    table = next(block for block in text.strip().split("\n\n") if block.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


@pytest.mark.parametrize(
    ("title", "file", "tasks"),
    [
        ("Upstream: Dice in %", "real_small/tables/upstream_dice.csv", TASKS),
        ("Downstream: Dice in % of heart cine MR", "real_small/tables/downstream_dice.csv", ("acdc_cine_mr",)),
        ("The larger setting: Dice in %", "real/tables/upstream_dice.csv", TASKS),
        ("The larger setting: Dice in % of heart cine MR", "real/tables/downstream_dice.csv", ("acdc_cine_mr",)),
    ],
)
def test_the_numbers_are_those_of_the_report(title, file, tasks):
    table = pd.read_csv(REPORTS / file)
    stated = rows_below(title)
    assert len(stated) >= 4
    for method, *cells in stated:
        own = table[table["method"] == method].set_index("task")
        assert [f"{own.loc[task, 'mean']:.1f}" for task in tasks] == cells[: len(tasks)], method
        if len(cells) > len(tasks):
            assert cells[-1] == str(own.loc["mean over tasks", "n_missed"])


@pytest.mark.parametrize(
    ("title", "file", "task"),
    [
        ("Upstream: differences", "real_small/tables/upstream_dice_paired.csv", "all tasks"),
        ("Downstream: differences", "real_small/tables/downstream_dice_paired.csv", "acdc_cine_mr"),
        ("The larger setting: differences", "real/tables/upstream_dice_paired.csv", "all tasks"),
        ("The larger setting: differences downstream", "real/tables/downstream_dice_paired.csv", "acdc_cine_mr"),
    ],
)
def test_the_differences_are_those_of_the_report(title, file, task):
    pairs = pd.read_csv(REPORTS / file)
    pairs = pairs[pairs["task"] == task].set_index(["method_a", "method_b"])
    stated = rows_below(title)
    assert len(stated) >= 3
    for first, second, *cells in stated:
        a, b = METHODS[first], METHODS[second]
        sign, row = (1, pairs.loc[(a, b)]) if (a, b) in pairs.index else (-1, pairs.loc[(b, a)])
        low, high = sorted((sign * row["low"], sign * row["high"]))
        better = {"a": "better", "b": "worse"} if sign > 0 else {"a": "worse", "b": "better"}
        assert cells == [
            f"{100 * sign * row['difference']:+.1f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
            better.get(row["better"], "undecided"),
        ], (first, second)
