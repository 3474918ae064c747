"""From score rows to cells: policies say what a status counts as, cells are means with intervals.

A cell is the mean over structures of the per-structure means over cases. Patients are the resampling unit: all cases,
structures and seeds of a patient move together. With several seeds, the interval also holds the spread between seeds.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from segbench.core.errors import fault
from segbench.core.vocabulary import POLICY_STATUSES, SCORE_COLUMNS
from segbench.stats.intervals import patient_draws
from segbench.stats.scores import UNIT_INTERVAL_METRICS, read_scores, validate_rows

__all__ = [
    "CELL", "DEFAULT_POLICIES", "SCORE_COLUMNS", "apply_policies", "cells", "lower_is_better", "mean_over_tasks",
    "policy_of", "policy_text", "read_scores", "structure_cells", "validate_rows",
]  # fmt: skip

Policy = Mapping[str, float | Literal["exclude"]]
CELL = ["experiment", "model", "initialisation", "task"]
MISSES = ("prediction_empty", "prediction_missing", "failed")
PENALTY_MM = 300.0
_OVERLAP = {"both_empty": 1.0, "reference_empty": 0.0, "prediction_empty": 0.0, "prediction_missing": 0.0, "failed": 0.0}
_DISTANCE = {"both_empty": 0.0, "reference_empty": PENALTY_MM, "prediction_empty": PENALTY_MM,
             "prediction_missing": PENALTY_MM, "failed": PENALTY_MM}  # fmt: skip
_DISTANCES = ("hd95", "hd95_max", "hd", "assd", "masd")
_PUBLISHED_HD95 = {"uniseg_hd95": 998.0, "dodnet_hd95": 373.12866}

DEFAULT_POLICIES: dict[str, Policy] = {
    **{name: _OVERLAP for name in UNIT_INTERVAL_METRICS},
    **{name: _DISTANCE for name in _DISTANCES},
    **{
        name: {"both_empty": 0.0, **dict.fromkeys(("reference_empty", *MISSES), sentinel)}
        for name, sentinel in _PUBLISHED_HD95.items()
    },
    "dodnet_dice": {**_OVERLAP, "both_empty": 0.0},
    "lesion_precision": {**_OVERLAP, "both_empty": "exclude", "prediction_empty": "exclude"},
    "lesion_recall": {**_OVERLAP, "both_empty": "exclude", "reference_empty": "exclude"},
    "volume_error_ml": {},
    "false_positive_volume_ml": {},
}
"""Per metric: what a status counts as; a status that is not named keeps the row's own value, blank means excluded."""


def lower_is_better(metric: str) -> bool:
    """Return True for distances, errors and volumes, whose best value is 0."""
    return metric not in UNIT_INTERVAL_METRICS


def policy_of(metric: str, policies: Mapping[str, Policy] | None) -> Policy:
    """Return the full policy of a metric: the default with the keys of `policies` on top."""
    return {**DEFAULT_POLICIES.get(metric, {}), **((policies or {}).get(metric, {}))}


def policy_text(metric: str, policies: Mapping[str, Policy] | None) -> str:
    """Return the policy as one line for a table note."""
    named = policy_of(metric, policies)
    parts = [
        f"{status.replace('_', ' ')} {'excluded' if value == 'exclude' else f'counts as {value:g}'}"
        for status, value in named.items()
    ]
    rest = [] if set(POLICY_STATUSES) <= set(named) else ["other rows count with their own value, blank ones do not"]
    return f"{metric}: " + ", ".join(parts + rest)


def apply_policies(rows: pd.DataFrame, policies: Mapping[str, Policy] | None = None) -> pd.DataFrame:
    """Return a copy of the rows with `scored` (float, NaN when excluded) and `counted` (bool).

    A status that the policy names counts as the policy says, whatever the row holds; `ok` and statuses that it does not
    name keep the row's value. `not_defined` and `skipped` are always excluded. Empty input gives empty output.
    """
    rows = rows.copy()
    scored = rows["value"].mask(rows["status"].isin(("not_defined", "skipped"))).astype(float)
    for metric in rows["metric"].unique():
        for status, value in policy_of(metric, policies).items():
            chosen = (rows["metric"] == metric) & (rows["status"] == status)
            scored[chosen] = np.nan if value == "exclude" else float(value)
    rows["scored"] = scored
    rows["counted"] = scored.notna()
    return rows


def cells(
    rows: pd.DataFrame,
    *,
    metric: str,
    policies: Mapping[str, Policy] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return one row per (experiment, model, initialisation, task) of one metric.

    Columns: the four keys, metric, protocol, mean, low, high, sd (between patients), n_scored, n_expected, n_failed (rows:
    case x structure x seed), n_patients, n_cases, n_structures, n_seeds, patient_low and patient_high (without the
    spread of seeds), seed_means (dict). Units are the metric's. A cell without a counted row has NaN figures; one
    patient gives no interval. Raises `InputFaults` when a task mixes protocols.
    """
    chosen = _of_metric(rows, metric, policies)
    records = [
        {**dict(zip(CELL, key, strict=True)), "metric": metric}
        | _cell(part, _worst(metric, policies), confidence, resamples, _rng(seed, key, metric))
        for key, part in chosen.groupby(CELL, sort=False)
    ]
    return pd.DataFrame.from_records(records)


def structure_cells(rows: pd.DataFrame, *, metric: str, policies: Mapping[str, Policy] | None = None, **options: float
                    ) -> pd.DataFrame:  # fmt: skip
    """Return `cells` for every structure apart, with the column `structure`; options are those of `cells`."""
    parts = [
        cells(part, metric=metric, policies=policies, **options).assign(structure=structure)
        for structure, part in rows[rows["metric"] == metric].groupby("structure", sort=False)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def mean_over_tasks(cell_table: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Return one row per (experiment, model, initialisation): the unweighted mean of its cells with an interval.

    Tasks have different patients, so the distances from the mean to the patient limits add in squares (MOVER, Zou and
    Donner 2008); seeds are shared by tasks, so their spread is taken from the per-seed means over tasks. `n_tasks` of
    `n_tasks_expected` says how many cells had a figure; `complete` is False when one had none.
    """
    keys = CELL[:-1]
    records = []
    for key, part in cell_table.groupby(keys, sort=False):
        seen = part[part["mean"].notna()]
        records.append({**dict(zip(keys, key, strict=True)), **_over_tasks(seen, confidence)}
                       | {"n_tasks": len(seen), "n_tasks_expected": len(part), "complete": len(seen) == len(part)}
                       | {name: int(part[name].sum()) for name in ("n_scored", "n_expected", "n_failed")})  # fmt: skip
    return pd.DataFrame.from_records(records)


def _over_tasks(seen: pd.DataFrame, confidence: float) -> dict[str, float]:
    if seen.empty:
        return {"mean": np.nan, "low": np.nan, "high": np.nan}
    mean = seen["mean"].mean()
    below = np.sqrt(((seen["mean"] - seen["patient_low"]) ** 2).sum(skipna=False)) / len(seen)
    above = np.sqrt(((seen["patient_high"] - seen["mean"]) ** 2).sum(skipna=False)) / len(seen)
    by_seed = pd.DataFrame(list(seen["seed_means"])).dropna(axis=1).mean()
    spread = seed_margin(by_seed.to_numpy(), confidence)
    return {"mean": mean, "low": mean - np.hypot(below, spread), "high": mean + np.hypot(above, spread)}


def seed_margin(means: np.ndarray, confidence: float) -> float:
    """Return half the width of Student's interval over per-seed means; 0 for a single seed, whose spread is unknown."""
    if len(means) < 2:
        return 0.0
    return float(stats.t.ppf((1 + confidence) / 2, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means)))


def _of_metric(rows: pd.DataFrame, metric: str, policies: Mapping[str, Policy] | None) -> pd.DataFrame:
    chosen = rows[rows["metric"] == metric]
    mixed = chosen.groupby(["experiment", "task"])["protocol"].nunique()
    for experiment, task in mixed[mixed > 1].index:
        raise fault(f"{experiment}/{task}", found="several protocols in one table", expected="one protocol",
                    mend="select the rows of one protocol")  # fmt: skip
    return apply_policies(chosen, policies)


def _worst(metric: str, policies: Mapping[str, Policy] | None) -> float | None:
    """Value of a miss under the policy; None when misses are excluded."""
    policy = policy_of(metric, policies)
    numbers = [float(policy[status]) for status in MISSES if policy.get(status, "exclude") != "exclude"]
    if not numbers:
        return None
    return max(numbers) if lower_is_better(metric) else min(numbers)


def _rng(seed: int, key: tuple[str, ...], metric: str) -> np.random.Generator:
    """A generator of the cell's own, so that adding a model does not move the intervals of the others."""
    return np.random.default_rng([seed, zlib.crc32("/".join((*key, metric)).encode())])


def patient_sums(part: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return sums_PK and counts_PK of the counted rows, structures without a counted row left out."""
    grouped = part[part["counted"]].groupby(["patient", "structure"], sort=True)["scored"]
    return (grouped.sum().unstack(fill_value=0.0).to_numpy(float), grouped.size().unstack(fill_value=0).to_numpy(float))


def patient_values(sums_PK: np.ndarray, counts_PK: np.ndarray) -> np.ndarray:
    """Return one value per patient whose mean is the cell's mean.

    For complete rows it is the patient's mean over structures; with gaps it is the linearisation of the cell's mean,
    so that its standard error is that of the cell.
    """
    totals_K = counts_PK.sum(axis=0)
    means_K = sums_PK.sum(axis=0) / totals_K
    influence_PK = len(sums_PK) * (sums_PK - means_K * counts_PK) / totals_K
    return means_K.mean() + influence_PK.mean(axis=1)


def _cell(part: pd.DataFrame, worst: float | None, confidence: float, resamples: int, rng: np.random.Generator) -> dict:
    counted = part[part["counted"]]
    record = {"protocol": part["protocol"].iloc[0], **_figures(counted, worst, confidence, resamples, rng)}
    skipped = part["status"] == "skipped"
    return record | {
        "n_scored": len(counted),
        "n_expected": len(part),
        "n_failed": int(part["status"].isin(("failed", "prediction_missing")).sum()),
        "n_skipped": int(skipped.sum()),
        "n_patients": counted["patient"].nunique(),
        "n_cases": counted["case"].nunique(),
        "n_structures": counted["structure"].nunique(),
        "n_seeds": counted["seed"].nunique(),
    }


def _figures(counted: pd.DataFrame, worst: float | None, confidence: float, resamples: int, rng: np.random.Generator
             ) -> dict:  # fmt: skip
    names = ("mean", "low", "high", "sd", "patient_low", "patient_high")
    if counted.empty:
        return {**dict.fromkeys(names, np.nan), "seed_means": {}}
    sums_PK, counts_PK = patient_sums(counted)
    values_P = patient_values(sums_PK, counts_PK)
    mean = float(values_P.mean())
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    draws_B = patient_draws(sums_PK, counts_PK, worst=worst, rng=rng, resamples=resamples, confidence=confidence)
    low, high = np.quantile(draws_B, tails)
    seed_means = dict(_seed_means(counted))
    spread = seed_margin(np.array(list(seed_means.values())), confidence)
    return {
        "mean": mean,
        "low": mean - np.hypot(mean - low, spread),
        "high": mean + np.hypot(high - mean, spread),
        "sd": float(values_P.std(ddof=1)) if len(values_P) > 1 else np.nan,
        "patient_low": low,
        "patient_high": high,
        "seed_means": seed_means,
    }


def _seed_means(counted: pd.DataFrame) -> Iterator[tuple[int, float]]:
    for seed, part in counted.groupby("seed"):
        yield seed, float(part.groupby("structure")["scored"].mean().mean())
