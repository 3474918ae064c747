"""Bold cells follow the decisions of the statistics and nothing else."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pandas as pd
import pytest

from segbench.reporting.marks import marked
from segbench.reporting.run import Run
from segbench.reporting.statistics import label_of
from segbench.reporting.tables import build_table
from segbench.stats.ranking import ALL_TASKS
from tests.unit.reporting.synthetic_run import write_run

NO_CHECKS = pd.DataFrame()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("marks") / "toy", seeds=(0,), cases=4, upstream=2, methods=4)
    return build_table(Run(folder), "upstream", "dice")


def decided(table, column: int, *, beaten: int, task: str) -> pd.DataFrame:
    """Pairs of one task, in which the best of the column is better than the last `beaten` methods by mean."""
    rows = sorted(table.rows, key=lambda row: -row.columns[column].mean)
    labels = [label_of(row.method) for row in rows]
    losers = set(labels[len(labels) - beaten :])
    return pd.DataFrame(
        {"method_a": b, "method_b": a, "task": task, "better": "b" if (a == labels[0] and b in losers) else ""}
        for a, b in itertools.combinations(labels, 2)
    )


def marks(table, column: int) -> list[str]:
    cells = [(row.columns[column], row.method.title) for row in table.rows]
    return [title for cell, title in sorted(cells, key=lambda item: -item[0].mean) if cell.marked]


def by_mean(table, column: int) -> list[str]:
    return [row.method.title for row in sorted(table.rows, key=lambda row: -row.columns[column].mean)]


def test_the_best_and_what_is_not_distinguishable_from_it_are_marked(table):
    paired = decided(table, 1, beaten=2, task=table.tasks[0].name)
    result = marked(table, paired, NO_CHECKS)
    assert marks(result, 1) == by_mean(table, 1)[:2]
    assert marks(result, 0) == marks(result, 2) == []
    assert "Bold: the best mean Dice of a column and every method that is not distinguishable" in result.marking


def test_the_mean_over_tasks_needs_a_decision_of_its_own(table):
    result = marked(table, decided(table, 0, beaten=3, task=ALL_TASKS), NO_CHECKS)
    assert marks(result, 0) == by_mean(table, 0)[:1]


def test_the_mean_over_the_only_task_has_the_marks_of_that_task(table):
    only = replace(
        table,
        tasks=table.tasks[:1],
        rows=[replace(row, mean=row.cells[0], cells=row.cells[:1]) for row in table.rows],
    )
    result = marked(only, decided(only, 1, beaten=3, task=only.tasks[0].name), NO_CHECKS)
    assert marks(result, 0) == marks(result, 1) == by_mean(only, 1)[:1]


def test_a_column_in_which_nobody_is_distinguishable_has_no_mark(table):
    result = marked(table, decided(table, 1, beaten=0, task=table.tasks[0].name), NO_CHECKS)
    assert marks(result, 1) == []
    assert "No cell is bold: in every column" in result.marking


def test_a_conflicting_comparison_distinguishes_nothing(table):
    paired = decided(table, 1, beaten=3, task=table.tasks[0].name)
    one = paired.index[paired["better"] == "b"][0]
    paired.loc[one, "better"] = "conflicting"
    best, other = (
        next(row.method.title for row in table.rows if label_of(row.method) == label)
        for label in (paired.loc[one, "method_b"], paired.loc[one, "method_a"])
    )
    assert set(marks(marked(table, paired, NO_CHECKS), 1)) == {best, other}


def test_a_pair_that_was_not_compared_leaves_the_column_without_marks(table):
    paired = decided(table, 1, beaten=3, task=table.tasks[0].name)
    assert marks(marked(table, paired.iloc[1:], NO_CHECKS), 1) == []


def test_who_is_not_above_a_weak_control_is_not_marked(table):
    paired = decided(table, 1, beaten=3, task=table.tasks[0].name)
    best = by_mean(table, 1)[0]
    checks = pd.DataFrame({"column": [table.tasks[0].title], "not_better": [[best]]})
    assert marks(marked(table, paired, checks), 1) == []


def test_a_metric_without_decisions_has_no_mark_and_says_so(table):
    result = marked(table, None, NO_CHECKS)
    assert not any(cell.marked for row in result.rows for cell in row.columns)
    assert result.marking.endswith("No cell is bold: methods are not compared by this metric here.")
