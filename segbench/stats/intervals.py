"""Confidence intervals of a cell that hold with nine patients and missed structures.

Scores of a segmentation task are a mixture: missed structures, exactly on the worst value, and hits around a level. A
bootstrap of nine patients without a missed structure cannot know of missed structures, so its interval fails whenever
they exist. Here

* the fraction of missed structures is drawn with Dirichlet(1, ..., 1) weights over the patients and one more patient.
  Where missed structures were seen, a part of that patient is missed (for one structure: Jeffreys' Beta(k + 1/2,
  n - k + 1/2)); where none was seen, the patient is missed with probability 1/2 (mid-P, with half of its mass on none);
* the mean of the hits gets Student's distribution over patients, jointly for all structures, kept inside its range;
* both are combined draw by draw. Measured coverage: docs/statistics.md, `python -m benchmarks.coverage`.

Legend of suffixes: P patients, K structures, B draws, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats


@dataclass(frozen=True)
class PatientSums:
    """Per patient and structure: sum and number of the hits, and number of the missed (values on the worst value)."""

    hit_sums_PK: np.ndarray
    hits_PK: np.ndarray
    missed_PK: np.ndarray

    @property
    def counts_PK(self) -> np.ndarray:
        """Number of values that count."""
        return self.hits_PK + self.missed_PK


@dataclass(frozen=True)
class Scale:
    """Range of a metric; `worst` is what a missed structure counts as, or None when it does not enter the mean."""

    low: float = -np.inf
    high: float = np.inf
    worst: float | None = None


def mean_draws(sums: PatientSums, scale: Scale, *, rng: np.random.Generator, resamples: int = 2000) -> np.ndarray:
    """Return draws (2, B) of the mean over structures of the per-structure means; their quantiles are the limits.

    In the first row only structures that were seen to be missed are ever missed ("as seen"); the second row allows for
    missed structures that were not seen. A single patient gives NaN. A structure with hits of one patient only is drawn
    from the metric's whole range, and makes the draws NaN where that range is not finite.
    """
    if len(sums.hits_PK) < 2:
        return np.full((2, resamples), np.nan)
    means_2BK = _structure_draws(sums, scale, rng, resamples, methods=1)
    return means_2BK.mean(axis=2)


def difference_draws(
    first: PatientSums, second: PatientSums, scale: Scale, *, rng: np.random.Generator, resamples: int = 4000
) -> np.ndarray:
    """Return draws (2, B) of the mean difference of two methods on the same patients and structures, as `mean_draws`.

    Both methods have the same patient weights, so that what a patient does to both cancels; each has its own part of
    the further patient, so that either may miss what the other finds. Structures weigh as their counts do. The draws of
    second minus first are those of first minus second with the sign changed. A single patient gives NaN.
    """
    if len(first.hits_PK) < 2:
        return np.full((2, resamples), np.nan)
    both = PatientSums(
        *(
            np.concatenate([getattr(first, name), getattr(second, name)], axis=1)
            for name in ("hit_sums_PK", "hits_PK", "missed_PK")
        )
    )
    means_2BK = _structure_draws(both, scale, rng, resamples, methods=2)
    weights_K = first.counts_PK.sum(axis=0) / first.counts_PK.sum()
    signed_K = np.concatenate([weights_K, -weights_K])
    differences_2B: np.ndarray = means_2BK @ signed_K
    return differences_2B


def _structure_draws(
    sums: PatientSums, scale: Scale, rng: np.random.Generator, resamples: int, *, methods: int
) -> np.ndarray:
    """Draws (2, B, methods * K) of per-structure means; `sums` holds the structures of one method after the other."""
    distinct = resamples // methods
    means_BK = _hit_mean_draws(sums, scale, rng, distinct)
    if methods == 2:
        means_BK = np.concatenate([means_BK, means_BK])
    if scale.worst is None:
        return np.stack([means_BK, means_BK])
    missed_2BK = _missed_fraction_draws(sums, rng, distinct, methods=methods)
    return (1 - missed_2BK) * means_BK + missed_2BK * scale.worst


def interval(draws_B: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Return the equal-tailed interval of the draws; NaN draws give NaN limits."""
    low, high = np.quantile(draws_B, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def hull(limits: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Return the smallest interval that holds both; NaN where one of them has no limit."""
    return float(np.minimum(limits[0], other[0])), float(np.maximum(limits[1], other[1]))


def cell_limits(
    sums: PatientSums, scale: Scale, *, rng_seeds: Sequence[int], confidence: float = 0.95, resamples: int = 2000
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the interval of a cell over patients that allows for missed structures, and the interval as seen.

    Both come from the same draws, and the first holds the second.
    """
    draws_2B = mean_draws(sums, scale, rng=np.random.default_rng(rng_seeds), resamples=resamples)
    seen, limits = (interval(draws_B, confidence) for draws_B in draws_2B)
    return hull(limits, seen), seen


def sums_of_values(values_PK: np.ndarray, scale: Scale) -> PatientSums:
    """Return the sums of a complete table with one value per patient and structure."""
    missed_PK = np.zeros(values_PK.shape, bool) if scale.worst is None else values_PK == scale.worst
    return PatientSums(np.where(missed_PK, 0.0, values_PK), (~missed_PK).astype(float), missed_PK.astype(float))


def _missed_fraction_draws(sums: PatientSums, rng: np.random.Generator, distinct: int, *, methods: int) -> np.ndarray:
    """Fraction of missed values per structure (2, B, methods * K); all structures have the same patient weights.

    As seen first, then with missed structures that were not seen. With two methods every draw is there twice, with the
    methods' parts of the further patient exchanged.
    """
    weights_BP = rng.standard_exponential((distinct, len(sums.hits_PK)))
    extra_B1 = rng.standard_exponential((distinct, 1))
    wholly_BM = rng.random((distinct, methods)) < 0.5
    partly_BM = rng.beta(0.5, 0.5, (distinct, methods))
    per_patient_K = sums.counts_PK.sum(axis=0) / np.maximum(np.count_nonzero(sums.counts_PK, axis=0), 1)
    missed_BK = weights_BP @ sums.missed_PK
    counts_BK = weights_BP @ sums.counts_PK + extra_B1 * per_patient_K
    if methods == 2:
        missed_BK, counts_BK, extra_B1 = (np.concatenate([own, own]) for own in (missed_BK, counts_BK, extra_B1))
        wholly_BM, partly_BM = (np.concatenate([own, own[:, ::-1]]) for own in (wholly_BM, partly_BM))
    structures = sums.hits_PK.shape[1] // methods
    wholly_BK, partly_BK = (np.repeat(own, structures, axis=1) for own in (wholly_BM, partly_BM))
    seen_K = sums.missed_PK.any(axis=0)
    extra_2BK = np.stack([np.where(seen_K, partly_BK, 0.0), np.where(seen_K, partly_BK, wholly_BK)])
    missed_2BK: np.ndarray = (missed_BK + extra_2BK * extra_B1 * per_patient_K) / counts_BK
    return missed_2BK


def _hit_mean_draws(sums: PatientSums, scale: Scale, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Mean of the hits per structure (B, K): multivariate Student draws around the observed means."""
    patients_K = np.count_nonzero(sums.hits_PK, axis=0)
    means_K = sums.hit_sums_PK.sum(axis=0) / np.maximum(sums.hits_PK.sum(axis=0), 1)
    influence_PK = (sums.hit_sums_PK - means_K * sums.hits_PK) / np.maximum(sums.hits_PK.sum(axis=0), 1)
    noise_BK = rng.standard_normal((resamples, len(influence_PK))) @ influence_PK
    widening_BK = _student_widening(patients_K, rng.random(resamples))
    draws_BK = np.clip(means_K + noise_BK * widening_BK, scale.low, scale.high)
    unknown_K = patients_K < 2
    if unknown_K.any():
        draws_BK[:, unknown_K] = _anywhere(scale, rng, (resamples, int(unknown_K.sum())))
    return draws_BK


def _student_widening(patients_K: np.ndarray, level_B: np.ndarray) -> np.ndarray:
    """Factors (B, K) that turn normal draws of n patients into Student's; one level for all structures of a draw."""
    degrees, of_K = np.unique(np.maximum(patients_K - 1, 1), return_inverse=True)
    chi_squared = 2 * special.gammaincinv(degrees / 2, level_B[:, None])  # quantiles, as scipy.stats.chi2.ppf
    factors = np.sqrt((degrees + 1) / chi_squared)
    return factors[:, of_K]


def _anywhere(scale: Scale, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    ends = [end for end in (scale.low, scale.high, scale.worst) if end is not None and np.isfinite(end)]
    if len(set(ends)) < 2:
        return np.full(shape, np.nan)
    return rng.uniform(min(ends), max(ends), shape)


@dataclass(frozen=True)
class SeedSpread:
    """Between-seed part of a mean: per-seed means and the part of their variance that patients explain."""

    means_S: np.ndarray
    noise: float

    @property
    def variance(self) -> float:
        """Variance of one seed's effect, which may come out negative; NaN for one seed, whose spread is unknown."""
        return float(self.means_S.var(ddof=1)) - self.noise if len(self.means_S) > 1 else np.nan

    def margin(self, confidence: float = 0.95, *, patient_variance: float = 0.0) -> float:
        """Return half the width of the interval of the mean over seeds; 0 for one seed.

        Student's quantile with Welch and Satterthwaite's degrees of freedom of the sum with `patient_variance`, the
        variance of the same mean over patients: two seeds alone have one degree of freedom (quantile 12.7), but when
        patients make most of the variance the uncertainty of the seeds' fraction of it matters little.
        """
        seeds = len(self.means_S)
        own = max(self.variance, 0.0) / seeds if seeds > 1 else 0.0
        if own == 0:
            return 0.0
        degrees = welch_degrees([(own, seeds - 1), (patient_variance, np.inf)])
        return float(stats.t.ppf((1 + confidence) / 2, degrees) * np.sqrt(own))


def welch_degrees(parts: Sequence[tuple[float, float]]) -> float:
    """Return the degrees of freedom of a sum of variances (variance, its degrees), Welch and Satterthwaite."""
    uncertainty = sum(variance**2 / degrees for variance, degrees in parts)
    return float(sum(variance for variance, _ in parts) ** 2 / uncertainty) if uncertainty > 0 else np.inf


def seed_spread(values_PS: np.ndarray) -> SeedSpread:
    """Return the spread between seeds of a complete patient-by-seed table (two-way analysis of variance).

    `noise` is the variance that per-seed means would have without any seed effect: residual mean square / patients.
    """
    patients, seeds = values_PS.shape
    means_S = values_PS.mean(axis=0)
    if patients < 2 or seeds < 2:
        return SeedSpread(means_S, 0.0)
    residual_PS = values_PS - means_S - values_PS.mean(axis=1, keepdims=True) + values_PS.mean()
    return SeedSpread(means_S, float((residual_PS**2).sum() / ((patients - 1) * (seeds - 1)) / patients))


def with_seeds(
    center: float, limits: tuple[float, float], spread: SeedSpread, scale: Scale, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the limits over patients widened by the spread of seeds, kept in range; one seed widens nothing."""
    half = (limits[1] - limits[0]) / 2 / stats.norm.ppf((1 + confidence) / 2)
    variance = half**2 if np.isfinite(half) else 0.0
    return combine(center, limits, spread.margin(confidence, patient_variance=variance), scale)


def combine(center: float, limits: tuple[float, float], margin: float, scale: Scale) -> tuple[float, float]:
    """Return limits that add an independent symmetric margin in squares (MOVER, Zou and Donner 2008), kept in range.

    They hold the center, which limits from draws need not: where every structure is missed, no draw is as bad.
    """
    low = center - np.hypot(np.maximum(center - limits[0], 0.0), margin)
    high = center + np.hypot(np.maximum(limits[1] - center, 0.0), margin)
    return float(np.clip(low, scale.low, scale.high)), float(np.clip(high, scale.low, scale.high))
