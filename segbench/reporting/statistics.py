"""The statistics of one experiment as the page and its CSV files need them: computed by segbench.stats, named here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from segbench.core.vocabulary import SCRATCH
from segbench.reporting.frames import named_rows
from segbench.reporting.metrics import about
from segbench.reporting.run import Method, Run
from segbench.reporting.tables import Table, direction
from segbench.stats.decision import CONFLICTING, Rule, oriented, winner
from segbench.stats.methods import case_table, countable, method_labels
from segbench.stats.paired import FEW_PATIENTS, detectable_per_task, paired_with_means, variance_split
from segbench.stats.ranking import (
    ALL_TASKS,
    consensus,
    friedman,
    rank_distribution,
    rank_stability,
    rank_table,
)
from segbench.stats.ranking_variants import handling_sensitivity, ranking_variants, ranking_variants_summary
from segbench.stats.recipes import experiment_of

TRIVIAL_BASELINES = ("empty", "mean_shape", "threshold")
"""Controls that every trained method should be above: no mask, the mean shape, one intensity window."""
MEAN_COLUMN = "Mean over tasks"
RESAMPLES = 1000
COVERAGE = ["coverage_low", "coverage_high", "coverage_n"]


@dataclass(frozen=True)
class Statistics:
    """Statistics of the trained methods of one experiment and metric; `titles` maps their labels to method titles."""

    experiment: str
    metric: str
    titles: dict[str, str]
    paired: pd.DataFrame
    ranks: pd.DataFrame
    consensus: pd.DataFrame
    distribution: pd.DataFrame
    stability: pd.DataFrame
    friedman: pd.DataFrame
    ranking_variants: pd.DataFrame
    flips: pd.DataFrame
    sensitivity: pd.DataFrame
    detectable: pd.DataFrame
    variance: pd.DataFrame
    n_seeds: int = 1


def conventions(run: Run, experiment: str) -> list[str]:
    """Return the experiment's metrics by which a ranking of all tasks can be defended: overlaps and distances."""
    return [name for name in run.metrics_of(experiment) if about(name).unit != "ml" and not about(name).lesion_only]


def label_of(method: Method) -> str:
    """Return the name that segbench.stats gives a method."""
    frame = pd.DataFrame({"model": [method.model], "initialisation": [method.initialisation]})
    return method_labels(frame).iloc[0]


def decision_rule(run: Run) -> Rule:
    """Return the decision rule that config names."""
    return run.record.statistics.decision_rule


def trained_rows(run: Run, experiment: str) -> pd.DataFrame:
    """Return the rows of the methods that compete, in table order, so that controls enlarge no family of tests."""
    order = [method.key for method in run.methods_of(experiment) if method.trained]
    rows = run.rows[run.rows["experiment"] == experiment]
    order_of = {key: i for i, key in enumerate(order)}
    positions = pd.Series(
        [order_of.get(key, -1) for key in zip(rows["model"], rows["initialisation"], strict=True)], rows.index
    )
    chosen = rows[positions >= 0]
    return chosen.iloc[np.argsort(positions[positions >= 0].to_numpy(), kind="stable")]


def statistics_of(run: Run, experiment: str, metric: str) -> Statistics | None:
    """Return all statistics; None where there is nothing to compare.

    That is with fewer than two trained methods, and by a metric that is defined for none of them.
    """
    rows = trained_rows(run, experiment)
    titles = {label_of(method): method.title for method in run.methods_of(experiment) if method.trained}
    if rows.groupby(["model", "initialisation"]).ngroups < 2 or countable(rows, metric).empty:
        return None
    options: dict[str, Any] = {"metric": metric, "missing_masks": run.record.missing_masks}
    paired = compared(run, experiment, metric)
    ranks = rank_table(rows, **options, paired=per_task(paired))
    distribution = rank_distribution(rows, **options, resamples=RESAMPLES, seed=run.seed)
    variants = ranking_variants(rows, metrics=conventions(run, experiment), missing_masks=run.record.missing_masks)
    return Statistics(
        experiment=experiment,
        metric=metric,
        titles=titles,
        paired=paired,
        ranks=ranks,
        consensus=consensus(ranks),
        distribution=distribution,
        stability=rank_stability(distribution, confidence=1 - run.alpha),
        friedman=friedman(rows, **options, alpha=run.alpha),
        ranking_variants=variants,
        flips=ranking_variants_summary(variants) if len(variants) else variants,
        sensitivity=handling_sensitivity(rows, **options),
        detectable=detectable_per_task(per_task(paired)),
        variance=variance_split(rows, **options),
        n_seeds=int(rows.groupby(["model", "initialisation"])["seed"].nunique().min()),
    )


def reference_method(run: Run, experiment: str) -> Method | None:
    """Return what universal or pre-trained methods are held against.

    Upstream the model `single_task` (same backbone), or the first single-task one; downstream the start from
    scratch. None when the run has no such method. In a table of other origin it is the one that the user named.
    """
    methods = run.methods_of(experiment)
    if not run.from_jobs:
        return next((method for method in methods if label_of(method) == run.reference), None)
    if experiment_of(experiment) == "downstream":
        return next((method for method in methods if method.initialisation == SCRATCH), None)
    single = [method for method in methods if method.kind == "single_task"]
    return next((method for method in single if method.model == "single_task"), next(iter(single), None))


def compared(run: Run, experiment: str, metric: str) -> pd.DataFrame:
    """Return the paired table of the trained methods: the one table from which a report takes its decisions.

    Rows are tasks and, where a pair shares every task of several, `ALL_TASKS`. `attrs["tasks"]` counts the tasks with a
    value, because there may be several of which one alone was compared.
    """
    rows, reference = trained_rows(run, experiment), reference_method(run, experiment)
    missing_masks = run.record.missing_masks
    values = case_table(rows, metric=metric, missing_masks=missing_masks).notna().any(axis=1)
    paired = paired_with_means(
        rows,
        metric=metric,
        missing_masks=missing_masks,
        alpha=run.alpha,
        rope=run.equivalence.get(metric),
        reference=None if reference is None else label_of(reference),
        rule=decision_rule(run),
        seed=run.seed,
    )
    paired.attrs["tasks"] = int(values.groupby(level="task").any().sum())
    return paired


def per_task(paired: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of single tasks."""
    return paired[paired["task"] != ALL_TASKS] if len(paired) else paired


def over_all_tasks(paired: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that decide on the mean over tasks: those of all tasks, or of the only task that has values."""
    if paired.empty:
        return paired
    tasks = paired.attrs.get("tasks", paired["task"].nunique())
    return paired if tasks == 1 else paired[paired["task"] == ALL_TASKS]


def outcome(paired: pd.DataFrame, first: str, second: str) -> str | None:
    """Return who is better over tasks: a label, CONFLICTING, '' where no difference is shown, None where not tested."""
    own = over_all_tasks(paired)
    own = own[[{row.method_a, row.method_b} == {first, second} for row in named_rows(own)]]
    if own.empty:
        return None
    row = own.iloc[0]
    return CONFLICTING if row["better"] == CONFLICTING else winner(row)


def against_leader(paired: pd.DataFrame, labels: list[str]) -> dict[str, list[str]]:
    """Return outcome -> the methods of which it holds when the first method is compared with each of the others.

    Args:
        paired: the table of `compared`.
        labels: the methods by their mean over tasks, best first.

    Returns:
        Keys are a label (who is better), '' (not distinguishable) and CONFLICTING; empty when a pair was not tested
        over tasks. Two methods that are not distinguishable from the first may be distinguishable from one another, so
        these are no groups of equal methods.
    """
    leader, *others = labels
    found: dict[str, list[str]] = {}
    for other in others:
        word = outcome(paired, leader, other)
        if word is None:
            return {}
        found.setdefault(word, []).append(other)
    return found


def differences(run: Run, experiment: str, metric: str, paired: pd.DataFrame) -> pd.DataFrame:
    """Return challenger minus reference per task and over tasks, positive where the challenger is better.

    Columns: label, title, task, column (what the plot prints), difference, low, high, n_patients, p_holm, transfer,
    coverage_low, coverage_high, coverage_n (measured coverage of low to high).
    Challengers are universal models upstream and pre-trained ones downstream. Empty without a pair. `paired` is the
    table of `compared`; an empty one where nothing was compared.
    """
    reference = reference_method(run, experiment)
    challengers = [
        method
        for method in run.methods_of(experiment)
        if method.kind in ("universal", "transfer", *(() if run.from_jobs else ("external",))) and method != reference
    ]
    if reference is not None and reference.kind == "transfer":  # other networks have a control of their own
        challengers = [method for method in challengers if method.model == reference.model]
    if reference is None or not challengers or paired.empty:
        return pd.DataFrame()
    tasks = {task.name: task.title for task in run.tasks(experiment)}
    parts = [
        against(paired, method, reference, tasks, sign=-direction(metric))
        for method in challengers
        if len(oriented(paired, label_of(method), label_of(reference)))
    ]
    names = ["label", "title", "task", "column", "difference", "low", "high", "n_patients", "p_holm", "transfer"]
    names += COVERAGE
    return pd.concat(parts, ignore_index=True)[names] if parts else pd.DataFrame()


def against(
    paired: pd.DataFrame, method: Method, reference: Method, tasks: dict[str, str], *, sign: int
) -> pd.DataFrame:
    """Return one method minus another: the mean over tasks first, then the tasks; columns as in `differences`.

    The mean is NaN, and `transfer` is '', where the pair does not share every task.

    Args:
        paired: the table of `compared`; it must hold the pair.
        method: the method that a positive difference speaks for.
        reference: the other one.
        tasks: name -> title, in table order.
        sign: 1 where large values of the metric are good, otherwise -1.
    """
    words = {"a": "positive", "b": "negative", CONFLICTING: CONFLICTING, "": "not shown"}
    pair = (label_of(method), label_of(reference))
    names = ["difference", "low", "high", "p_holm", "better", *COVERAGE]
    mean = over_tasks(paired, *pair)[names].to_frame().T.infer_objects().assign(task="", column=MEAN_COLUMN)
    own = oriented(per_task(paired), *pair).set_index("task").reindex(list(tasks))
    own = own.dropna(subset=["difference"]).reset_index()
    table = pd.concat([mean, own.assign(column=own["task"].map(tasks))], ignore_index=True)
    table = table.assign(transfer=table["better"].map(words).fillna(""))
    low, high = (table["low"], table["high"]) if sign > 0 else (-table["high"], -table["low"])
    return table.assign(
        label=label_of(method), title=method.title, difference=sign * table["difference"], low=low, high=high
    )


def over_tasks(paired: pd.DataFrame, first: str, second: str) -> pd.Series:
    """Return the row that decides on first minus second over tasks, whichever way round the table holds it.

    NaN in every column where the pair does not share every task: a mean over fewer tasks is another comparison.
    """
    return oriented(over_all_tasks(paired), first, second).reset_index(drop=True).reindex([0]).iloc[0]


def few_patients(paired: pd.DataFrame) -> bool:
    """Return whether a task has so few patients that its ranks say nothing about other patients."""
    return len(paired) > 0 and bool((per_task(paired)["n_patients"] <= FEW_PATIENTS).any())


def beaten_by_controls(table: Table) -> pd.DataFrame:
    """Return per column (mean, then tasks) the best trivial baseline and the trained methods whose mean is not above.

    Columns: column, control, control_value, not_better (list of titles), n_methods. Empty without such a control.
    """
    trivial = [row for row in table.rows if row.method.kind == "control" and row.method.model in TRIVIAL_BASELINES]
    trained = [row for row in table.rows if row.method.trained]
    sign = direction(table.metric)
    records = []
    for i, name in enumerate([MEAN_COLUMN, *(task.title for task in table.tasks)]):
        scored_controls = [(row, cell) for row in trivial if np.isfinite((cell := [row.mean, *row.cells][i]).mean)]
        if not scored_controls:
            continue
        best, cell = min(scored_controls, key=lambda item: item[1].mean * sign)
        cells = [(row.method.title, [row.mean, *row.cells][i]) for row in trained]
        scored = [(title, own) for title, own in cells if np.isfinite(own.mean)]
        losers = [title for title, own in scored if own.mean * sign >= cell.mean * sign]
        records.append(
            {
                "column": name,
                "control": best.method.title,
                "control_value": cell.mean,
                "not_better": losers,
                "n_methods": len(scored),
            }
        )
    return pd.DataFrame.from_records(records)
