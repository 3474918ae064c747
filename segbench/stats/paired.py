"""Paired comparison of methods with the patient as the unit.

Per task and pair: mean difference with interval, the test and the direction of `segbench.stats.decision` with Holm
over the family, effect sizes, Bayesian signed-rank with a region of practical equivalence, minimum detectable
difference (statsmodels) and the split of variance between cases and seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import special, stats
from statsmodels.stats.power import TTestPower

from segbench.stats.aggregate import draw_seeds, fold_spread, seed_effects, spread_over_tasks
from segbench.stats.coverage import DIFFERENCE, measured_coverage
from segbench.stats.decision import (
    DEFAULT_RULE,
    Rule,
    agreement,
    correct,
    directions,
    rank_biserial,
    rule_p,
    sign_flip_p,
    wilcoxon_p,
)
from segbench.stats.intervals import (
    PatientSums,
    Scale,
    SeedSpread,
    combine,
    difference_draws,
    hull,
    interval,
    welch_degrees,
    with_seeds,
)
from segbench.stats.methods import (
    ALL_TASKS,
    CaseTables,
    case_tables,
    method_labels,
    pair_sums,
    patient_differences,
    without_noise,
)
from segbench.stats.missing_masks import Handling, apply_handling, lower_is_better, scale_of

EQUIVALENCE = {"dice": 0.01, "iou": 0.01, "nsd": 0.01, "nsd_voxel": 0.01}
"""Half-width of the region of practical equivalence: one Dice point; 1 mm for distances, see `region`."""
WILCOXON_EFFICIENCY = 3 / np.pi
PROBABLE = 0.95
POSTERIOR_DRAWS = 50_000
NO_FOLDS = SeedSpread(np.empty(0), 0.0)
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

    Columns: n_patients, n_folds, n_seeds_a, n_seeds_b, n_missed_a, n_missed_b (missed structures, counted per case and
    averaged over seeds), difference, low, high (interval over patients that allows for missed structures, see
    `pair_limits`), low_as_seen, high_as_seen (never wider), patient_low, patient_high, patient_low_as_seen,
    patient_high_as_seen (without the spread of seeds and folds), seed_degrees (degrees of freedom of the seeds' spread,
    0 when seeds are not in the interval), coverage_low, coverage_high (measured for coverage_n patients),
    median_difference, rule, p_value (of the rule's test), p_mean, p_ranks, sign_of_mean, sign_of_ranks, rank_biserial
    and cohen_dz (effect sizes, positive when a is larger), p_a_better, p_equivalent, p_b_better (posterior
    probabilities), region, equivalence, minimum_detectable (80 % power at `alpha`), what `decision.correct` adds:
    family_name, family, p_holm, significant, better, attainable_p_holm, can_be_significant; and interval_agrees
    (`decision.agreement`). `pairs` restricts the comparisons; by default all pairs of methods. The pairs that hold
    `reference` are the primary family.
    Differences without spread or with fewer than two patients keep NaN where nothing can be said.
    """
    half = region(metric) if rope is None else rope
    lower = lower_is_better(metric)
    parts = []
    for experiment in rows["experiment"].unique():
        tables = case_tables(rows, metric=metric, missing_masks=missing_masks, experiment=experiment)
        seeds = seed_variances(rows[rows["experiment"] == experiment], metric=metric, missing_masks=missing_masks)
        records = []
        for task, a, b in _compared(tables, pairs):
            own = (seeds[task, a], seeds[task, b])
            differences = patient_differences(tables.values.loc[[task], [a, b]])
            differences_P, folds = differences.to_numpy(), tables.folds[task]
            sums = pair_sums(tables, task, (a, b))
            entropy = draw_seeds(seed, task, metric)
            limits = pair_limits(
                differences_P,
                sums,
                tables.scales[task],
                seeds=own,
                folds=fold_spread(folds.reindex(differences.index).to_numpy(), differences_P)[0],
                alpha=alpha,
                rng_seeds=entropy,
                bound=span(metric),
            )
            missed = tables.missed.loc[[task], [a, b]].sum()
            records.append(
                {"experiment": experiment, "metric": metric, "task": task, "method_a": a, "method_b": b}
                | compare_pair(
                    differences_P,
                    limits,
                    rope=half,
                    alpha=alpha,
                    lower_is_better=lower,
                    seeds=own,
                    rule=rule,
                    draws=posterior_draws(len(differences_P), tuple(entropy)),
                )
                | {"n_missed_a": float(missed[a]), "n_missed_b": float(missed[b]), "n_folds": folds.nunique()}
            )
        parts.append(_decided(records, reference=reference, rule=rule, alpha=alpha))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _compared(tables: CaseTables, pairs: Sequence[tuple[str, str]] | None) -> list[tuple[str, str, str]]:
    """Task and pair of every comparison in which both methods have a value."""
    wanted = list(itertools.combinations(tables.values.columns, 2)) if pairs is None else pairs
    return [
        (str(task), a, b)
        for task, part in tables.values.groupby(level="task", sort=False)
        for a, b in wanted
        if {a, b} <= set(part.columns) and part[[a, b]].notna().any().all()
    ]


def _decided(records: list[dict[str, object]], *, reference: str | None, rule: Rule, alpha: float) -> pd.DataFrame:
    """The table with Holm, the better method and whether the intervals agree with it."""
    table = correct(pd.DataFrame.from_records(records), reference=reference, rule=rule, alpha=alpha)
    if len(table):
        table["interval_agrees"] = [
            agreement(
                row["better"],
                (row["low"], row["high"]),
                (row["low_as_seen"], row["high_as_seen"]),
                lower_is_better=bool(row["lower_is_better"]),
            )
            for row in table.to_dict("records")
        ]
    return table


def paired_with_means(
    rows: pd.DataFrame,
    *,
    metric: str,
    missing_masks: Mapping[str, Handling] | None = None,
    alpha: float = 0.05,
    rope: float | None = None,
    reference: str | None = None,
    rule: Rule = DEFAULT_RULE,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the rows of `paired_table`, then those of `paired_over_tasks`; options are those of `paired_table`."""
    paired = paired_table(
        rows,
        metric=metric,
        missing_masks=missing_masks,
        alpha=alpha,
        rope=rope,
        reference=reference,
        rule=rule,
        seed=seed,
    )
    if paired.empty:
        return paired
    whole = paired_over_tasks(
        rows, paired, metric=metric, missing_masks=missing_masks, alpha=alpha, reference=reference, rule=rule
    )
    return pd.concat([paired, whole], ignore_index=True) if len(whole) else paired


def paired_over_tasks(
    rows: pd.DataFrame,
    paired: pd.DataFrame,
    *,
    metric: str,
    missing_masks: Mapping[str, Handling] | None = None,
    alpha: float = 0.05,
    reference: str | None = None,
    rule: Rule = DEFAULT_RULE,
) -> pd.DataFrame:
    """Return the rows of the task 'all tasks', with the columns of `paired_table`, for pairs that share every task.

    `difference` is the unweighted mean over tasks, so every patient counts with 1 / (patients of the task) / (tasks);
    a patient of two tasks of one data set is one patient with the sum of both. The test of the rule is over these
    patients. The distances from the difference to its limits over patients add in squares over tasks (Zou and Donner
    2008), with the correlation of tasks that have patients in common. The spread of seeds and of folds is that of the
    means over tasks (`spread_over_tasks`). These comparisons are families of their own. Nothing is said about
    equivalence and detectable differences, which are about one task. Empty with one task.
    """
    lower = lower_is_better(metric)
    parts = []
    for experiment, part in paired.groupby("experiment", sort=False):
        tables = case_tables(rows, metric=metric, missing_masks=missing_masks, experiment=str(experiment))
        tasks = list(tables.scales)
        trained = rows[rows["experiment"] == experiment]
        seeds = seeds_over_tasks(trained, tasks, metric=metric, missing_masks=missing_masks)
        records = []
        for (a, b), own in part.groupby(["method_a", "method_b"], sort=False):
            if len(tasks) < 2 or set(own["task"]) != set(tasks):
                continue
            own = own.set_index("task").loc[tasks]
            by_task = {task: _persons(tables, task, str(a), str(b)) for task in tasks}
            values_P = pd.concat([values / len(values) for values in by_task.values()]).groupby(level=[0, 1]).sum()
            values_P = values_P * (len(values_P) / len(tasks))
            correlation_TT = shared_patients(list(by_task.values()))
            of_pair = (seeds[str(a)], seeds[str(b)])
            over_patients = [
                over_tasks(own["difference"], own[f"patient_low{seen}"], own[f"patient_high{seen}"], correlation_TT)
                for seen in ("", "_as_seen")
            ]
            folds = _folds_over_tasks(tables, by_task)
            widened = [_widened(own["difference"].mean(), limits, of_pair, folds, alpha) for limits in over_patients]
            low, high, low_seen, high_seen = np.clip(widened, -span(metric), span(metric)).ravel().tolist()
            limits = Limits(low, high, low_seen, high_seen, Limits(*over_patients[0], *over_patients[1]))
            found = compare_pair(
                without_noise(values_P.to_numpy(), of=pd.concat(by_task.values()).to_numpy()),
                limits,
                rope=np.nan,
                alpha=alpha,
                lower_is_better=lower,
                seeds=of_pair,
                rule=rule,
                draws=None,
            )
            key = {"experiment": experiment, "metric": metric, "task": ALL_TASKS, "method_a": a, "method_b": b}
            missed = {name: float(own[name].sum()) for name in ("n_missed_a", "n_missed_b")}
            records.append(key | found | missed | {"n_folds": int(own["n_folds"].max())})
        decided = _decided(records, reference=reference, rule=rule, alpha=alpha)
        parts.append(decided.assign(family_name=decided["family_name"] + ", over tasks") if len(decided) else decided)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _widened(
    center: float, limits: tuple[float, float], seeds: tuple[Seeds, Seeds], folds: SeedSpread, alpha: float
) -> tuple[float, float]:
    """Return limits over patients that hold the spread of seeds of both methods and that of folds too."""
    half = (limits[1] - limits[0]) / 2 / stats.norm.ppf(1 - alpha / 2)
    margin = seed_margin(seeds, half**2 if np.isfinite(half) else 0.0, alpha=alpha)
    return with_seeds(center, combine(center, limits, margin, Scale()), folds, Scale(), confidence=1 - alpha)


def seed_margin(seeds: tuple[Seeds, Seeds], patient_variance: float, *, alpha: float) -> float:
    """Return half the width of the interval of a difference over seeds; 0 where their spread is unknown or none.

    Student's quantile with Welch and Satterthwaite's degrees of freedom of the sum with the variance over patients.
    """
    own = sum(method.variance / method.count for method in seeds)
    if own == 0:
        return 0.0
    degrees = welch_degrees([(own, seeds[0].degrees), (patient_variance, np.inf)])
    return float(stats.t.ppf(1 - alpha / 2, degrees) * np.sqrt(own))


def _persons(tables: CaseTables, task: str, first: str, second: str) -> pd.Series:
    """Differences of one task with the index (data set, patient)."""
    values = patient_differences(tables.values.loc[[task], [first, second]])
    return pd.concat({tables.datasets[task]: values})


def _folds_over_tasks(tables: CaseTables, by_task: Mapping[str, pd.Series]) -> SeedSpread:
    """Return the spread of the mean over tasks between folds, from the differences of `_persons`."""
    spreads = []
    for task, values in by_task.items():
        fold_P = tables.folds[task].reindex(values.index.get_level_values(1)).to_numpy()
        spreads.append(fold_spread(fold_P, values.to_numpy()))
    return spread_over_tasks(spreads)


def shared_patients(by_task: Sequence[pd.Series]) -> np.ndarray:
    """Return the correlation of the means of tasks (T, T) that comes from patients in common, from values per patient.

    Tasks without a patient in common have 0, and so have tasks without spread.
    """
    centred = pd.concat([values - values.mean() for values in by_task], axis=1).fillna(0.0).to_numpy()
    products_TT = centred.T @ centred
    norms_T = np.sqrt(np.diag(products_TT))
    scale_TT = np.outer(norms_T, norms_T)
    correlation_TT = np.divide(products_TT, scale_TT, out=np.zeros_like(products_TT), where=scale_TT > 0)
    np.fill_diagonal(correlation_TT, 1.0)
    return correlation_TT


def over_tasks(
    centers: pd.Series, lows: pd.Series, highs: pd.Series, correlation_TT: np.ndarray
) -> tuple[float, float]:
    """Return the limits of the unweighted mean of `centers` (Zou and Donner 2008); a task without limits gives NaN."""
    mean, count = float(centers.mean()), len(centers)
    below_T, above_T = (centers - lows).to_numpy(float), (highs - centers).to_numpy(float)
    below, above = (np.sqrt(max(side_T @ correlation_TT @ side_T, 0.0)) / count for side_T in (below_T, above_T))
    return mean - float(below), mean + float(above)


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


def seeds_over_tasks(
    rows: pd.DataFrame, tasks: Sequence[str], *, metric: str, missing_masks: Mapping[str, Handling] | None
) -> dict[str, Seeds]:
    """Return per method the spread between its seeds' means over tasks, pooled as in `seed_variances`.

    A method without a value on every task is left out.
    """
    chosen = apply_handling(rows[rows["metric"] == metric], missing_masks)
    chosen = chosen[chosen["counted"]].assign(method=method_labels(chosen))
    spreads = {
        str(method): spread_over_tasks([seed_effects(of_task) for _, of_task in part.groupby("task", sort=False)])
        for method, part in chosen.groupby("method", sort=False)
        if part["task"].nunique() == len(tasks)
    }
    return pool_seeds(spreads)


def pool_seeds(spreads: Mapping[str, SeedSpread]) -> dict[str, Seeds]:
    """Return per method its number of seeds, with the variance and its degrees of freedom pooled over methods."""
    several = [(spread.variance, len(spread.means_S) - 1) for spread in spreads.values() if len(spread.means_S) > 1]
    degrees = sum(own for _, own in several)
    pooled = max(sum(variance * own for variance, own in several) / degrees, 0.0) if several else 0.0
    return {method: Seeds(max(1, len(spread.means_S)), pooled, degrees) for method, spread in spreads.items()}


@dataclass(frozen=True)
class Limits:
    """Interval of a mean difference that allows for missed structures, and the interval as seen.

    patients: the same without the spread of seeds and folds; None where there is none.
    """

    low: float
    high: float
    low_as_seen: float
    high_as_seen: float
    patients: Limits | None = None


def pair_limits(
    differences_P: np.ndarray,
    sums: tuple[PatientSums, PatientSums],
    scale: Scale,
    *,
    seeds: tuple[Seeds, Seeds] = (Seeds(), Seeds()),
    folds: SeedSpread = NO_FOLDS,
    alpha: float,
    rng_seeds: Sequence[int],
    bound: float = np.inf,
    resamples: int = 4000,
) -> Limits:
    """Return the limits of the mean difference of one pair on one task.

    As seen: `difference_interval` where neither method missed a structure, else the draws of `difference_draws` in
    which only structures that were seen to be missed are missed. The other interval draws missed structures that were
    not seen as well, and holds the interval as seen. Both hold the spread of seeds and that of folds.

    Args:
        differences_P: one difference per patient.
        sums: hits and missed structures of both methods (`methods.pair_sums`).
        scale: range of the metric; without a value of missed structures both intervals are that as seen.
        seeds: seeds of both methods.
        folds: spread of the mean difference between the models of folds.
        alpha: 1 - confidence.
        rng_seeds: seed of the draws.
        bound: how far two values can lie apart.
        resamples: number of draws.
    """
    mean = float(differences_P.mean()) if len(differences_P) else np.nan
    drawn: list[tuple[float, float]] = []
    if scale.worst is not None and len(differences_P) > 1:
        draws_2B = difference_draws(*sums, scale, rng=np.random.default_rng(rng_seeds), resamples=resamples)
        drawn = [interval(draws_B, 1 - alpha) for draws_B in draws_2B]

    def limits_with(seeds: tuple[Seeds, Seeds], folds: SeedSpread, patients: Limits | None = None) -> Limits:
        seen = difference_interval(differences_P, seeds, alpha=alpha)
        limits = seen
        if drawn:
            margin = seed_margin(seeds, float(differences_P.var(ddof=1)) / len(differences_P), alpha=alpha)
            own_seen, own = (combine(mean, over_patients, margin, Scale()) for over_patients in drawn)
            if any(method.missed_PK.any() for method in sums):
                seen = own_seen
            limits = hull(seen, own)
        if folds.variance > 0:
            seen, limits = (with_seeds(mean, own, folds, Scale(), confidence=1 - alpha) for own in (seen, limits))
            limits = hull(seen, limits)
        low, high, low_as_seen, high_as_seen = map(float, np.clip([*limits, *seen], -bound, bound))
        return Limits(low, high, low_as_seen, high_as_seen, patients)

    return limits_with(seeds, folds, limits_with((Seeds(), Seeds()), NO_FOLDS))


def compare_pair(
    differences_P: np.ndarray,
    limits: Limits,
    *,
    rope: float,
    alpha: float,
    lower_is_better: bool,
    draws: np.ndarray | None,
    seeds: tuple[Seeds, Seeds] = (Seeds(), Seeds()),
    rule: Rule = DEFAULT_RULE,
) -> dict[str, object]:
    """Return the uncorrected statistics of one pair from one difference per patient; see `paired_table`.

    Without `draws` (`posterior_draws`) nothing is said about equivalence and detectable differences.
    """
    count = len(differences_P)
    mean = float(differences_P.mean()) if count else np.nan
    spread = float(differences_P.std(ddof=1)) if count > 1 else np.nan
    coverage, patients = measured_coverage(count, DIFFERENCE, confidence=1 - alpha), limits.patients or limits
    signs = directions(differences_P)
    left, middle, right = (np.nan,) * 3 if draws is None else equivalence(differences_P, rope, draws)
    a_better, b_better = (left, right) if lower_is_better else (right, left)
    return {
        "n_patients": count,
        "difference": mean,
        "low": limits.low,
        "high": limits.high,
        "low_as_seen": limits.low_as_seen,
        "high_as_seen": limits.high_as_seen,
        "patient_low": patients.low,
        "patient_high": patients.high,
        "patient_low_as_seen": patients.low_as_seen,
        "patient_high_as_seen": patients.high_as_seen,
        "n_seeds_a": seeds[0].count,
        "n_seeds_b": seeds[1].count,
        "seed_degrees": seeds[0].degrees,
        "coverage_low": coverage[0],
        "coverage_high": coverage[1],
        "coverage_n": coverage[2],
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
        "equivalence": equivalence_reading(
            middle,
            patients=count,
            inside=-rope <= limits.low and limits.high <= rope,
            inside_as_seen=-rope <= limits.low_as_seen and limits.high_as_seen <= rope,
        ),
        "minimum_detectable": np.nan if draws is None else minimum_detectable(spread, count, alpha=alpha),
    }


def student_interval(values_P: np.ndarray, *, alpha: float) -> tuple[float, float]:
    """Return Student's interval of the mean; NaN below two patients, the mean itself without spread."""
    if len(values_P) < 2:
        return (np.nan, np.nan)
    if np.ptp(values_P) == 0:
        return (float(values_P[0]), float(values_P[0]))
    mean, count = float(values_P.mean()), len(values_P)
    half = float(special.stdtrit(count - 1, 1 - alpha / 2) * values_P.std(ddof=1) / np.sqrt(count))
    return (mean - half, mean + half)


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


@lru_cache(maxsize=1)
def posterior_draws(patients: int, seeds: tuple[int, ...]) -> np.ndarray:
    """Return draws of the weights (POSTERIOR_DRAWS, 1 + patients) of the prior's difference and of each patient.

    The prior is one more difference of 0, with half a patient's weight. Pairs of one task have the same seeds,
    so that a task draws once; its array is kept until another is asked for.
    """
    concentration_Q = np.r_[0.5, np.ones(patients)]
    return np.random.default_rng(seeds).dirichlet(concentration_Q, POSTERIOR_DRAWS)


def equivalence(differences_P: np.ndarray, rope: float, draws_BQ: np.ndarray) -> tuple[float, float, float]:
    """Return posterior probabilities that the difference is below, inside and above the region (Benavoli et al. 2014).

    The three are about the pseudo-median of the differences (the signed-rank statistic), not about their mean: two
    missed structures in forty hardly move them. POSTERIOR_DRAWS draws give a Monte-Carlo error of at most 0.0023. No
    patient gives NaN. `draws_BQ` are those of `posterior_draws`.
    """
    if not len(differences_P):
        return (np.nan, np.nan, np.nan)
    values_Q = np.r_[0.0, differences_P]
    sums_QQ = values_Q[:, None] + values_Q
    below_B, above_B = (
        ((draws_BQ @ np.heaviside(sign * sums_QQ - 2 * rope, 0.5)) * draws_BQ).sum(axis=1) for sign in (-1, 1)
    )
    middle_B = 1 - below_B - above_B
    winners = np.stack([below_B, middle_B, above_B]).argmax(axis=0)
    left, middle, right = np.bincount(winners, minlength=3) / len(draws_BQ)
    return float(left), float(middle), float(right)


def equivalence_reading(
    middle: float,
    *,
    patients: int,
    inside: bool,
    inside_as_seen: bool,
) -> str:
    """Return whether two methods are practically equivalent; who is better is said by `decision.decide` alone.

    Args:
        middle: posterior probability that the pseudo-median of the differences lies inside the region.
        patients: number of patients; of FEW_PATIENTS or fewer nothing is said.
        inside: whether the interval of the mean lies inside the region. Equivalence needs it, because the posterior is
            about ranks and hardly sees a few missed structures.
        inside_as_seen: whether at least the interval as seen does.

    Returns:
        'practically equivalent', 'equivalent as seen' (only the interval as seen lies inside) or 'not shown'.
    """
    if patients <= FEW_PATIENTS or not (middle > PROBABLE and inside_as_seen):
        return "not shown"
    return "practically equivalent" if inside else "equivalent as seen"


def minimum_detectable(sd: float, patients: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest mean difference that a paired test of so many patients finds with the given power.

    Student's power (statsmodels), widened by the efficiency 3/pi of the signed-rank test under normality; in the unit
    of `sd`. NaN up to FEW_PATIENTS patients, and without spread: equal differences do not show how far others scatter.
    """
    if patients <= FEW_PATIENTS or not sd > 0:
        return np.nan
    effect = TTestPower().solve_power(nobs=patients * WILCOXON_EFFICIENCY, alpha=alpha, power=power)
    return float(np.squeeze(effect) * sd)


def detectable_per_task(paired: pd.DataFrame) -> pd.DataFrame:
    """Return per (experiment, task) the median, smallest and largest minimum detectable difference over its pairs.

    `attainable_p_holm` is the smallest corrected p value that the task's patients can reach in any family, and
    `can_be_significant` whether it lies below the level. Empty where no pair was compared.
    """
    keys = ["experiment", "task"]
    columns = {
        "n_patients": ("n_patients", "max"),
        "sd_of_differences": ("sd", "median"),
        "minimum_detectable": ("minimum_detectable", "median"),
        "smallest": ("minimum_detectable", "min"),
        "largest": ("minimum_detectable", "max"),
        "attainable_p_holm": ("attainable_p_holm", "min"),
        "can_be_significant": ("can_be_significant", "any"),
    }
    if paired.empty:
        return pd.DataFrame(columns=[*keys, *columns])
    return paired.groupby(keys, sort=False).agg(**columns).reset_index()


def variance_split(
    rows: pd.DataFrame, *, metric: str, missing_masks: Mapping[str, Handling] | None = None
) -> pd.DataFrame:
    """Return how the variance of values splits between cases and seeds, per (experiment, task, method).

    Two-way analysis of variance without replication over (patient, seed) means: var_cases, var_seeds, var_residual
    (unit squared, negative estimates are 0) and their fractions. With one seed only var_cases is known, and it then
    includes the residual; the seed columns are NaN. Methods of which nothing counts are left out.
    """
    chosen = apply_handling(rows[rows["metric"] == metric], missing_masks)
    chosen = chosen[chosen["counted"]].assign(method=method_labels(chosen))
    names, records = ["experiment", "task", "method"], []
    for key, part in chosen.groupby(names, sort=False):
        means = part.groupby(["patient", "seed", "structure"])["scored"].mean().groupby(["patient", "seed"]).mean()
        table_PS = means.unstack("seed").dropna().to_numpy()
        records.append(dict(zip(names, key, strict=True)) | _components(table_PS))
    return pd.DataFrame.from_records(records, columns=None if records else [*names, *_components(np.empty((0, 0)))])


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
