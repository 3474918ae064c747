"""The tables of docs/results.md are those of the committed report."""

import pandas as pd
import pytest

from tests.paths import ROOT

TABLES = ROOT / "reports" / "real_small" / "tables"
TASKS = ("mean over tasks", "task04_hippocampus", "openkbp_head_neck_ct", "sts_petct", "sts_mr_t1")


def rows_below(title: str) -> dict[str, list[str]]:
    """Return method -> the other cells of the first table below a title."""
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").split(f"\n## {title}\n", 1)[1]
    block = text.strip().split("\n\n")[0].splitlines()[2:]
    return {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in block)}


@pytest.mark.parametrize(
    ("title", "file", "tasks"),
    [
        ("Upstream: Dice in %", "upstream_dice.csv", TASKS),
        ("Downstream: Dice in % of heart cine MR", "downstream_dice.csv", ("acdc_cine_mr",)),
    ],
)
def test_the_numbers_are_those_of_the_report(title, file, tasks):
    table = pd.read_csv(TABLES / file)
    stated = rows_below(title)
    assert len(stated) >= 6
    for method, cells in stated.items():
        own = table[table["method"] == method].set_index("task")
        assert [f"{own.loc[task, 'mean']:.1f}" for task in tasks] == cells[: len(tasks)], method
        if len(cells) > len(tasks):
            assert cells[-1] == str(own.loc["mean over tasks", "n_missed"])


def test_differences_in_the_text_are_those_of_the_report():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    pairs = pd.concat(pd.read_csv(TABLES / f"{name}_dice_paired.csv") for name in ("upstream", "downstream"))
    stated = {
        ("all tasks", "multi_head", "single_task"): ("7.6", "1.1 to 14.6"),
        ("all tasks", "uniseg_no_prompt", "single_task"): ("12.5", ""),
        ("all tasks", "uniseg", "single_task"): ("26.5", ""),
        ("all tasks", "uniseg", "uniseg_no_prompt"): ("13.9", "6.7 to 20.5"),
        ("acdc_cine_mr", "single_task (scratch)", "single_task (multi_head)"): ("9.5", "3.8 to 14.3"),
        ("acdc_cine_mr", "single_task (scratch)", "single_task (masked_autoencoder)"): ("5.7", ""),
        ("acdc_cine_mr", "single_task (scratch)", "single_task (uniseg)"): ("4.7", ""),
        ("acdc_cine_mr", "single_task (scratch)", "single_task (dodnet)"): ("1.8", ""),
    }
    for (task, a, b), (difference, limits) in stated.items():
        (row,) = pairs[(pairs["task"] == task) & (pairs["method_a"] == a) & (pairs["method_b"] == b)].itertuples()
        low, high = sorted((abs(100 * row.low), abs(100 * row.high)))
        assert f"{abs(100 * row.difference):.1f}" == difference in text
        assert not limits or f"{low:.1f} to {high:.1f}" == limits in text
