"""Rankings and how stable they are.

Three families, because they disagree (Maier-Hein et al. 2018): by the mean of the values, by the mean of per-case
ranks, and by the number of methods that are significantly beaten. Stability is the bootstrap distribution of each rank;
several methods at once are tested by Friedman with Nemenyi's critical difference (Demsar 2006).

Legend of suffixes: B draws, M methods, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scikit_posthocs
from scipy import stats

from segbench.stats.aggregate import draw_seeds
from segbench.stats.decision import winner
from segbench.stats.methods import ALL_TASKS, case_table, without_noise
from segbench.stats.missing_masks import Handling, lower_is_better
from segbench.stats.paired import FEW_PATIENTS, paired_table
from segbench.stats.resample import board, cell_means, draw_means

GIVEN_WEIGHTS, SEEDS_DRAWN = "given these weights", "seeds drawn again"
DISTRIBUTION = ["experiment", "metric", "task", "method", "rank", "fraction", "condition"]
RANK_COLUMNS = ("rank_by_mean", "rank_by_mean_rank", "rank_by_significance")


def rank_methods(values: np.ndarray, *, lower_is_better: bool, axis: int = 0) -> np.ndarray:
    """Return ranks along an axis, 1 is best, ties get their mean rank, NaN stays NaN.

    Values are compared `without_noise`, here and wherever ranks are made: means and case values tie alike.
    """
    values = without_noise(values)
    return stats.rankdata(values if lower_is_better else -values, axis=axis, nan_policy="omit")


def rank_table(
    rows: pd.DataFrame,
    *,
    metric: str,
    missing_masks: Mapping[str, Handling] | None = None,
    paired: pd.DataFrame | None = None,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Return per (experiment, task, method): mean, mean_rank over cases, significant_wins and the three ranks.

    `paired` is the table of `paired_table` when it is at hand. Methods without a value on a task have NaN ranks there.
    """
    paired = paired_table(rows, metric=metric, missing_masks=missing_masks, alpha=alpha) if paired is None else paired
    parts = []
    for experiment in rows["experiment"].unique():
        wins = _wins(paired[paired["experiment"] == experiment]) if len(paired) else {}
        means = _means(rows, metric, missing_masks, experiment)
        table = case_table(rows, metric=metric, missing_masks=missing_masks, experiment=experiment)
        for task, part in table.groupby(level="task", sort=False):
            ranked = pd.DataFrame({"method": part.columns, "mean": means.loc[part.columns, task].to_numpy()})
            ranked["mean_rank"] = _mean_case_rank(part, metric)
            ranked["significant_wins"] = [wins.get((str(task), method), 0) for method in part.columns]
            _add_ranks(ranked, metric)
            parts.append(ranked.assign(experiment=experiment, metric=metric, task=str(task)))
    table = pd.concat(parts, ignore_index=True)
    return table[["experiment", "metric", "task", *table.columns.drop(["experiment", "metric", "task"])]]


def _add_ranks(ranked: pd.DataFrame, metric: str) -> None:
    scored = ranked["mean"].notna()
    columns = (("mean", lower_is_better(metric)), ("mean_rank", True), ("significant_wins", False))
    for name, (column, lower) in zip(RANK_COLUMNS, columns, strict=True):
        ranked[name] = rank_methods(ranked[column].where(scored).to_numpy(float), lower_is_better=lower)


def _means(
    rows: pd.DataFrame, metric: str, missing_masks: Mapping[str, Handling] | None, experiment: str
) -> pd.DataFrame:
    table = board(rows, metric=metric, missing_masks=missing_masks, experiment=experiment)
    return pd.DataFrame(cell_means(table), index=list(table.methods), columns=list(table.task_names))


def patient_table(part: pd.DataFrame) -> pd.DataFrame:
    """Return one row per patient of one task's case table: mean over cases of means over structures, per method.

    Methods without any value are dropped, then patients that lack a value of a remaining method.
    """
    per_case = part.dropna(axis=1, how="all").groupby(level=["patient", "case"]).mean()
    table = per_case.groupby(level="patient").mean().dropna()
    return pd.DataFrame(without_noise(table.to_numpy(float)), table.index, table.columns)


def _mean_case_rank(part: pd.DataFrame, metric: str) -> np.ndarray:
    table = patient_table(part)
    ranks = rank_methods(table.to_numpy(), lower_is_better=lower_is_better(metric), axis=1)
    means = ranks.mean(axis=0) if len(ranks) else np.full(table.shape[1], np.nan)
    return pd.Series(means, index=table.columns).reindex(part.columns).to_numpy()


def _wins(paired: pd.DataFrame) -> dict[tuple[str, str], int]:
    if paired.empty:
        return {}
    winners = paired.assign(winner=paired.apply(winner, axis=1))
    counts = winners[winners["winner"] != ""].groupby(["task", "winner"]).size()
    keys = zip(counts.index.get_level_values("task"), counts.index.get_level_values("winner"), strict=True)
    return {(str(task), str(method)): int(count) for (task, method), count in zip(keys, counts, strict=True)}


def rank_distribution(
    rows: pd.DataFrame,
    *,
    metric: str,
    missing_masks: Mapping[str, Handling] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how often a method takes a rank by mean when patients (and seeds) are drawn again.

    Rows (experiment, metric, task, method, rank, fraction, condition); task 'all tasks' ranks by the mean over tasks
    and holds only methods with a value on every task. The draws allow for missed structures that were not seen
    (`resample.draw_means`). Ties take the better rank. Fractions of a method sum to 1. `condition` is GIVEN_WEIGHTS
    where a method has one seed: another training could change the rank. Tasks with FEW_PATIENTS or fewer are left out,
    and so is the mean over tasks where there is one.
    """
    records: list[dict[str, object]] = []
    for experiment in rows["experiment"].unique():
        table = board(rows, metric=metric, missing_masks=missing_masks, experiment=experiment)
        rng = np.random.default_rng(draw_seeds(seed, experiment, metric))
        draws_BMT = draw_means(table, resamples=resamples, rng=rng)
        enough = [len(task.patients) > FEW_PATIENTS for task in table.tasks]
        drawn = [
            (task.task, draws_BMT[:, :, t]) for t, task in enumerate(table.tasks) if len(task.patients) > FEW_PATIENTS
        ]
        condition = SEEDS_DRAWN if table.seeds_MS.sum(axis=1).min(initial=2) > 1 else GIVEN_WEIGHTS
        for name, draws_BM in [*drawn, *([(ALL_TASKS, draws_BMT.mean(axis=2))] if all(enough) else [])]:
            for method, rank, fraction in _fractions(draws_BM, table.methods, metric):
                key = {"experiment": experiment, "metric": metric, "task": name, "method": method}
                records.append(key | {"rank": rank, "fraction": fraction, "condition": condition})
    return pd.DataFrame.from_records(records, columns=DISTRIBUTION)


def _fractions(draws_BM: np.ndarray, methods: tuple[str, ...], metric: str) -> list[tuple[str, int, float]]:
    kept = ~np.isnan(draws_BM).any(axis=0)
    signed_BM = without_noise(draws_BM[:, kept]) * (1 if lower_is_better(metric) else -1)
    ranks_BM = stats.rankdata(signed_BM, axis=1, method="min") if kept.any() else signed_BM
    names = [method for method, keep in zip(methods, kept, strict=True) if keep]
    return [
        (method, rank, float((ranks_BM[:, column] == rank).mean()))
        for column, method in enumerate(names)
        for rank in range(1, len(names) + 1)
    ]


def rank_stability(distribution: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Return per (experiment, task, method): p_first, median rank, rank_low and rank_high of the distribution.

    With one seed per method these hold given these weights (column `condition`).
    """
    tails = ((1 - confidence) / 2, 0.5, (1 + confidence) / 2)
    records: list[dict[str, object]] = []
    for key, part in distribution.groupby(["experiment", "metric", "task", "method"], sort=False):
        low, median, high = np.searchsorted(part["fraction"].cumsum().to_numpy() - 1e-12, tails) + 1
        names = ("experiment", "metric", "task", "method")
        records.append(
            dict(zip(names, key, strict=True))
            | {
                "p_first": float(part.loc[part["rank"] == 1, "fraction"].sum()),
                "rank_low": int(low),
                "rank_median": int(median),
                "rank_high": int(high),
                "condition": part["condition"].iloc[0],
            }
        )
    columns = [*DISTRIBUTION[:4], "p_first", "rank_low", "rank_median", "rank_high", "condition"]
    return pd.DataFrame.from_records(records, columns=columns)


def consensus(ranks: pd.DataFrame) -> pd.DataFrame:
    """Return per (experiment, method) the mean over tasks of each family's rank, and the rank of the mean of the three.

    The mean rank is the consensus with the smallest sum of squared (Euclidean) distances to the tasks' rankings, as in
    challengeR. Methods without a rank on some task are left out: their mean would be over easier or harder tasks.
    """
    names = list(RANK_COLUMNS)
    parts = []
    for (experiment, metric), part in ranks.groupby(["experiment", "metric"], sort=False):
        tasks = part["task"].nunique()
        complete = part.groupby("method")["rank_by_mean"].transform("count") == tasks
        mean = part[complete].groupby("method", sort=False)[names].mean()
        mean.columns = [f"mean_{name}" for name in names]
        mean["consensus_rank"] = rank_methods(mean.mean(axis=1).to_numpy(), lower_is_better=True)
        mean = mean.assign(experiment=str(experiment), metric=str(metric), n_tasks=tasks).reset_index()
        parts.append(mean[["experiment", "metric", "method", "n_tasks", *mean.columns[1:-3]]])
    return pd.concat(parts, ignore_index=True)


def friedman(
    rows: pd.DataFrame,
    *,
    metric: str,
    missing_masks: Mapping[str, Handling] | None = None,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Return Friedman's test per (experiment, task) with patients as blocks, and for all tasks with tasks as blocks.

    Rows: one per method with n_blocks, n_methods, statistic, p_value, critical_difference (Nemenyi) and mean_rank. Two
    mean ranks further apart than the critical difference differ. Fewer than three methods or two blocks are left out.
    """
    parts = [
        _friedman(table, metric, alpha).assign(experiment=experiment, task=task)
        for experiment, task, table in _blocks(rows, metric, missing_masks)
    ]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return table.assign(metric=metric)


def nemenyi(
    rows: pd.DataFrame, *, metric: str, missing_masks: Mapping[str, Handling] | None = None
) -> dict[tuple[str, str], pd.DataFrame]:
    """Return (experiment, task) -> matrix of Nemenyi p values between methods (scikit-posthocs)."""
    return {
        (experiment, task): scikit_posthocs.posthoc_nemenyi_friedman(table.reset_index(drop=True))
        for experiment, task, table in _blocks(rows, metric, missing_masks)
    }


def _blocks(
    rows: pd.DataFrame, metric: str, missing_masks: Mapping[str, Handling] | None
) -> list[tuple[str, str, pd.DataFrame]]:
    """Tables (blocks x methods) large enough for the test."""
    found = []
    for experiment in rows["experiment"].unique():
        table = case_table(rows, metric=metric, missing_masks=missing_masks, experiment=experiment)
        found += [
            (experiment, str(task), patient_table(part)) for task, part in table.groupby(level="task", sort=False)
        ]
        means = _means(rows, metric, missing_masks, experiment).T.dropna(axis=1)
        means[:] = without_noise(means.to_numpy(float))
        found.append((experiment, ALL_TASKS, means))
    return [(experiment, task, table) for experiment, task, table in found if len(table) > 1 and table.shape[1] > 2]


def _friedman(table: pd.DataFrame, metric: str, alpha: float) -> pd.DataFrame:
    blocks, methods = table.shape
    ranks = rank_methods(table.to_numpy(), lower_is_better=lower_is_better(metric), axis=1)
    if (ranks == ranks[:, :1]).all():
        statistic, p_value = 0.0, 1.0  # every method ties on every block: the test statistic is 0 / 0
    else:
        statistic, p_value = map(float, stats.friedmanchisquare(*table.to_numpy().T))
    return pd.DataFrame(
        {
            "method": table.columns,
            "mean_rank": ranks.mean(axis=0),
            "n_blocks": blocks,
            "n_methods": methods,
            "statistic": statistic,
            "p_value": p_value,
            "critical_difference": critical_difference(methods, blocks, alpha=alpha),
        }
    )


def critical_difference(methods: int, blocks: int, *, alpha: float = 0.05) -> float:
    """Return Nemenyi's critical difference of mean ranks: q / sqrt(2) * sqrt(k (k + 1) / (6 n)) (Demsar 2006)."""
    quantile = stats.studentized_range.ppf(1 - alpha, methods, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(methods * (methods + 1) / (6 * blocks)))
