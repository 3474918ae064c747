"""Ranking variants: every defensible way to turn the same scores into a winner.

Choices: metric convention, handling for empty and missing masks, aggregation, one task left out, protocol. A variant is
one combination; the table says who wins there, and the summary which choice alone flips the winner.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from segbench.core.vocabulary import HANDLED_STATUSES, WITHOUT_MASK_STATUSES
from segbench.stats.methods import case_table, countable, method_labels, without_noise
from segbench.stats.missing_masks import Handling, apply_handling, handling_of, lower_is_better
from segbench.stats.ranking import rank_methods

CHOICES = ["metric", "handling", "aggregation", "left_out", "protocol"]
TASKS = ["n_tasks", "n_tasks_expected"]
NONE_LEFT_OUT = "none"
DEFAULT_AGGREGATION = "mean of task means"


def handling_variants(
    metric: str, missing_masks: Mapping[str, Handling] | None, rows: pd.DataFrame
) -> dict[str, Handling]:
    """Return name -> handling: as stated, empties excluded, missing excluded, every empty counted as missed.

    Without the last one where `rows`, those of the metric, do not state the diagonal that a missed one counts as.
    """
    stated = handling_of(metric, missing_masks)
    excluded: Literal["exclude"] = "exclude"
    variants: dict[str, Handling] = {
        "as stated": stated,
        "empty and missing excluded": dict.fromkeys(HANDLED_STATUSES, excluded),
    }
    variants["missing and failed excluded"] = {**stated, **dict.fromkeys(WITHOUT_MASK_STATUSES, excluded)}
    if "diagonal" in stated.values():
        known = rows.groupby(["task", "case"])["diagonal_mm"].transform("max").notna()
        if known[rows["status"].isin(HANDLED_STATUSES)].all():
            variants["every empty mask counts as missed"] = dict.fromkeys(HANDLED_STATUSES, "diagonal")
    elif numbers := [value for value in stated.values() if not isinstance(value, str)]:
        worst = max(numbers) if lower_is_better(metric) else min(numbers)
        variants["every empty mask counts as missed"] = dict.fromkeys(HANDLED_STATUSES, worst)
    return variants


def task_matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Return the means (task x method) of a case table: mean over structures of per-structure means over cases."""
    return table.groupby(level=["task", "structure"]).mean().groupby(level="task").mean()


def _rank_first(table: pd.DataFrame, lower: bool) -> pd.DataFrame:
    ranks = table.copy()
    ranks[:] = rank_methods(table.to_numpy(), lower_is_better=lower, axis=1)
    return ranks


def aggregate_table(table: pd.DataFrame, aggregation: str, *, lower: bool) -> pd.Series:
    """Return one value per method, smaller or larger is better as ``aggregation`` and the metric say."""
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


def ranking_variants(
    rows: pd.DataFrame,
    *,
    metrics: Sequence[str],
    missing_masks: Mapping[str, Handling] | None = None,
    aggregations: Sequence[str] = AGGREGATIONS,
) -> pd.DataFrame:
    """Return one row per (experiment, variant, method): the five choices, value, rank, winner, `default`.

    The default variant of an experiment is the stated handling, the mean of task means and no task left out, by the
    first metric and then the first protocol under which methods are ranked there; none where there is none. A metric
    that is defined for nobody on some task (nominal spacing) ranks over the others: `n_tasks` of `n_tasks_expected`
    says over how many. Methods without a value on every one of these take no part. Ties get the
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
            records += [key | record for record in _variants(part, metric, missing_masks, aggregations)]
    table = pd.DataFrame.from_records(records)
    if table.empty:
        return table
    table["default"] = _is_default(table, metrics, aggregations[0])
    table["winner"] = table["rank"] == 1
    return table[
        ["experiment", *CHOICES, "default", "method", "value", "rank", "winner", "n_tasks", "n_tasks_expected"]
    ]


def _is_default(table: pd.DataFrame, metrics: Sequence[str], aggregation: str) -> pd.Series:
    """Return which rows are of their experiment's default variant; protocols are in the order of the table."""
    defaults = {"handling": "as stated", "aggregation": aggregation, "left_out": NONE_LEFT_OUT}
    stated = table[np.logical_and.reduce([table[name] == value for name, value in defaults.items()])]
    found = pd.Series(False, index=table.index)
    for _, part in stated.groupby("experiment", sort=False):
        part = part[part["metric"] == min(part["metric"], key=list(metrics).index)]
        found[part.index] = part["protocol"] == part["protocol"].iloc[0]
    return found


def _variants(
    part: pd.DataFrame, metric: str, missing_masks: Mapping[str, Handling] | None, aggregations: Sequence[str]
) -> list[dict]:
    lower, expected = lower_is_better(metric), part["task"].nunique()
    records = []
    for name, handling in handling_variants(metric, missing_masks, countable(part, metric)).items():
        table = _served_everywhere(case_table(part, metric=metric, missing_masks={metric: handling}))
        tasks = table.index.get_level_values("task")
        left_out = [NONE_LEFT_OUT, *(tasks.unique() if tasks.nunique() > 1 else [])]
        for task, aggregation in itertools.product(left_out, aggregations):
            values = aggregate_table(table[tasks != task], aggregation, lower=lower).dropna()
            signed = values if lower or "rank" in aggregation else -values
            ranks = pd.Series(without_noise(signed.to_numpy(float)), signed.index).rank(method="min").astype(int)
            choices = {
                "handling": name,
                "aggregation": aggregation,
                "left_out": task,
                "n_tasks_expected": expected,
                "n_tasks": tasks[tasks != task].nunique(),
            }
            records += [
                choices | {"method": method, "value": values[method], "rank": ranks[method]} for method in values.index
            ]
    return records


def _served_everywhere(table: pd.DataFrame) -> pd.DataFrame:
    """The methods that have a value on every task that some method has a value on."""
    by_task = table.notna().groupby(level="task").any()
    served = by_task[by_task.any(axis=1)].all()
    return table.loc[:, served]


def ranking_variants_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return per (experiment, choice, value): how often the winner differs from the default variant's.

    `winner_changes` is the fraction of variants with this value whose winner differs; `flips_alone` says whether the
    winner differs when this choice alone departs from the default, `winner_alone` who wins then. `tasks` says over how
    many tasks of the experiment these variants rank at most. The row (choice 'any') counts all variants. A tie for
    the first rank counts as changed when the default winner has no part in it. An experiment without a default variant
    is left out.
    """
    records: list[dict[str, object]] = []
    for experiment, part in table.groupby("experiment", sort=False):
        winners = part[part["winner"]].groupby([*CHOICES, *TASKS], sort=False)["method"]
        variants = winners.agg(tuple).reset_index(name="winners")
        first = part[part["default"]]
        if first.empty:
            continue
        champion = tuple(first.loc[first["winner"], "method"])
        variants["changed"] = [not set(champion) & set(winners) for winners in variants["winners"]]
        variants["departures"] = sum((variants[name] != first[name].iloc[0]).astype(int) for name in CHOICES)
        base: dict[str, object] = {"experiment": experiment, "default_winner": " and ".join(champion)}
        records.append(base | {"choice": "any", "value": "all variants", **_changes(variants)})
        for choice in CHOICES:
            for value, chosen in variants.groupby(choice, sort=False):
                alone = chosen[(chosen["departures"] == 1) & (chosen[choice] != first[choice].iloc[0])]
                records.append(base | {"choice": choice, "value": value, **_changes(chosen), **_alone(alone)})
    return pd.DataFrame.from_records(records)


def _changes(variants: pd.DataFrame) -> dict[str, object]:
    ranked, expected = (int(variants[name].max()) for name in TASKS)
    return {
        "variants": len(variants),
        "winner_changes": float(variants["changed"].mean()),
        "tasks": f"{ranked} of {expected}",
    }


def _alone(alone: pd.DataFrame) -> dict[str, object]:
    if alone.empty:
        return {"flips_alone": "", "winner_alone": ""}
    row = alone.iloc[0]
    return {"flips_alone": "yes" if row["changed"] else "no", "winner_alone": " and ".join(row["winners"])}


def handling_sensitivity(
    rows: pd.DataFrame, *, metric: str, missing_masks: Mapping[str, Handling] | None = None
) -> pd.DataFrame:
    """Return experiment, handling, method, value, rank, n_scored and n_expected: the ranking under each handling."""
    parts = []
    for experiment, part in rows[rows["metric"] == metric].groupby("experiment", sort=False):
        for name, handling in handling_variants(metric, missing_masks, part).items():
            table = case_table(part, metric=metric, missing_masks={metric: handling})
            values = task_matrix(table).mean(skipna=False)
            ranks = rank_methods(values.to_numpy(), lower_is_better=lower_is_better(metric))
            counted = apply_handling(part, {metric: handling})["counted"].groupby(method_labels(part))
            ranked = pd.DataFrame({"method": values.index, "value": values.to_numpy(), "rank": ranks})
            ranked["n_scored"] = counted.sum().reindex(values.index).to_numpy()
            ranked["n_expected"] = counted.size().reindex(values.index).to_numpy()
            ranked.insert(0, "handling", name)
            ranked.insert(0, "metric", metric)
            ranked.insert(0, "experiment", experiment)
            parts.append(ranked)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
