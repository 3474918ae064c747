"""The best mean of every task beside the next one: by how much, how sure, and what the best one cost."""

from __future__ import annotations

import pandas as pd

from segbench.reporting.figures import method_costs
from segbench.reporting.metrics import about
from segbench.reporting.run import Run
from segbench.reporting.sections import SmallTable
from segbench.reporting.sentences import decision_word, p_text, seconds_text, tasks_text
from segbench.reporting.statistics import against, label_of
from segbench.reporting.tables import DASH, Row, Table, comparable, direction, interval_text, points, shown, unit_of
from segbench.stats.decision import oriented

HEAD = [
    "Task",
    "Best mean",
    "Value",
    "Next",
    "Next value",
    "Difference",
    "Interval",
    "Holm p",
    "Decision",
    "Training, all tasks",
    "Prediction per case",
]


def task_leaders(run: Run, table: Table, paired: pd.DataFrame | None, checks: pd.DataFrame) -> SmallTable | None:
    """Return one row per task with two comparable methods; None without such a task or without a comparison.

    Args:
        run: the run.
        table: the table of one experiment and metric.
        paired: the decisions of that metric (`statistics.compared`); None when nothing was compared.
        checks: what `beaten_by_controls` returns for the same table.
    """
    if paired is None:
        return None
    costs = method_costs(run, table.experiment).set_index("key")
    controls = {row["column"]: row for _, row in checks.iterrows()}
    rows, decided, below = [], 0, 0
    for i, task in enumerate(table.tasks):
        ranked = [row for row in table.rows if comparable(row.method, row.cells[i])]
        ranked = sorted(ranked, key=lambda row: row.cells[i].mean * direction(table.metric))
        if len(ranked) < 2:
            continue
        best, other = ranked[:2]
        word, texts = _against(table, paired, best, other, task.name)
        decided += word == "better"
        control = controls.get(task.title)
        if control is not None and best.method.title in control["not_better"]:
            word = f"not above {control['control']}"
            below += 1
        known = best.method.key in costs.index
        rows.append(
            [
                task.title,
                best.method.title,
                shown(table.metric, best.cells[i].mean),
                other.method.title,
                shown(table.metric, other.cells[i].mean),
                *texts,
                word,
                seconds_text(costs.loc[[best.method.key], "train_seconds"].iloc[0]) if known else DASH,
                seconds_text(costs.loc[[best.method.key], "predict_seconds"].iloc[0]) if known else DASH,
            ]
        )
    if not rows:
        return None
    return SmallTable(
        "Best by task",
        f"{run.data_word(table.experiment)}Best and next mean {about(table.metric).title} ({unit_of(table.metric)}) of "
        f"trained methods; difference in {points(table.metric)} with {run.level} interval, patients paired; decision "
        "on the best mean by the decision rule of this report; cost of the method with the best mean.",
        HEAD,
        rows,
        conclusion=f"The best mean is distinguishable from the next on {decided} of {tasks_text(len(rows))}"
        + (f", and not above a trivial baseline on {below}." if below else "."),
    )


def _against(table: Table, paired: pd.DataFrame, best: Row, other: Row, task: str) -> tuple[str, list[str]]:
    """Return the decision on the best method and difference, interval and p as texts."""
    if oriented(paired, label_of(best.method), label_of(other.method)).empty:
        return decision_word(""), [DASH, DASH, DASH]
    found = against(paired, best.method, other.method, {task: task}, sign=-direction(table.metric))
    found = found[found["task"] == task]
    if found.empty:
        return decision_word(""), [DASH, DASH, DASH]
    row, metric = found.iloc[0], table.metric
    limits = interval_text(metric, row["low"], row["high"], sign=True)
    return decision_word(row["transfer"]), [shown(metric, row["difference"], sign=True), limits, p_text(row["p_holm"])]
