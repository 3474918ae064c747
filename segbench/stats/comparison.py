"""Every statistic of one score table, as tidy tables by name; the report and `segbench compare` show these."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from segbench.stats.aggregate import FOLDS_IN_INTERVALS, cells, mean_over_tasks, structure_cells
from segbench.stats.decision import DEFAULT_RULE, RULE_TEXT, Rule
from segbench.stats.methods import ALL_TASKS, countable, first_protocol, undefined_tasks
from segbench.stats.missing_masks import Handling, handling_text
from segbench.stats.paired import detectable_per_task, paired_with_means, variance_split
from segbench.stats.published import check_published
from segbench.stats.ranking import consensus, friedman, nemenyi, rank_distribution, rank_stability, rank_table
from segbench.stats.ranking_variants import handling_sensitivity, ranking_variants, ranking_variants_summary
from segbench.stats.transfer import transfer_map

TITLES = {
    "cells": "Means per task",
    "mean_over_tasks": "Mean over tasks",
    "structures": "Means per structure",
    "paired": "Paired differences between methods",
    "detectable": "Smallest difference that each task can show",
    "variance": "Variance between cases and between seeds",
    "ranks": "Three rankings",
    "stability": "Stability of the ranking by mean",
    "rank_distribution": "Distribution of ranks by mean",
    "consensus": "Consensus of the rankings over tasks",
    "friedman": "Friedman's test and critical difference",
    "nemenyi": "Nemenyi's p values",
    "sensitivity": "Ranking under each handling",
    "ranking_variants_summary": "Which choice changes the winner",
    "ranking_variants": "Ranking in every variant",
    "transfer": "Universal minus single-task",
    "published": "Published values beside measured ones",
}


@dataclass(frozen=True)
class Options:
    """What to compute: metrics in order of importance, missing masks, levels, universal and single-task methods."""

    metrics: Sequence[str]
    missing_masks: Mapping[str, Handling] = field(default_factory=dict)
    alpha: float = 0.05
    rope: Mapping[str, float] = field(default_factory=dict)
    resamples: int = 2000
    seed: int = 0
    universal: Sequence[str] = ()
    single: Sequence[str] = ()
    synthetic: Collection[str] = ()
    budgets: Mapping[str, int] = field(default_factory=dict)
    reference: str | None = None
    rule: Rule = DEFAULT_RULE


def compare(rows: pd.DataFrame, options: Options) -> dict[str, pd.DataFrame]:
    """Return name -> table for every statistic that the rows allow, in the order of `TITLES`; empty ones are left out.

    A task with rows of several protocols is compared under its first one; the ranking variants hold the others.
    A metric that is defined for nobody in an experiment has cells without a value there, and nothing else.
    """
    first = first_protocol(rows)
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in TITLES}
    for metric in options.metrics:
        scored = first.loc[first["metric"] == metric, "experiment"]
        for name, table in _of_metric(first[first["experiment"].isin(scored)], metric, options).items():
            found[name].append(table)
    variants = ranking_variants(rows, metrics=options.metrics, missing_masks=options.missing_masks)
    found["ranking_variants"].append(variants)
    found["ranking_variants_summary"].append(ranking_variants_summary(variants) if len(variants) else variants)
    found["published"].append(
        check_published(
            first,
            synthetic=options.synthetic,
            budgets=options.budgets,
            missing_masks=options.missing_masks,
            confidence=1 - options.alpha,
        )
    )
    joined = {name: [part for part in parts if len(part)] for name, parts in found.items()}
    return {name: pd.concat(parts, ignore_index=True) for name, parts in joined.items() if parts}


def _of_metric(rows: pd.DataFrame, metric: str, options: Options) -> dict[str, pd.DataFrame]:
    handling, confidence, alpha = options.missing_masks, 1 - options.alpha, options.alpha
    resamples, seed, rope = options.resamples, options.seed, options.rope.get(metric)
    cell_table = cells(
        rows, metric=metric, missing_masks=handling, confidence=confidence, resamples=resamples, seed=seed
    )
    structures = structure_cells(
        rows, metric=metric, missing_masks=handling, confidence=confidence, resamples=resamples, seed=seed
    )
    tables = {
        "cells": cell_table,
        "mean_over_tasks": mean_over_tasks(cell_table, confidence=confidence),
        "structures": structures,
    }
    rows = rows[rows["experiment"].isin(countable(rows, metric)["experiment"])]
    if rows.empty:
        return tables
    every = paired_with_means(
        rows,
        metric=metric,
        missing_masks=handling,
        alpha=alpha,
        rope=rope,
        reference=options.reference,
        rule=options.rule,
        seed=seed,
    )
    paired = every[every["task"] != ALL_TASKS] if len(every) else every
    ranks = rank_table(rows, metric=metric, missing_masks=handling, paired=paired)
    distribution = rank_distribution(rows, metric=metric, missing_masks=handling, resamples=resamples, seed=seed)
    tables |= {
        "paired": every,
        "detectable": detectable_per_task(paired).assign(metric=metric),
        "variance": variance_split(rows, metric=metric, missing_masks=handling).assign(metric=metric),
        "ranks": ranks,
        "stability": rank_stability(distribution, confidence=confidence),
        "rank_distribution": distribution,
        "consensus": consensus(ranks),
        "friedman": friedman(rows, metric=metric, missing_masks=handling, alpha=alpha),
        "nemenyi": _long_nemenyi(rows, metric, handling),
        "sensitivity": handling_sensitivity(rows, metric=metric, missing_masks=handling),
    }
    if options.universal and options.single:
        tables["transfer"] = transfer_map(
            rows,
            metric=metric,
            missing_masks=handling,
            alpha=alpha,
            rope=rope,
            universal=options.universal,
            single=options.single,
            rule=options.rule,
            paired=paired,
        )
    return tables


def _long_nemenyi(rows: pd.DataFrame, metric: str, handling: Mapping[str, Handling]) -> pd.DataFrame:
    parts = []
    for (experiment, task), matrix in nemenyi(rows, metric=metric, missing_masks=handling).items():
        long = matrix.rename_axis("method_a").reset_index().melt("method_a", var_name="method_b", value_name="p_value")
        long = long[long["method_a"] < long["method_b"]]
        parts.append(long.assign(experiment=experiment, metric=metric, task=task))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def notes(rows: pd.DataFrame, options: Options) -> list[str]:
    """Return what must stand under every table: convention, handling, interval, counts, tests, synthetic data."""
    level = f"{100 * (1 - options.alpha):g} %"
    synthetic = sorted(set(options.synthetic) & set(rows["task"]))
    return [
        *([f"Synthetic data: {', '.join(synthetic)}. These values say nothing about patients."] if synthetic else []),
        f"Protocol: {', '.join(rows['protocol'].unique())}. Metrics by their names in docs/metrics.md: "
        f"{', '.join(options.metrics)}; dice and other fractions in per cent, distances in mm, volumes in ml.",
        *(f"Handling for {handling_text(metric, options.missing_masks)}." for metric in options.metrics),
        *(
            f"{metric} is defined for nobody on {', '.join(tasks)}: rankings over tasks by {metric} are without."
            for metric in options.metrics
            if (tasks := undefined_tasks(rows, metric))
        ),
        "A cell is the mean over structures of per-structure means over cases; n is rows scored / expected "
        "(case x structure x seed).",
        f"Intervals: {level}; patients are the unit; structures may be missed where none was ('as seen': not); "
        "the spread of seeds is included where there are several. coverage_low to coverage_high: measured "
        "coverage in simulations with coverage_n patients (docs/statistics.md).",
        f"Decision rule: {options.rule} ({RULE_TEXT[options.rule]}), two-sided, patients as units, level "
        f"{options.alpha:g}. {_family_text(options.reference)} Where the mean and the ranks point to different methods "
        "the comparison is conflicting and no method is named better; interval_agrees "
        "says whether the intervals say the same as the test. Tests are conditional on the trained models.",
        *(
            [f"Values of {folds} folds are pooled, each with models of its own. {FOLDS_IN_INTERVALS}"]
            if (folds := int(rows.groupby(["experiment", "task"])["fold"].nunique().max())) > 1
            else []
        ),
        *(
            ["One seed per method: ranks and their fractions hold given these weights."]
            if rows.groupby(["model", "initialisation"])["seed"].nunique().min() < 2
            else []
        ),
        f"Resampling: {options.resamples} draws, seed {options.seed}.",
    ]


def _family_text(reference: str | None) -> str:
    if reference is None:
        return "No reference is named: Holm's correction is over all pairs and tasks of a metric, one family."
    return (
        f"Holm's correction: primary family each method against {reference} on every task of a metric; all other pairs "
        "are a secondary family."
    )
