"""Scores that are zero or missing, counted per method, and the cases on which every method scores worst."""

from __future__ import annotations

import pandas as pd

from segbench.core.metric_facts import METRICS
from segbench.reporting.run import Run
from segbench.reporting.sections import SmallTable
from segbench.reporting.tables import MISSED, Table, shown, unit_of
from segbench.stats.aggregate import apply_handling

HEAD = ["Method", "Expected rows", "Dice 0", "Missed structure", "Failed or no file", "Without a value", "Skipped"]
HARDEST = 10


def failure_frame(run: Run, experiment: str, metric: str) -> pd.DataFrame:
    """Return one row per method of an experiment: how many of its rows of a metric are zero or without a value.

    Columns: model, initialisation, title, expected, zero (a value of 0, which is the worst only where higher is
    better), missed (the prediction is empty, missing or failed although the reference is not empty), failed (no
    prediction), without_value (rows whose value is blank, without skipped ones and without those where prediction and
    reference are both empty, which is right), skipped, zero_or_empty (rows that are zero or without a value).
    """
    rows = run.rows[(run.rows["experiment"] == experiment) & (run.rows["metric"] == metric)]
    records = []
    for method in run.methods_of(experiment):
        own = rows[(rows["model"] == method.model) & (rows["initialisation"] == method.initialisation)]
        status, value = own["status"], own["value"]
        blank = value.isna() & ~status.isin(("skipped", "both_empty"))
        records.append(
            {
                "model": method.model,
                "initialisation": method.initialisation,
                "title": method.title,
                "expected": len(own),
                "zero": int((value == 0).sum()),
                "missed": int(status.isin(MISSED).sum()),
                "failed": int(status.isin(("failed", "prediction_missing")).sum()),
                "without_value": int(blank.sum()),
                "skipped": int((status == "skipped").sum()),
                "zero_or_empty": int(((value == 0) | blank).sum()),
            }
        )
    return pd.DataFrame.from_records(records)


def failure_sentence(run: Run, frame: pd.DataFrame, metric: str) -> str:
    """Return how many rows of the trained methods are zero or without a value, in one sentence."""
    trained = {method.key for method in run.methods if method.trained}
    own = frame[[key in trained for key in zip(frame["model"], frame["initialisation"], strict=True)]]
    expected = int(own["expected"].sum())
    if not expected:
        return ""
    return (
        f"{int(own['zero_or_empty'].sum()):,} of {expected:,} {METRICS[metric].title} rows of trained methods are 0 or "
        f"without a value: {int(own['missed'].sum()):,} missed structures, of which {int(own['failed'].sum()):,} "
        f"failed or have no file; {int(own['skipped'].sum()):,} rows were skipped."
    )


def failure_table(run: Run, experiment: str, frame: pd.DataFrame, metric: str, csv: str) -> SmallTable:
    """Return the counts of `failure_frame`, one row per method."""
    names = ("expected", "zero", "missed", "failed", "without_value", "skipped")
    rows = [[row.title, *(f"{getattr(row, name):,}" for name in names)] for row in frame.itertuples()]
    title = METRICS[metric].title
    head = [name.replace("Dice", title) for name in HEAD]
    return SmallTable(
        f"{experiment.capitalize()} scores that are 0 or missing",
        f"{run.data_word(experiment)}Rows of {title}: one per case, structure and seed. A missed structure is in the "
        "reference, and the prediction of it is empty, has no file or failed. Without a value: blank in scores.csv; "
        "the legend of the table says what such a row counts as.",
        head,
        rows,
        csv,
    )


def hardest_cases(run: Run, table: Table) -> SmallTable | None:
    """Return the cases on which the best trained method scores worst; None when no case has a value."""
    trained = {method.key: method.title for method in run.methods_of(table.experiment) if method.trained}
    rows = run.rows[(run.rows["experiment"] == table.experiment) & (run.rows["metric"] == table.metric)]
    rows = apply_handling(rows, run.record.missing_masks)
    keep = [key in trained for key in zip(rows["model"], rows["initialisation"], strict=True)]
    rows = rows[rows["counted"] & pd.Series(keep, rows.index)]
    if rows.empty:
        return None
    values = rows.groupby(["task", "case", "model", "initialisation"], sort=True)["scored"].mean().reset_index()
    lower = METRICS[table.metric].better == "lower"
    values["worse"] = values["scored"] * (1 if lower else -1)
    best = values.sort_values("worse", kind="stable").groupby(["task", "case"], sort=True).first().reset_index()
    worst = best.sort_values("worse", ascending=False, kind="stable").head(HARDEST)
    titles = {task.name: task.title for task in table.tasks}
    counts = values.groupby(["task", "case"]).size()
    return SmallTable(
        f"{table.experiment.capitalize()} cases on which every method scores badly",
        f"{run.data_word(table.experiment)}The {len(worst)} cases whose best {METRICS[table.metric].title} "
        f"({unit_of(table.metric)}) of all trained methods is worst; mean over structures and seeds, empty and missing "
        "masks counted as in the table.",
        ["Case", "Task", "Best value", "By", "Methods"],
        [
            [
                row.case,
                titles[row.task],
                shown(table.metric, row.scored),
                trained[row.model, row.initialisation],
                str(counts[row.task, row.case]),
            ]
            for row in worst.itertuples()
        ],
    )
