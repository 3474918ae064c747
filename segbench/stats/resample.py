"""Draws of whole tables: patients of tasks and seeds of methods are drawn, all methods see the same patients.

Legend of suffixes: B draws, M methods, T tasks, P patients, K structures, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from segbench.stats.methods import countable, method_labels
from segbench.stats.missing_masks import Handling, apply_handling, scale_of


@dataclass(frozen=True)
class TaskArray:
    """Sums and counts of the values of one task; a method without a value for a structure has count 0 there.

    `missed` counts the values of missed structures among them, `worst` is what such a value is (None: none enters).
    """

    task: str
    patients: tuple[str, ...]
    structures: tuple[str, ...]
    sums_MPKS: np.ndarray
    counts_MPKS: np.ndarray
    missed_MPKS: np.ndarray
    worst: float | None = None


@dataclass(frozen=True)
class Board:
    """All tasks of one experiment and metric; `seeds_MS` marks the seeds that a method has."""

    methods: tuple[str, ...]
    seeds_MS: np.ndarray
    tasks: tuple[TaskArray, ...]

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks in the order of the last axis of means."""
        return tuple(task.task for task in self.tasks)


def board(
    rows: pd.DataFrame,
    *,
    metric: str,
    missing_masks: Mapping[str, Handling] | None = None,
    experiment: str | None = None,
) -> Board:
    """Return the arrays of one experiment and metric; methods and tasks keep the order of the rows."""
    chosen = countable(rows, metric)
    if experiment is not None:
        chosen = chosen[chosen["experiment"] == experiment]
    chosen = apply_handling(chosen, missing_masks)
    chosen = chosen.assign(method=method_labels(chosen))
    methods, seeds = list(chosen["method"].drop_duplicates()), sorted(chosen["seed"].unique())
    has_MS = np.zeros((len(methods), len(seeds)), bool)
    has_MS[pd.Index(methods).get_indexer(chosen["method"]), pd.Index(seeds).get_indexer(chosen["seed"])] = True
    tasks = tuple(
        _task_array(str(task), part, methods, seeds, scale_of(metric, missing_masks, part).worst)
        for task, part in chosen.groupby("task", sort=False)
    )
    return Board(tuple(methods), has_MS, tasks)


def _task_array(task: str, part: pd.DataFrame, methods: list[str], seeds: list[int], worst: float | None) -> TaskArray:
    axes: tuple[list, ...] = (
        methods,
        sorted(part["patient"].unique()),
        list(part["structure"].drop_duplicates()),
        seeds,
    )
    counted = part[part["counted"]]
    columns = ("method", "patient", "structure", "seed")
    at = tuple(pd.Index(axis).get_indexer(counted[name]) for axis, name in zip(axes, columns, strict=True))
    sums, counts, missed = np.zeros([3, *(len(axis) for axis in axes)])
    np.add.at(sums, at, counted["scored"].to_numpy())
    np.add.at(counts, at, 1.0)
    np.add.at(missed, at, counted["missed"].to_numpy(float))
    return TaskArray(task, tuple(axes[1]), tuple(axes[2]), sums, counts, missed, worst)


def structure_mean(sums_K: np.ndarray, counts_K: np.ndarray) -> np.ndarray:
    """Return the mean over structures (last axis) of sums / counts; structures without a count are left out."""
    seen = counts_K > 0
    ratio = np.divide(sums_K, counts_K, out=np.zeros_like(sums_K, dtype=float), where=seen)
    number = seen.sum(axis=-1)
    return np.divide(ratio.sum(axis=-1), number, out=np.full(number.shape, np.nan), where=number > 0)


def cell_means(table: Board) -> np.ndarray:
    """Return the means (M, T); NaN where a method has no value on a task."""
    per_task = [
        structure_mean(task.sums_MPKS.sum(axis=(1, 3)), task.counts_MPKS.sum(axis=(1, 3))) for task in table.tasks
    ]
    return np.stack(per_task, axis=-1)


def draw_means(table: Board, *, resamples: int, rng: np.random.Generator, unseen: bool = True) -> np.ndarray:
    """Return drawn means (B, M, T): patients are weighted within tasks, seeds drawn again within methods.

    Patients have Dirichlet(1, ..., 1) weights, the same for all methods (Rubin's Bayesian bootstrap). With `unseen`
    there is one more patient per task, as in `segbench.stats.intervals`: a method misses its structures with
    probability 1/2 where it missed none, and a Beta(1/2, 1/2) part of them where it missed some; what is not missed has
    the method's mean. A method's seeds are drawn once for all tasks, because a universal model's seed is one training.
    Tasks and methods are drawn in the order of their names, so that the order of rows changes nothing.
    """
    by_name_M = sorted(range(len(table.methods)), key=lambda m: table.methods[m])
    seeds_MBS = {}
    for m in by_name_M:
        has_S = table.seeds_MS[m]
        seeds_MBS[m] = rng.multinomial(has_S.sum(), has_S / has_S.sum(), size=resamples)
    draws = np.full((resamples, len(table.methods), len(table.tasks)), np.nan)
    for t, task in sorted(enumerate(table.tasks), key=lambda item: item[1].task):
        weights_BP = rng.standard_exponential((resamples, len(task.patients)))
        extra_B = rng.standard_exponential(resamples)
        for m in by_name_M:
            wholly_B, partly_B = rng.random(resamples) < 0.5, rng.beta(0.5, 0.5, resamples)
            sums_BK, counts_BK = (
                _weighted(values_MPKS[m], weights_BP, seeds_MBS[m])
                for values_MPKS in (task.sums_MPKS, task.counts_MPKS)
            )
            if unseen and task.worst is not None:
                seen_K = task.missed_MPKS[m].sum(axis=(0, 2)) > 0
                missed_BK = np.where(seen_K, partly_B[:, None], wholly_B[:, None])
                own_BK = np.divide(sums_BK, counts_BK, out=np.zeros_like(sums_BK), where=counts_BK > 0)
                extra_BK = extra_B[:, None] * counts_BK / weights_BP.sum(axis=1, keepdims=True)
                sums_BK = sums_BK + extra_BK * (missed_BK * task.worst + (1 - missed_BK) * own_BK)
                counts_BK = counts_BK + extra_BK
            draws[:, m, t] = structure_mean(sums_BK, counts_BK)
    return draws


def _weighted(values_PKS: np.ndarray, weights_BP: np.ndarray, seeds_BS: np.ndarray) -> np.ndarray:
    patients, structures, seeds = values_PKS.shape
    by_seed_BKS = (weights_BP @ values_PKS.reshape(patients, -1)).reshape(-1, structures, seeds)
    return np.einsum("bks,bs->bk", by_seed_BKS, seeds_BS)
