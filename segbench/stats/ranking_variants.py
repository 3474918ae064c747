"""The ranking multiverse: every defensible way to turn the same scores into a winner.

Choices: metric convention, policy for empty and missing masks, aggregation, one task left out, protocol. A universe is
one combination; the table says who wins there, and the summary which choice alone flips the winner.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from segbench.core.vocabulary import POLICY_STATUSES
from segbench.stats.methods import case_table, method_labels
from segbench.stats.missing_masks import Policy, apply_policies, lower_is_better, policy_of
from segbench.stats.ranking import rank_methods

CHOICES = ["metric", "policy", "aggregation", "left_out", "protocol"]
TASKS = ["n_tasks", "n_tasks_expected"]
NONE_LEFT_OUT = "none"
DEFAULT_AGGREGATION = "mean of task means"


def policy_variants(metric: str, policies: Mapping[str, Policy] | None) -> dict[str, Policy]:
    """Return name -> policy: as stated; empty and missing excluded; missing and failed excluded; every empty a miss."""
    stated = policy_of(metric, policies)
    excluded = dict.fromkeys(POLICY_STATUSES, "exclude")
    variants: dict[str, Policy] = {"as stated": stated, "empty and missing excluded": excluded}
    variants["missing and failed excluded"] = {**stated, "prediction_missing": "exclude", "failed": "exclude"}
    numbers = [value for value in stated.values() if value != "exclude"]
    if numbers:
        worst = max(numbers) if lower_is_better(metric) else min(numbers)
        variants["every empty mask counts as a miss"] = dict.fromkeys(POLICY_STATUSES, worst)
    return variants


def task_matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Return the means (task x method) of a case table: mean over structures of per-structure means over cases."""
    return table.groupby(level=["task", "structure"]).mean().groupby(level="task").mean()


def _rank_first(table: pd.DataFrame, lower: bool) -> pd.DataFrame:
    ranks = table.copy()
    ranks[:] = rank_methods(table.to_numpy(), lower_is_better=lower, axis=1)
    return ranks


def aggregate_table(table: pd.DataFrame, aggregation: str, *, lower: bool) -> pd.Series:
    """Return one figure per method, smaller or larger is better as `figure_is_rank` and the metric say."""
    if aggregation == DEFAULT_AGGREGATION:
        return task_matrix(table).mean(skipna=False)
    if aggregation == "mean of task ranks":
        return _rank_first(task_matrix(table), lower).mean(skipna=False)
    if aggregation == "mean over all cases":
        return table.groupby(level=["task", "case"]).mean().mean()
    if aggregation == "mean of case ranks":
        per_case = _rank_first(table.groupby(level=["task", "case"]).mean(), lower)
        return per_case.groupby(level="task").mean().mean(skipna=False)
    assert aggregation == "median of cases"
    return table.groupby(level=["task", "case"]).mean().groupby(level="task").median().mean(skipna=False)


AGGREGATIONS = (
    DEFAULT_AGGREGATION,
    "mean of task ranks",
    "mean over all cases",
    "mean of case ranks",
    "median of cases",
)


def multiverse(
    rows: pd.DataFrame,
    *,
    metrics: Sequence[str],
    policies: Mapping[str, Policy] | None = None,
    aggregations: Sequence[str] = AGGREGATIONS,
) -> pd.DataFrame:
    """Return one row per (experiment, universe, method): the five choices, figure, rank, winner, `default`.

    The default universe is the first metric, the stated policy, the mean of task means, no task left out and the first
    protocol. A metric that is defined for nobody on some task (nominal spacing) ranks over the others: `n_tasks` of
    `n_tasks_expected` says over how many. Methods without a value on every one of these take no part. Ties share the
    better rank. Protocols are a choice where a task has rows of several; one for each task is one way of evaluating.
    """
    if (rows.groupby(["experiment", "task"])["protocol"].nunique() == 1).all():
        rows = rows.assign(protocol=" + ".join(rows["protocol"].unique()))
    records: list[dict] = []
    for experiment, protocol, metric in itertools.product(
        rows["experiment"].unique(), rows["protocol"].unique(), metrics
    ):
        part = rows[(rows["experiment"] == experiment) & (rows["protocol"] == protocol)]
        if (part["metric"] == metric).any():
            key = {"experiment": experiment, "metric": metric, "protocol": protocol}
            records += [key | record for record in _universes(part, metric, policies, aggregations)]
    table = pd.DataFrame.from_records(records)
    if table.empty:
        return table
    defaults = {
        "metric": metrics[0],
        "policy": "as stated",
        "aggregation": aggregations[0],
        "left_out": NONE_LEFT_OUT,
        "protocol": rows["protocol"].iloc[0],
    }
    table["default"] = np.logical_and.reduce([table[name] == value for name, value in defaults.items()])
    table["winner"] = table["rank"] == 1
    return table[
        ["experiment", *CHOICES, "default", "method", "figure", "rank", "winner", "n_tasks", "n_tasks_expected"]
    ]


def _universes(
    part: pd.DataFrame, metric: str, policies: Mapping[str, Policy] | None, aggregations: Sequence[str]
) -> list[dict]:
    lower, expected = lower_is_better(metric), part["task"].nunique()
    records = []
    for name, policy in policy_variants(metric, policies).items():
        table = _served_everywhere(case_table(part, metric=metric, policies={metric: policy}))
        tasks = table.index.get_level_values("task")
        left_out = [NONE_LEFT_OUT, *(tasks.unique() if tasks.nunique() > 1 else [])]
        for task, aggregation in itertools.product(left_out, aggregations):
            figures = aggregate_table(table[tasks != task], aggregation, lower=lower).dropna()
            signed = figures if lower or "rank" in aggregation else -figures
            ranks = signed.round(12).rank(method="min").astype(int)
            choices = {
                "policy": name,
                "aggregation": aggregation,
                "left_out": task,
                "n_tasks_expected": expected,
                "n_tasks": tasks[tasks != task].nunique(),
            }
            records += [
                choices | {"method": method, "figure": figures[method], "rank": ranks[method]}
                for method in figures.index
            ]
    return records


def _served_everywhere(table: pd.DataFrame) -> pd.DataFrame:
    """The methods that have a value on every task that some method has a value on."""
    by_task = table.notna().groupby(level="task").any()
    served = by_task[by_task.any(axis=1)].all()
    return table.loc[:, served]


def multiverse_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return per (experiment, choice, value): how often the winner differs from the default universe's.

    `winner_changes` is the fraction of universes with this value whose winner differs; `flips_alone` says whether the
    winner differs when this choice alone departs from the default, `winner_alone` who wins then. `tasks` says over how
    many tasks of the experiment these universes rank at most. The row (choice 'any') counts all universes. A tie for
    the first place counts as changed when the default winner has no part in it.
    """
    records = []
    for experiment, part in table.groupby("experiment", sort=False):
        winners = part[part["winner"]].groupby([*CHOICES, *TASKS], sort=False)["method"]
        universes = winners.agg(tuple).reset_index(name="winners")
        first = part[part["default"]]
        champion = tuple(first.loc[first["winner"], "method"])
        universes["changed"] = [not set(champion) & set(winners) for winners in universes["winners"]]
        universes["departures"] = sum((universes[name] != first[name].iloc[0]).astype(int) for name in CHOICES)
        base = {"experiment": experiment, "default_winner": " and ".join(champion)}
        records.append(base | {"choice": "any", "value": "all universes", **_changes(universes)})
        for choice in CHOICES:
            for value, chosen in universes.groupby(choice, sort=False):
                alone = chosen[(chosen["departures"] == 1) & (chosen[choice] != first[choice].iloc[0])]
                records.append(base | {"choice": choice, "value": value, **_changes(chosen), **_alone(alone)})
    return pd.DataFrame.from_records(records)


def _changes(universes: pd.DataFrame) -> dict[str, float]:
    ranked, expected = (int(universes[name].max()) for name in TASKS)
    return {
        "universes": len(universes),
        "winner_changes": float(universes["changed"].mean()),
        "tasks": f"{ranked} of {expected}",
    }


def _alone(alone: pd.DataFrame) -> dict[str, object]:
    if alone.empty:
        return {"flips_alone": "", "winner_alone": ""}
    row = alone.iloc[0]
    return {"flips_alone": "yes" if row["changed"] else "no", "winner_alone": " and ".join(row["winners"])}


def policy_sensitivity(
    rows: pd.DataFrame, *, metric: str, policies: Mapping[str, Policy] | None = None
) -> pd.DataFrame:
    """Return the ranking under each policy: rows (experiment, policy, method, figure, rank, n_scored, n_expected)."""
    parts = []
    for experiment, part in rows[rows["metric"] == metric].groupby("experiment", sort=False):
        for name, policy in policy_variants(metric, policies).items():
            table = case_table(part, metric=metric, policies={metric: policy})
            figures = task_matrix(table).mean(skipna=False)
            ranks = rank_methods(figures.round(12).to_numpy(), lower_is_better=lower_is_better(metric))
            counted = apply_policies(part, {metric: policy})["counted"].groupby(method_labels(part))
            ranked = pd.DataFrame({"method": figures.index, "figure": figures.to_numpy(), "rank": ranks})
            ranked["n_scored"] = counted.sum().reindex(figures.index).to_numpy()
            ranked["n_expected"] = counted.size().reindex(figures.index).to_numpy()
            ranked.insert(0, "policy", name)
            ranked.insert(0, "metric", metric)
            ranked.insert(0, "experiment", experiment)
            parts.append(ranked)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
