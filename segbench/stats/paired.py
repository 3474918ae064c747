"""Paired comparison of methods with the patient as the unit.

Per task and pair: mean difference with interval, the test and the direction of `segbench.stats.decision` with Holm
over the family, effect sizes, Bayesian signed-rank with a region of practical equivalence (baycomp), minimum detectable
difference (statsmodels) and the split of variance between cases and seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import baycomp
import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.power import TTestPower

from segbench.stats.aggregate import seed_effects
from segbench.stats.coverage import DIFFERENCE, measured_coverage
from segbench.stats.decision import (
    DEFAULT_RULE,
    Rule,
    correct,
    directions,
    rank_biserial,
    rule_p,
    sign_flip_p,
    wilcoxon_p,
)
from segbench.stats.intervals import SeedSpread, welch_degrees
from segbench.stats.methods import case_table, method_labels, patient_differences
from segbench.stats.missing_masks import Handling, apply_handling, lower_is_better, scale_of

EQUIVALENCE = {"dice": 0.01, "iou": 0.01, "nsd": 0.01, "nsd_voxel": 0.01}
"""Half-width of the region of practical equivalence: one Dice point; 1 mm for distances, see `region`."""
WILCOXON_EFFICIENCY = 3 / np.pi
PROBABLE = 0.95
POSTERIOR_DRAWS = 50_000
FEW_PATIENTS = 3
"""Up to this many patients equivalence is not judged and no minimum detectable difference."""


def region(metric: str) -> float:
    """Return the default half-width of the region of practical equivalence in the unit of the metric."""
    return EQUIVALENCE.get(metric, 1.0 if lower_is_better(metric) else 0.01)


def paired_table(
    rows: pd.DataFrame,
    *,
    metric: str,
    missing_masks: Mapping[str, Handling] | None = None,
    alpha: float = 0.05,
    rope: float | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    reference: str | None = None,
    rule: Rule = DEFAULT_RULE,
    seed: int = 0,
) -> pd.DataFrame:
    """Return one row per (experiment, task, method_a, method_b): `difference` is a minus b in the metric's unit.

    Columns: n_patients, n_seeds_a, n_seeds_b, difference, low, high (Student over patients; with several seeds their
    spread is added, see `seed_variances`), seed_degrees (degrees of freedom of that spread, 0 when seeds are not in
    the interval), coverage_low, coverage_high (measured for that many patients), median_difference, rule, p_value (of
    the rule's test), p_mean, p_ranks, sign_of_mean, sign_of_ranks, rank_biserial and cohen_dz (effect sizes, positive
    when a is larger), p_a_better, p_equivalent, p_b_better, region, status (reading of the posterior),
    minimum_detectable (80 % power at `alpha`), and what `decision.correct` adds: family_name, family, p_holm,
    significant, better, attainable_p_holm, can_be_significant. `pairs` restricts the comparisons; by default all pairs
    of methods. The pairs that hold `reference` are the primary family.
    Differences without spread or with fewer than two patients keep NaN where nothing can be said.
    """
    half = region(metric) if rope is None else rope
    parts = []
    for experiment in rows["experiment"].unique():
        table = case_table(rows, metric=metric, missing_masks=missing_masks, experiment=experiment)
        seeds = seed_variances(rows[rows["experiment"] == experiment], metric=metric, missing_masks=missing_masks)
        wanted = list(itertools.combinations(table.columns, 2)) if pairs is None else pairs
        records = [
            {"experiment": experiment, "metric": metric, "task": task, "method_a": a, "method_b": b}
            | compare_pair(
                patient_differences(part[[a, b]]).to_numpy(),
                rope=half,
                alpha=alpha,
                lower_is_better=lower_is_better(metric),
                seeds=(seeds[str(task), a], seeds[str(task), b]),
                bound=span(metric),
                rule=rule,
                rng=np.random.default_rng([seed, index]),
            )
            for index, (task, part) in enumerate(table.groupby(level="task", sort=False))
            for a, b in wanted
            if {a, b} <= set(table.columns) and part[[a, b]].notna().any().all()
        ]
        parts.append(correct(pd.DataFrame.from_records(records), reference=reference, rule=rule, alpha=alpha))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def span(metric: str) -> float:
    """Return how far two values of the metric can lie apart; infinite for metrics without an upper end."""
    scale = scale_of(metric, None)
    return scale.high - scale.low


@dataclass(frozen=True)
class Seeds:
    """Seeds of one method on one task: how many, the variance of one seed's effect, and its degrees of freedom."""

    count: int = 1
    variance: float = 0.0
    degrees: int = 0


def seed_variances(
    rows: pd.DataFrame, *, metric: str, missing_masks: Mapping[str, Handling] | None
) -> dict[tuple[str, str], Seeds]:
    """Return per (task, method) the spread between its seeds.

    Two or three seeds of one method say next to nothing about their spread, so it is pooled over the methods of a task:
    the mean of their variances weighted by degrees of freedom (seeds - 1), what patients explain taken off. A method
    with one seed takes the pooled spread of the others. When every method has one seed there is nothing to pool, and
    intervals are conditional on the trained models.
    """
    chosen = apply_handling(rows[rows["metric"] == metric], missing_masks)
    chosen = chosen[chosen["counted"]].assign(method=method_labels(chosen))
    found: dict[tuple[str, str], Seeds] = {}
    for task, of_task in chosen.groupby("task", sort=False):
        spreads = {str(method): seed_effects(part)[0] for method, part in of_task.groupby("method", sort=False)}
        found |= {(str(task), method): seeds for method, seeds in pool_seeds(spreads).items()}
    return found


def pool_seeds(spreads: Mapping[str, SeedSpread]) -> dict[str, Seeds]:
    """Return per method its number of seeds, with the variance and its degrees of freedom pooled over methods."""
    several = [(spread.variance, len(spread.means_S) - 1) for spread in spreads.values() if len(spread.means_S) > 1]
    degrees = sum(own for _, own in several)
    pooled = max(sum(variance * own for variance, own in several) / degrees, 0.0) if several else 0.0
    return {method: Seeds(len(spread.means_S), pooled, degrees) for method, spread in spreads.items()}


def compare_pair(
    differences_P: np.ndarray,
    *,
    rope: float,
    alpha: float,
    lower_is_better: bool,
    rng: np.random.Generator,
    seeds: tuple[Seeds, Seeds] = (Seeds(), Seeds()),
    bound: float = np.inf,
    rule: Rule = DEFAULT_RULE,
) -> dict[str, object]:
    """Return the uncorrected statistics of one pair from one difference per patient; see `paired_table`."""
    count = len(differences_P)
    mean = float(differences_P.mean()) if count else np.nan
    spread = float(differences_P.std(ddof=1)) if count > 1 else np.nan
    low, high = np.clip(difference_interval(differences_P, seeds, alpha=alpha), -bound, bound)
    coverage = measured_coverage(count, DIFFERENCE)
    signs = directions(differences_P)
    left, middle, right = equivalence(differences_P, rope, rng)
    a_better, b_better = (left, right) if lower_is_better else (right, left)
    return {
        "n_patients": count,
        "difference": mean,
        "low": float(low),
        "high": float(high),
        "n_seeds_a": seeds[0].count,
        "n_seeds_b": seeds[1].count,
        "seed_degrees": seeds[0].degrees,
        "coverage_low": coverage[0],
        "coverage_high": coverage[1],
        "median_difference": float(np.median(differences_P)) if count else np.nan,
        "sd": spread,
        "rule": rule,
        "p_value": rule_p(differences_P, rule),
        "p_mean": sign_flip_p(differences_P),
        "p_ranks": wilcoxon_p(differences_P),
        "sign_of_mean": signs.mean,
        "sign_of_ranks": signs.ranks,
        "lower_is_better": lower_is_better,
        "rank_biserial": rank_biserial(differences_P),
        "cohen_dz": mean / spread if spread > 0 else np.nan,
        "region": rope,
        "p_a_better": a_better,
        "p_equivalent": middle,
        "p_b_better": b_better,
        "status": posterior_status(
            a_better, middle, b_better, patients=count, inside=-rope <= low and high <= rope, conflict=signs.conflicting
        ),
        "minimum_detectable": minimum_detectable(spread, count, alpha=alpha),
    }


def student_interval(values_P: np.ndarray, *, alpha: float) -> tuple[float, float]:
    """Return Student's interval of the mean; NaN below two patients, the mean itself without spread."""
    if len(values_P) < 2:
        return (np.nan, np.nan)
    if np.ptp(values_P) == 0:
        return (float(values_P[0]), float(values_P[0]))
    found = stats.ttest_1samp(values_P, 0).confidence_interval(1 - alpha)
    return (float(found.low), float(found.high))


def difference_interval(
    differences_P: np.ndarray, seeds: tuple[Seeds, Seeds] = (Seeds(), Seeds()), *, alpha: float
) -> tuple[float, float]:
    """Return the interval of the mean difference over patients and seeds.

    The variance of the mean is that of patients (with what patients and seeds do together) plus each method's seed
    variance over its number of seeds; the quantile is Student's with Welch and Satterthwaite's degrees of freedom.
    Without a spread of seeds it is `student_interval`.
    """
    own = sum(method.variance / method.count for method in seeds)
    if own == 0 or len(differences_P) < 2:
        return student_interval(differences_P, alpha=alpha)
    patients = float(differences_P.var(ddof=1)) / len(differences_P)
    degrees = welch_degrees([(patients, len(differences_P) - 1), (own, seeds[0].degrees)])
    half = float(stats.t.ppf(1 - alpha / 2, degrees) * np.sqrt(patients + own))
    return float(differences_P.mean()) - half, float(differences_P.mean()) + half


def equivalence(
    differences_P: np.ndarray, rope: float, rng: np.random.Generator, *, samples: int = POSTERIOR_DRAWS
) -> tuple[float, float, float]:
    """Return posterior probabilities that the difference is below, inside and above the region (Benavoli et al. 2014).

    The three are about the pseudo-median of the differences (the signed-rank statistic), not about their mean: two
    missed structures in forty hardly move them. `samples` draws give a Monte-Carlo error of at most 0.0023. No patient
    gives NaN.
    """
    if not len(differences_P):
        return (np.nan, np.nan, np.nan)
    left, middle, right = baycomp.SignedRankTest.probs(
        np.zeros(len(differences_P)), differences_P, rope, nsamples=samples, random_state=int(rng.integers(2**31))
    )
    return float(left), float(middle), float(right)


def posterior_status(
    a_better: float, middle: float, b_better: float, *, patients: int, inside: bool, conflict: bool = False
) -> str:
    """Return the reading of the posterior: one side or equivalence above 95 %, otherwise undecided.

    Args:
        a_better: posterior probability that a is better by more than the region.
        middle: posterior probability that the difference lies inside the region.
        b_better: posterior probability that b is better by more than the region.
        patients: number of patients; FEW_PATIENTS or fewer are always undecided.
        inside: whether the interval of the mean lies inside the region. Equivalence needs it, because the posterior is
            about ranks and hardly sees a few missed structures.
        conflict: whether the mean and the ranks point to different methods; then no side is named.
    """
    if patients <= FEW_PATIENTS:
        return "undecided"
    if middle > PROBABLE and inside:
        return "practically equivalent"
    for probability, words in ((a_better, "a better"), (b_better, "b better")):
        if probability > PROBABLE and not conflict:
            return words
    return "undecided"


def minimum_detectable(sd: float, patients: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest mean difference that a paired test of so many patients finds with the given power.

    Student's power (statsmodels), widened by the efficiency 3/pi of the signed-rank test under normality; in the unit
    of `sd`. NaN up to FEW_PATIENTS patients.
    """
    if patients <= FEW_PATIENTS or not np.isfinite(sd):
        return np.nan
    effect = TTestPower().solve_power(nobs=patients * WILCOXON_EFFICIENCY, alpha=alpha, power=power)
    return float(np.squeeze(effect) * sd)


def detectable_per_task(paired: pd.DataFrame) -> pd.DataFrame:
    """Return per (experiment, task) the median, smallest and largest minimum detectable difference over its pairs."""
    grouped = paired.groupby(["experiment", "task"], sort=False)
    return grouped.agg(
        n_patients=("n_patients", "max"),
        sd_of_differences=("sd", "median"),
        minimum_detectable=("minimum_detectable", "median"),
        smallest=("minimum_detectable", "min"),
        largest=("minimum_detectable", "max"),
    ).reset_index()


def variance_split(
    rows: pd.DataFrame, *, metric: str, missing_masks: Mapping[str, Handling] | None = None
) -> pd.DataFrame:
    """Return how the variance of values splits between cases and seeds, per (experiment, task, method).

    Two-way analysis of variance without replication over (patient, seed) means: var_cases, var_seeds, var_residual
    (unit squared, negative estimates are 0) and their fractions. With one seed only var_cases is known, and it then
    includes the residual; the seed columns are NaN.
    """
    chosen = apply_handling(rows[rows["metric"] == metric], missing_masks)
    chosen = chosen[chosen["counted"]].assign(method=method_labels(chosen))
    records = []
    for key, part in chosen.groupby(["experiment", "task", "method"], sort=False):
        means = part.groupby(["patient", "seed", "structure"])["scored"].mean().groupby(["patient", "seed"]).mean()
        table_PS = means.unstack("seed").dropna().to_numpy()
        names = ("experiment", "task", "method")
        records.append(dict(zip(names, key, strict=True)) | _components(table_PS))
    return pd.DataFrame.from_records(records)


def _components(table_PS: np.ndarray) -> dict[str, float]:
    patients, seeds = table_PS.shape
    counts = {"n_patients": patients, "n_seeds": seeds}
    if patients < 2 or seeds < 2:
        only = float(table_PS.mean(axis=1).var(ddof=1)) if patients > 1 else np.nan
        names = ("var_seeds", "var_residual", "fraction_cases", "fraction_seeds")
        return counts | {"var_cases": only, **dict.fromkeys(names, np.nan)}
    rows_P, columns_S = table_PS.mean(axis=1), table_PS.mean(axis=0)
    residual_PS = table_PS - rows_P[:, None] - columns_S + table_PS.mean()
    residual = float((residual_PS**2).sum() / ((patients - 1) * (seeds - 1)))
    cases = max(float(rows_P.var(ddof=1)) - residual / seeds, 0.0)
    seed = max(float(columns_S.var(ddof=1)) - residual / patients, 0.0)
    total = cases + seed + residual
    fractions = {"fraction_cases": cases / total, "fraction_seeds": seed / total} if total > 0 else {}
    return counts | {"var_cases": cases, "var_seeds": seed, "var_residual": residual} | fractions
