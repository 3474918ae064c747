"""From score rows to cells: means over structures of per-structure means over cases, with intervals.

Patients are the resampling unit: all cases, structures and seeds of a patient move together. With several seeds the
interval also holds the spread between seeds.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from segbench.core.errors import Problem, raise_problems
from segbench.core.vocabulary import SCORE_COLUMNS, WITHOUT_MASK_STATUSES
from segbench.stats.coverage import measured_coverage
from segbench.stats.intervals import PatientSums, Scale, SeedSpread, cell_limits, hull, seed_spread, with_seeds
from segbench.stats.methods import fold_of_patients
from segbench.stats.missing_masks import (
    Handling,
    apply_handling,
    handling_of,
    handling_text,
    lower_is_better,
    scale_of,
)
from segbench.stats.scores import read_scores, validate_rows

__all__ = [
    "CELL",
    "SCORE_COLUMNS",
    "apply_handling",
    "cells",
    "handling_of",
    "handling_text",
    "lower_is_better",
    "mean_over_tasks",
    "read_scores",
    "structure_cells",
    "validate_rows",
]

CELL = ["experiment", "model", "initialisation", "task"]
FOLDS_IN_INTERVALS = (
    "The intervals hold the spread between folds where every fold tests two patients or more and every patient is in "
    "one fold."
)
_VALUES = ("mean", "low", "high", "sd", "low_as_seen", "high_as_seen", "patient_low", "patient_high")


def cells(
    rows: pd.DataFrame,
    *,
    metric: str,
    missing_masks: Mapping[str, Handling] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return one row per (experiment, model, initialisation, task) of one metric, in the order of the rows.

    Columns beside the keys: metric, protocol; mean, low, high; low_as_seen, high_as_seen (the interval if only
    structures seen to be missed are ever missed; never wider); sd between patients; n_scored, n_expected, n_failed,
    n_skipped, n_missed (rows: case x structure x seed); all_missed (every structure is missed); n_folds (each fold has
    its own model, and the spread between folds is in the interval); n_patients, n_cases, n_structures, n_seeds;
    patient_low, patient_high (without the spread of seeds and folds); seed_means, fold_means (dicts; empty where folds
    have no known spread), seed_noise, fold_noise; coverage_low, coverage_high (measured coverage of the interval at
    coverage_n patients, the largest simulated number that is not larger). Units are the metric's. A cell without a
    counted row has NaN values, one patient no interval.
    Raises `InputError` when a task mixes protocols.
    """
    chosen = apply_handling(_of_metric(rows, metric), missing_masks)
    records = [
        {**dict(zip(CELL, key, strict=True)), "metric": metric, "protocol": part["protocol"].iloc[0]}
        | _values(
            part[part["counted"]],
            scale_of(metric, missing_masks, part),
            confidence,
            resamples,
            draw_seeds(seed, str(key[-1]), metric),
        )
        | _counts(part, confidence)
        for key, part in chosen.groupby(CELL, sort=False)
    ]
    return pd.DataFrame.from_records(records)


def structure_cells(
    rows: pd.DataFrame,
    *,
    metric: str,
    missing_masks: Mapping[str, Handling] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return `cells` for every structure apart, with the column `structure`; options are those of `cells`."""
    parts = [
        cells(
            part, metric=metric, missing_masks=missing_masks, confidence=confidence, resamples=resamples, seed=seed
        ).assign(structure=structure)
        for structure, part in rows[rows["metric"] == metric].groupby("structure", sort=False)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def mean_over_tasks(cell_table: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Return one row per (experiment, model, initialisation): the unweighted mean of its cells with an interval.

    Tasks have different patients, so the distances from the means to the patient limits add in squares (MOVER, Zou and
    Donner 2008); seeds and folds are shared by tasks, so their spread is that of the means over tasks per seed and per
    fold. The mean over one task has the interval of its cell. `n_tasks` of `n_tasks_expected` says how many cells had a
    value; `complete` is False when one had none that another method has, and the mean is then not comparable with that
    of a complete row. Limits stay within the metric's range.
    """
    keys = CELL[:-1]
    records = []
    served = cell_table["mean"].notna().groupby([cell_table["experiment"], cell_table["task"]]).transform("any")
    for key, part in cell_table.groupby(keys, sort=False):
        seen = part[part["mean"].notna()]
        low, high, mean = _over_tasks(seen, confidence)
        records.append(
            {
                **dict(zip(keys, key, strict=True)),
                "metric": part["metric"].iloc[0],
                "mean": mean,
                "low": low,
                "high": high,
            }
            | {
                "n_tasks": len(seen),
                "n_tasks_expected": len(part),
                "complete": len(seen) == int(served[part.index].sum()),
            }
            | {"all_missed": bool(len(seen) and seen["all_missed"].all())}
            | {name: int(part[name].sum()) for name in ("n_scored", "n_expected", "n_failed", "n_skipped", "n_missed")}
        )
    return pd.DataFrame.from_records(records)


def _over_tasks(seen: pd.DataFrame, confidence: float) -> tuple[float, float, float]:
    if seen.empty:
        return (np.nan, np.nan, np.nan)
    if len(seen) == 1:
        return (float(seen["low"].iloc[0]), float(seen["high"].iloc[0]), float(seen["mean"].iloc[0]))
    mean = float(seen["mean"].mean())
    below = np.sqrt(((seen["mean"] - seen["patient_low"]) ** 2).sum(skipna=False)) / len(seen)
    above = np.sqrt(((seen["patient_high"] - seen["mean"]) ** 2).sum(skipna=False)) / len(seen)
    limits, scale = (mean - below, mean + above), scale_of(str(seen["metric"].iloc[0]), None)
    for unit in ("fold", "seed"):
        by_task = zip(seen[f"{unit}_means"], seen[f"{unit}_noise"], strict=True)
        spread = spread_over_tasks(
            [(SeedSpread(np.array(list(means.values())), noise), list(means)) for means, noise in by_task]
        )
        limits = with_seeds(mean, limits, spread, scale, confidence=confidence)
    return *limits, mean


def spread_over_tasks(by_task: Sequence[tuple[SeedSpread, Sequence[int]]]) -> SeedSpread:
    """Return the spread of the means over tasks, from each task's spread and the seeds, or folds, of its means.

    A seed or fold of a joint network is one training for all tasks, whose effect does not shrink with their number.
    Those count that every task has: two tasks with other seeds have no spread in common. A task without means, as
    `fold_spread` gives, says nothing; none gives no spread.
    """
    known = [(spread, names) for spread, names in by_task if len(names)]
    if not known:
        return SeedSpread(np.empty(0), 0.0)
    means = pd.DataFrame([dict(zip(names, spread.means_S, strict=True)) for spread, names in known])
    noise = sum(spread.noise for spread, _ in known) / len(known) ** 2
    return SeedSpread(means.dropna(axis=1).mean().to_numpy(), float(noise))


def _of_metric(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    chosen = rows[rows["metric"] == metric]
    mixed = chosen.groupby(["experiment", "task"])["protocol"].nunique()
    raise_problems(
        Problem(
            f"{experiment}/{task}", "several protocols in one table", "one protocol", "select the rows of one protocol"
        )
        for experiment, task in mixed[mixed > 1].index
    )
    return chosen


def draw_seeds(seed: int, task: str, metric: str) -> list[int]:
    """Return the seed of the draws of one task and metric: the same for all methods, so that equal values are equal.

    Draws for all tasks of an experiment take its name for the task's.
    """
    return [seed, zlib.crc32(f"{task}/{metric}".encode())]


def patient_sums(counted: pd.DataFrame, scale: Scale) -> PatientSums:
    """Return hits and missed values per patient and structure of rows that count; both axes are sorted."""
    missed = np.zeros(len(counted), bool) if scale.worst is None else counted["missed"].to_numpy(bool)
    scored = np.where(missed, 0.0, counted["scored"].to_numpy(float))
    scored, hits, misses = _tables(counted, ("patient", "structure"), (scored, ~missed, missed))
    return PatientSums(scored, hits, misses)


def _tables(rows: pd.DataFrame, names: Sequence[str], values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return sums of values by columns of the rows, an axis for each column, sorted; 0 where there is no row."""
    codes, sizes = [], []
    for name in names:
        code, uniques = pd.factorize(rows[name], sort=True)
        codes.append(code)
        sizes.append(len(uniques))
    places = np.ravel_multi_index(codes, sizes)
    return [np.bincount(places, own, minlength=math.prod(sizes)).reshape(sizes) for own in values]


def patient_values(sums_PK: np.ndarray, counts_PK: np.ndarray) -> np.ndarray:
    """Return one value per patient whose mean is the cell's mean.

    For complete rows it is the patient's mean over structures; with gaps it is the linearisation of the cell's mean,
    so that its standard error is that of the cell. Structures without a count are left out.
    """
    seen_K = counts_PK.sum(axis=0) > 0
    sums_PK, counts_PK = sums_PK[:, seen_K], counts_PK[:, seen_K]
    totals_K = counts_PK.sum(axis=0)
    means_K = sums_PK.sum(axis=0) / totals_K
    influence_PK = len(sums_PK) * (sums_PK - means_K * counts_PK) / totals_K
    return means_K.mean() + influence_PK.mean(axis=1)


def _values(
    counted: pd.DataFrame, scale: Scale, confidence: float, resamples: int, rng_seeds: Sequence[int]
) -> dict[str, object]:
    if counted.empty:
        unknown = {"seed_means": {}, "seed_noise": np.nan, "fold_means": {}, "fold_noise": np.nan}
        return {**dict.fromkeys(_VALUES, np.nan), **unknown}
    sums, plain = patient_sums(counted, scale), patient_sums(counted, Scale(scale.low, scale.high))
    values_P = patient_values(plain.hit_sums_PK, plain.hits_PK)
    mean = float(values_P.mean())
    patient_limits, seen_limits = cell_limits(
        sums, scale, rng_seeds=rng_seeds, confidence=confidence, resamples=resamples
    )
    patient_limits, seen_limits = (hull(own, (mean, mean)) for own in (patient_limits, seen_limits))
    limits = patient_limits
    folds = fold_spread(fold_of_patients(counted).to_numpy(), values_P)
    seeds = seed_effects(counted)
    for spread, _ in (folds, seeds):
        limits, seen_limits = (
            with_seeds(mean, own, spread, scale, confidence=confidence) for own in (limits, seen_limits)
        )
        limits = hull(limits, seen_limits)
    sd = float(values_P.std(ddof=1)) if len(values_P) > 1 else np.nan
    values = (mean, *limits, sd, *seen_limits, *patient_limits)
    found: dict[str, object] = dict(zip(_VALUES, values, strict=True))
    for unit, (spread, names) in (("seed", seeds), ("fold", folds)):
        found |= {
            f"{unit}_means": dict(zip(names, spread.means_S.tolist(), strict=True)),
            f"{unit}_noise": spread.noise,
        }
    return found


def fold_spread(fold_P: np.ndarray, values_P: np.ndarray) -> tuple[SeedSpread, list[int]]:
    """Return the spread between the models of a cross-validation, from one value per patient, and the folds.

    Every fold has its own model, tested on its own patients: the variance between the means of folds is that of the
    models plus what patients explain, `noise` (mean over folds of the variance within a fold / its patients; Searle,
    Casella and McCulloch 1992). One fold, a fold of one patient or a patient without one fold gives no spread and no
    folds.

    Args:
        fold_P: the fold in which each patient is tested; NaN for a patient of several folds.
        values_P: value of each patient.
    """
    folds = np.unique(fold_P)
    parts = [values_P[fold_P == fold] for fold in folds]
    if len(parts) < 2 or np.isnan(fold_P).any() or min(map(len, parts)) < 2:
        return SeedSpread(np.empty(0), 0.0), []
    noise = np.mean([own.var(ddof=1) / len(own) for own in parts])
    return SeedSpread(np.array([own.mean() for own in parts]), float(noise)), [int(fold) for fold in folds]


def seed_effects(counted: pd.DataFrame) -> tuple[SeedSpread, list[int]]:
    """Return the spread between seeds of one cell's counted rows over all its patients, and the seeds."""
    values = (counted["scored"].to_numpy(float), np.ones(len(counted)))
    sums_SPK, counts_SPK = _tables(counted, ("seed", "patient", "structure"), values)
    values_SP = [patient_values(*tables) for tables in zip(sums_SPK, counts_SPK, strict=True)]
    return seed_spread(np.stack(values_SP, axis=1)), sorted(counted["seed"].unique())


def _counts(part: pd.DataFrame, confidence: float) -> dict[str, float]:
    counted = part[part["counted"]]
    patients = counted["patient"].nunique()
    low, high, simulated = measured_coverage(patients, confidence=confidence)
    return {
        "n_scored": len(counted),
        "n_expected": len(part),
        "n_failed": int(part["status"].isin(WITHOUT_MASK_STATUSES).sum()),
        "n_skipped": int((part["status"] == "skipped").sum()),
        "n_missed": int(part["not_found"].sum()),
        "all_missed": bool(len(counted) and counted["missed"].all()),
        "n_folds": counted["fold"].nunique(),
        "n_patients": patients,
        "n_cases": counted["case"].nunique(),
        "n_structures": counted["structure"].nunique(),
        "n_seeds": counted["seed"].nunique(),
        "coverage_low": low,
        "coverage_high": high,
        "coverage_n": simulated,
    }
