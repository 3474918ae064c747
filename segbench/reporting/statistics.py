"""The statistics of one experiment as the page and its CSV files need them: computed by segbench.stats, named here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from segbench.core.metric_facts import METRICS
from segbench.reporting.run import Method, Run
from segbench.reporting.tables import Table, direction
from segbench.stats.decision import CONFLICTING, Rule, oriented
from segbench.stats.methods import method_labels
from segbench.stats.paired import detectable_per_task, paired_table, variance_split
from segbench.stats.ranking import (
    consensus,
    friedman,
    rank_distribution,
    rank_stability,
    rank_table,
)
from segbench.stats.ranking_variants import handling_sensitivity, ranking_variants, ranking_variants_summary

WEAK_CONTROLS = ("empty", "mean_shape", "threshold")
MEAN_COLUMN = "Mean over tasks"
RESAMPLES = 1000


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


def conventions(run: Run) -> list[str]:
    """Return the run's metrics by which a ranking of all tasks can be defended: overlaps and distances."""
    return [name for name in run.metrics if METRICS[name].unit != "ml" and not METRICS[name].lesion_only]


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
    place = {key: i for i, key in enumerate(order)}
    positions = pd.Series(
        [place.get(key, -1) for key in zip(rows["model"], rows["initialisation"], strict=True)], rows.index
    )
    chosen = rows[positions >= 0]
    return chosen.iloc[np.argsort(positions[positions >= 0].to_numpy(), kind="stable")]


def statistics_of(run: Run, experiment: str, metric: str) -> Statistics | None:
    """Return all statistics; None with fewer than two trained methods, where there is nothing to compare."""
    rows = trained_rows(run, experiment)
    titles = {label_of(method): method.title for method in run.methods_of(experiment) if method.trained}
    if rows.groupby(["model", "initialisation"]).ngroups < 2:
        return None
    options = {"metric": metric, "missing_masks": run.record.missing_masks}
    reference = reference_method(run, experiment)
    paired = paired_table(
        rows, **options, reference=None if reference is None else label_of(reference), rule=decision_rule(run)
    )
    ranks = rank_table(rows, **options, paired=paired)
    distribution = rank_distribution(rows, **options, resamples=RESAMPLES)
    variants = ranking_variants(rows, metrics=conventions(run), missing_masks=run.record.missing_masks)
    return Statistics(
        experiment=experiment,
        metric=metric,
        titles=titles,
        paired=paired,
        ranks=ranks,
        consensus=consensus(ranks),
        distribution=distribution,
        stability=rank_stability(distribution),
        friedman=friedman(rows, **options),
        ranking_variants=variants,
        flips=ranking_variants_summary(variants) if len(variants) else variants,
        sensitivity=handling_sensitivity(rows, **options),
        detectable=detectable_per_task(paired),
        variance=variance_split(rows, **options),
        n_seeds=int(rows.groupby(["model", "initialisation"])["seed"].nunique().min()),
    )


def reference_method(run: Run, experiment: str) -> Method | None:
    """Return what universal or pre-trained methods are held against.

    Upstream the model `single_task` (same backbone), or the first single-task one; downstream the start from
    scratch. None when the run has no such method.
    """
    methods = run.methods_of(experiment)
    if experiment == "downstream":
        return next((method for method in methods if method.initialisation == "scratch"), None)
    single = [method for method in methods if method.kind == "single_task"]
    return next((method for method in single if method.model == "single_task"), next(iter(single), None))


def differences(run: Run, experiment: str, metric: str) -> pd.DataFrame:
    """Return challenger minus reference per task and over tasks, positive where the challenger is better.

    Columns: label, title, task, column (what the figure prints), difference, low, high, n_patients, p_holm, transfer.
    Challengers are universal models upstream and pre-trained ones downstream. Empty without a pair.
    """
    reference = reference_method(run, experiment)
    challengers = [m for m in run.methods_of(experiment) if m.kind in ("universal", "transfer") and m != reference]
    if reference is None or not challengers:
        return pd.DataFrame()
    table = _against(run, experiment, metric, reference, challengers)
    if table.empty:
        return table
    sign = -direction(metric)
    low, high = (table["low"], table["high"]) if sign > 0 else (-table["high"], -table["low"])
    table = table.assign(difference=sign * table["difference"], low=low, high=high)
    tasks = {task.name: task.title for task in run.tasks(experiment)}
    parts = []
    for method in challengers:
        own = (
            table[table["label"] == label_of(method)]
            .set_index("task")
            .reindex(tasks)
            .dropna(subset=["label"])
            .reset_index()
        )
        own = own.assign(title=method.title, column=own["task"].map(tasks))
        mean = over_tasks(own) | {"label": label_of(method), "title": method.title, "task": "", "column": MEAN_COLUMN}
        parts.append(pd.concat([pd.DataFrame([mean]), own], ignore_index=True))
    names = ["label", "title", "task", "column", "difference", "low", "high", "n_patients", "p_holm", "transfer"]
    return pd.concat(parts, ignore_index=True)[names]


def _against(run: Run, experiment: str, metric: str, reference: Method, challengers: list[Method]) -> pd.DataFrame:
    """Rows of the challengers in the primary family: every trained method against the reference on every task."""
    others = [method for method in run.methods_of(experiment) if method.trained and method != reference]
    pairs = [(label_of(method), label_of(reference)) for method in others]
    rows = trained_rows(run, experiment)
    table = paired_table(
        rows,
        metric=metric,
        missing_masks=run.record.missing_masks,
        pairs=pairs,
        reference=label_of(reference),
        rule=decision_rule(run),
    )
    if table.empty:
        return table
    words = {"a": "positive", "b": "negative", CONFLICTING: CONFLICTING, "": "not shown"}
    table = table[table["method_a"].isin([label_of(method) for method in challengers])]
    return table.assign(label=table["method_a"], transfer=table["better"].map(words))


def over_tasks(table: pd.DataFrame) -> dict[str, float]:
    """Return the unweighted mean of `difference` over tasks with limits.

    Tasks have different patients, so distances from the differences to their limits add in squares (Zou and Donner
    2008). A task without an interval leaves the mean without one.
    """
    seen = table.dropna(subset=["difference"])
    if seen.empty:
        return {"difference": np.nan, "low": np.nan, "high": np.nan}
    mean, count = seen["difference"].mean(), len(seen)
    below = np.sqrt(((seen["difference"] - seen["low"]) ** 2).sum(skipna=False)) / count
    above = np.sqrt(((seen["high"] - seen["difference"]) ** 2).sum(skipna=False)) / count
    return {"difference": mean, "low": mean - below, "high": mean + above}


def pair_over_tasks(statistics: Statistics, first: str, second: str) -> dict[str, float]:
    """Return first minus second over tasks (see `over_tasks`), from the paired table whichever way round it is."""
    return over_tasks(oriented(statistics.paired, first, second))


def beaten_by_controls(table: Table) -> pd.DataFrame:
    """Return per column (mean, then tasks) the best weak control and the trained methods that do not beat it.

    Weak controls are an empty prediction, the mean shape and the best intensity window. Columns: column, control,
    control_value, not_better (list of titles), n_methods. Empty without such a control.
    """
    weak = [row for row in table.rows if row.method.kind == "control" and row.method.model in WEAK_CONTROLS]
    trained = [row for row in table.rows if row.method.trained]
    sign = direction(table.metric)
    records = []
    for i, name in enumerate([MEAN_COLUMN, *(task.title for task in table.tasks)]):
        floor = [(row, cell) for row in weak if np.isfinite((cell := [row.mean, *row.cells][i]).mean)]
        if not floor:
            continue
        best, cell = min(floor, key=lambda item: item[1].mean * sign)
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
