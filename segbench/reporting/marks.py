"""Which cells of a table are printed in bold: only what the decision rule of the report says, never a mean alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pandas as pd

from segbench.reporting.frames import named_rows
from segbench.reporting.metrics import about
from segbench.reporting.statistics import label_of, over_all_tasks, per_task
from segbench.reporting.tables import Row, Table, comparable, direction
from segbench.stats.ranking import ALL_TASKS


def marked(table: Table, paired: pd.DataFrame | None, checks: pd.DataFrame) -> Table:
    """Return the table with its marks and a legend that says what they mean.

    In a column the method with the best mean is marked together with every method that is not distinguishable from it.
    A column has no mark when a pair was not compared, when no method is distinguishable from the best, or when a
    trivial baseline is at least as good as the best.

    Args:
        table: the table without marks.
        paired: one row per pair and task with the columns method_a, method_b, task and better ('a', 'b', or anything
            else where no method is named), as segbench.stats decides; rows of the task `ALL_TASKS`, or of
            the only task, decide on the mean. None when nothing was compared.
        checks: what `beaten_by_controls` returns: columns column and not_better.
    """
    decisions = _decisions(table, paired)
    beaten = dict(zip(checks["column"], checks["not_better"], strict=True)) if len(checks) else {}
    tasks = [ALL_TASKS, *(task.name for task in table.tasks)]
    chosen = [
        _column(table, i, decisions.get(task, {}), beaten.get(head, ()))
        for i, (task, head) in enumerate(zip(tasks, table.heads, strict=True))
    ]
    rows = [
        Row(row.method, *_split([replace(cell, marked=y in chosen[i]) for i, cell in enumerate(row.columns)]))
        for y, row in enumerate(table.rows)
    ]
    return replace(table, rows=rows, marking=_meaning(table, paired, any(chosen)))


def _split(cells: list) -> tuple:
    return cells[0], cells[1:]


def _decisions(table: Table, paired: pd.DataFrame | None) -> dict[str, dict[tuple[str, str], str]]:
    """Return task -> (method, other) -> the label of the better one, '' where the two are not distinguishable.

    Where one task has values, its decisions are those on the mean over tasks too.
    """
    found: dict[str, dict[tuple[str, str], str]] = {}
    if paired is None:
        return found
    if sum(any(np.isfinite(row.cells[i].mean) for row in table.rows) for i in range(len(table.tasks))) == 1:
        paired = pd.concat([per_task(paired), over_all_tasks(paired).assign(task=ALL_TASKS)])
    for row in named_rows(paired):
        better = {"a": row.method_a, "b": row.method_b}.get(row.better, "")
        pairs = found.setdefault(row.task, {})
        pairs[row.method_a, row.method_b] = pairs[row.method_b, row.method_a] = better
    return found


def _column(table: Table, column: int, decisions: dict[tuple[str, str], str], beaten: Collection[str]) -> set[int]:
    """Return the positions of the rows that are marked in one column."""
    cells = {y: row.columns[column] for y, row in enumerate(table.rows) if comparable(row.method, row.columns[column])}
    if len(cells) < 2:
        return set()
    best = min(cells, key=lambda y: cells[y].mean * direction(table.metric))
    if table.rows[best].method.title in beaten:
        return set()
    labels = {y: label_of(table.rows[y].method) for y in cells}
    others = [decisions.get((labels[best], labels[y])) for y in cells if y != best]
    if None in others or labels[best] not in others:
        return set()
    return {y for y in cells if y == best or decisions[labels[best], labels[y]] != labels[best]}


def _meaning(table: Table, paired: pd.DataFrame | None, any_mark: bool) -> str:
    if paired is None:
        return "No cell is bold: methods are not compared by this metric here."
    title = about(table.metric).title
    if not any_mark:
        return (
            f"No cell is bold: in every column no method is distinguishable from the one with the best mean {title}, "
            "or a trivial baseline is at least as good as it."
        )
    return (
        f"Bold: the best mean {title} of a column and every method that is not distinguishable from it by the decision "
        "rule of this report. A column without bold names no better method."
    )
