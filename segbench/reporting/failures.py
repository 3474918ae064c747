"""Scores that are zero or missing, methods that predict nothing, and tasks that pre-trained models have seen."""

from __future__ import annotations

import pandas as pd

from segbench.core.vocabulary import MISSED_STATUSES, WITHOUT_MASK_STATUSES
from segbench.reporting.frames import named_rows
from segbench.reporting.metrics import about
from segbench.reporting.run import Run
from segbench.reporting.sections import SmallTable

HEAD = ["Method", "Expected rows", "Dice 0", "Without a mask", "Failed or no file", "Without a value", "Skipped"]


def failure_frame(run: Run, experiment: str, metric: str) -> pd.DataFrame:
    """Return one row per method of an experiment: how many of its rows of a metric are zero or without a value.

    Columns: model, initialisation, title, expected, zero (a value of 0, which is the worst only where higher is
    better), without_mask (the prediction is empty, missing or failed although the reference is not), failed (no
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
                "without_mask": int(status.isin(MISSED_STATUSES).sum()),
                "failed": int(status.isin(WITHOUT_MASK_STATUSES).sum()),
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
        f"{int(own['zero_or_empty'].sum()):,} of {expected:,} {about(metric).title} rows of trained methods are 0 or "
        f"without a value: {int(own['without_mask'].sum()):,} structures without a mask, of which "
        f"{int(own['failed'].sum()):,} failed or have no file; {int(own['skipped'].sum()):,} rows were skipped."
    )


def empty_sentences(run: Run, experiment: str) -> list[str]:
    """Name each trained method whose masks are all empty, and the tasks on which that holds.

    A row whose reference and prediction are both empty counts as an empty mask. A method with a failed or missing
    prediction on a task is not named for that task: its masks are not known.
    """
    rows = run.rows[run.rows["experiment"] == experiment]
    rows = rows[rows["status"] != "skipped"]
    sentences = []
    for method in (method for method in run.methods_of(experiment) if method.trained):
        own = rows[(rows["model"] == method.model) & (rows["initialisation"] == method.initialisation)]
        empty = own["status"].isin(("prediction_empty", "both_empty")) | _undefined(own)
        by_task = empty.groupby(own["task"]).all()
        names = [task.title for task in run.tasks(experiment) if by_task.get(task.name, False)]
        if len(names) == len(by_task) > 0:
            sentences.append(f"{method.title} predicts nothing: all its masks are empty.")
        elif names:
            sentences.append(f"{method.title} predicts nothing on {', '.join(names)}: all its masks there are empty.")
    return sentences


def _undefined(rows: pd.DataFrame) -> pd.Series:
    """Return rows of a metric that is not defined where the same structure has an empty prediction by another one."""
    keys = ["task", "case", "structure", "seed"]
    empty = rows[rows["status"].isin(("prediction_empty", "both_empty"))]
    known = pd.MultiIndex.from_frame(empty[keys])
    return (rows["status"] == "not_defined") & pd.MultiIndex.from_frame(rows[keys]).isin(known)


def seen_sentences(run: Run) -> list[str]:
    """Name each downstream task whose data set is an upstream one: pre-trained models have seen images of it."""
    datasets = {
        experiment: part.groupby("task")["dataset"].first().to_dict()
        for experiment, part in run.rows.groupby("experiment")
    }
    upstream, downstream = datasets.get("upstream", {}), datasets.get("downstream", {})
    return [
        f"{task.title} is upstream and downstream: pre-trained models have seen images of it, so that its results are "
        "not transfer to a new task."
        for task in run.record.tasks
        if task.experiment == "downstream"
        and (task.name in upstream or downstream.get(task.name) in set(upstream.values()))
    ]


def failure_table(run: Run, experiment: str, frame: pd.DataFrame, metric: str, csv: str) -> SmallTable:
    """Return the counts of `failure_frame`, one row per method."""
    names = ("expected", "zero", "without_mask", "failed", "without_value", "skipped")
    rows = [[row.title, *(f"{getattr(row, name):,}" for name in names)] for row in named_rows(frame)]
    title = about(metric).title
    head = [name.replace("Dice", title) for name in HEAD]
    return SmallTable(
        f"{experiment.capitalize()} scores that are 0 or missing",
        f"{run.data_word(experiment)}Rows of {title}: one per case, structure and seed. Without a mask: the "
        "structure is in the reference, and the prediction of it is empty, has no file or failed. Without a value: "
        "blank in scores.csv; the legend of the table says what such a row counts as.",
        head,
        rows,
        csv,
    )
