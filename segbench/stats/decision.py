"""Which of two methods is better: one decision rule, its test, and the direction that belongs to the test.

Two questions can be asked of paired differences. `mean`: is the mean difference zero (sign-flip permutation test)?
`ranks`: is the signed-rank sum zero (Wilcoxon)? The direction always comes from the statistic that is tested. Where the
mean and the rank sum point to different methods, the outcome is CONFLICTING and no method is named better.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from segbench.stats.methods import without_noise

Rule = Literal["mean", "ranks"]
RULES: tuple[Rule, ...] = get_args(Rule)
DEFAULT_RULE: Rule = "mean"
"""Tables show means, so the decision is about means unless the config says otherwise."""
RULE_TEXT = {
    "mean": "sign-flip permutation test of the mean difference",
    "ranks": "Wilcoxon's signed-rank test",
}
CONFLICTING = "conflicting"
PRIMARY, SECONDARY, ALL_PAIRS = "against the reference", "other pairs (secondary)", "all pairs (no reference)"
EXACT_PATIENTS = 300
"""Up to this many patients the signed-rank test goes through all sign changes."""
GRID = 2**15
FEW_SIGNS, TIED = 16, 1e-9
"""Up to so many differences all sums are looked at one by one; those closer than TIED of the largest sum are equal."""


@dataclass(frozen=True)
class Directions:
    """Signs of the mean difference and of the signed-rank sum: -1, 0 or 1."""

    mean: int
    ranks: int

    @property
    def conflicting(self) -> bool:
        """Whether the mean and the ranks point to different methods."""
        return self.mean * self.ranks < 0


def directions(differences_P: np.ndarray) -> Directions:
    """Return the two directions of one difference per patient; no patient gives zeros."""
    if not len(differences_P):
        return Directions(0, 0)
    mean = without_noise(differences_P.mean(keepdims=True), of=differences_P)[0]
    return Directions(int(np.sign(mean)), int(np.sign(rank_biserial(differences_P))))


def decide(p_value: float, signs: Directions, *, rule: Rule, alpha: float, lower_is_better: bool) -> str:
    """Return who is better: 'a', 'b', CONFLICTING, or '' where the test shows no difference.

    This is the only place that names a better method of a pair. Differences are a minus b.

    Args:
        p_value: p value of the rule's test, corrected for its family; NaN shows nothing.
        signs: directions of the mean and of the ranks.
        rule: which of the two questions decides.
        alpha: level of the test.
        lower_is_better: whether small values of the metric are good.

    Returns:
        The outcome. CONFLICTING stands whatever the p value, so that no reader takes a direction from the table.
    """
    if signs.conflicting:
        return CONFLICTING
    sign = signs.mean if rule == "mean" else signs.ranks
    if not p_value < alpha or sign == 0:
        return ""
    return "a" if (sign > 0) != lower_is_better else "b"


def rule_p(differences_P: np.ndarray, rule: Rule) -> float:
    """Return the two-sided p value of the rule's test."""
    return sign_flip_p(differences_P) if rule == "mean" else wilcoxon_p(differences_P)


def sign_flip_p(differences_P: np.ndarray) -> float:
    """Return the exact two-sided p value of the mean under all 2^n sign changes.

    Up to FEW_SIGNS differences every sum is looked at. Beyond, the distribution of the sum is built patient by patient
    (Streitberg and Roehmel 1986), of the differences as they are where they have few decimals. Others are rounded to
    1 / GRID of the sum of their absolute values, away from 0 where that is nearest, so that no difference is lost
    beside a much larger one. Rounding keeps the symmetry that the test assumes, so the test stays exact for the rounded
    values. 1 without a non-zero difference, NaN without any difference.
    """
    if not len(differences_P):
        return np.nan
    total = float(np.abs(differences_P).sum())
    if total == 0:
        return 1.0
    nonzero_P = differences_P[differences_P != 0]
    if len(nonzero_P) <= FEW_SIGNS:
        sums = np.zeros(1)
        for size in np.abs(nonzero_P):
            sums = np.concatenate([sums - size, sums + size])
        return float((np.abs(sums) >= abs(nonzero_P.sum()) - TIED * total).mean())
    steps_P = _as_whole_numbers(np.abs(nonzero_P))
    if steps_P is None:
        steps_P = np.maximum(np.rint(np.abs(nonzero_P) / total * GRID), 1)
    return _flip_p((np.sign(nonzero_P) * steps_P).astype(int))


def _as_whole_numbers(sizes_P: np.ndarray) -> np.ndarray | None:
    """Return sizes times a power of ten that makes all of them whole, None where their sum then exceeds GRID."""
    scaled_P = sizes_P
    while scaled_P.sum() <= GRID:
        whole_P: np.ndarray = np.rint(scaled_P)
        if whole_P.min() > 0 and np.abs(scaled_P - whole_P).max() < TIED * GRID:
            return whole_P
        scaled_P = scaled_P * 10
    return None


def _flip_p(steps_P: np.ndarray) -> float:
    """Exact two-sided p value of the sum of whole numbers under all sign changes."""
    steps_P = steps_P[steps_P != 0]
    reach = int(np.abs(steps_P).sum())
    probability = np.zeros(2 * reach + 1)
    probability[reach] = 1.0
    for step in np.abs(steps_P):
        moved = np.zeros_like(probability)
        moved[step:] += probability[:-step] / 2
        moved[:-step] += probability[step:] / 2
        probability = moved
    observed = abs(int(steps_P.sum()))
    if observed == 0:
        return 1.0
    p_value = 2 * float(probability[reach + observed :].sum())
    return float(min(1.0, max(p_value, attainable_p(len(steps_P)))))


def wilcoxon_p(differences_P: np.ndarray) -> float:
    """Return the two-sided signed-rank p value; 1 without a non-zero difference, NaN without any difference.

    Zero differences are dropped (Wilcoxon's rule). Exact up to EXACT_PATIENTS, with and without ties, over all sign
    changes of the ranks; the normal approximation beyond.
    """
    if not len(differences_P):
        return np.nan
    nonzero_P = differences_P[differences_P != 0]
    if not len(nonzero_P):
        return 1.0
    if len(nonzero_P) > EXACT_PATIENTS:
        return float(stats.wilcoxon(nonzero_P).pvalue)
    doubled_P = np.rint(2 * np.sign(nonzero_P) * stats.rankdata(np.abs(nonzero_P))).astype(int)
    return _flip_p(doubled_P)


def rank_biserial(differences_P: np.ndarray) -> float:
    """Return the rank-biserial correlation: (positive - negative rank sums) / all, in -1..1 (Kerby 2014)."""
    nonzero = differences_P[differences_P != 0]
    if not len(nonzero):
        return 0.0 if len(differences_P) else np.nan
    ranks = stats.rankdata(np.abs(nonzero))
    return float((np.sign(nonzero) * ranks).sum() / ranks.sum())


def attainable_p(patients: int) -> float:
    """Return the smallest two-sided p value that so many patients can give: all differences have one sign, 2 / 2^n."""
    return float(min(1.0, 2.0 ** (1 - patients))) if patients else np.nan


def correct(table: pd.DataFrame, *, reference: str | None, rule: Rule, alpha: float) -> pd.DataFrame:
    """Return the paired table with Holm per family and the outcome of every comparison.

    The pairs that hold `reference` are the primary family, the others the secondary one, so that every pair has one
    Holm value. Without a reference all pairs are one family. Needs the columns method_a, method_b, n_patients,
    p_value, sign_of_mean, sign_of_ranks and lower_is_better.

    Returns:
        The rows with family_name, family (number of tests), p_holm, significant, better ('a', 'b', 'conflicting' or
        ''), attainable_p_holm (smallest Holm value that this many patients can reach in the family, at best) and
        can_be_significant.
    """
    if table.empty:
        return table
    table = table.copy()
    if reference is None:
        table["family_name"] = ALL_PAIRS
    else:
        primary = (table["method_a"] == reference) | (table["method_b"] == reference)
        table["family_name"] = np.where(primary, PRIMARY, SECONDARY)
    table["p_holm"], table["attainable_p_holm"], table["family"] = np.nan, np.nan, 0
    for _, part in table.groupby("family_name", sort=False):
        tested = part.index[part["p_value"].notna()]
        table.loc[part.index, "family"] = len(tested)
        if len(tested):
            table.loc[tested, "p_holm"] = multipletests(table.loc[tested, "p_value"], alpha=alpha, method="holm")[1]
            smallest = table.loc[tested, "n_patients"].map(attainable_p).to_numpy(float)
            later = (smallest[:, None] <= smallest[None, :]).sum(axis=1)
            table.loc[tested, "attainable_p_holm"] = _running_maximum(np.minimum(1.0, smallest * later), by=smallest)
    table["can_be_significant"] = table["attainable_p_holm"] < alpha
    lower = table["lower_is_better"].astype(bool)
    signs = zip(table["sign_of_mean"].astype(int), table["sign_of_ranks"].astype(int), strict=True)
    table["better"] = [
        decide(float(p_value), Directions(mean, ranks), rule=rule, alpha=alpha, lower_is_better=lower_is_better)
        for p_value, (mean, ranks), lower_is_better in zip(table["p_holm"], signs, lower, strict=True)
    ]
    table["significant"] = table["better"].isin(("a", "b"))
    return table


def _running_maximum(values: np.ndarray, *, by: np.ndarray) -> np.ndarray:
    """Return for each value the largest among those that are not after it in the order of `by`, as Holm does."""
    return np.array([values[by <= own].max() for own in by])


def agreement(better: str, limits: tuple[float, float], seen: tuple[float, float], *, lower_is_better: bool) -> str:
    """Return whether the intervals of the mean difference say what the decision says.

    Args:
        better: outcome of `decide`.
        limits: interval of a minus b that allows for missed structures.
        seen: the interval as seen.
        lower_is_better: whether small values of the metric are good.

    Returns:
        'yes'; 'as seen' where a better method is named and only the interval as seen excludes 0, because missed
        structures that were not seen could turn the mean; 'test only' where no interval excludes 0; 'interval only'
        where no method is named although an interval, which is not corrected for the family, excludes 0; '' without an
        interval.
    """
    if not np.isfinite([*limits, *seen]).all():
        return ""
    sides = [1 if low > 0 else -1 if high < 0 else 0 for low, high in (limits, seen)]
    if better not in ("a", "b"):
        return "interval only" if any(sides) else "yes"
    named = 1 if (better == "a") != lower_is_better else -1
    return "yes" if sides[0] == named else "as seen" if sides[1] == named else "test only"


def winner(paired_row: pd.Series) -> str:
    """Return the better method of a row of the paired table; '' where none is named."""
    return str({"a": paired_row["method_a"], "b": paired_row["method_b"]}.get(str(paired_row["better"]), ""))


def oriented(paired: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Return the rows of one pair as first minus second, whichever way round the table holds them."""
    straight = paired[(paired["method_a"] == first) & (paired["method_b"] == second)]
    if len(straight):
        return straight
    turned = paired[(paired["method_a"] == second) & (paired["method_b"] == first)].copy()
    names = {"method_a": "method_b", "n_seeds_a": "n_seeds_b", "p_a_better": "p_b_better", "n_missed_a": "n_missed_b"}
    turned = turned.rename(columns=names | {b: a for a, b in names.items()})
    for prefix, suffix in itertools.product(("", "patient_"), ("", "_as_seen")):
        low, high = f"{prefix}low{suffix}", f"{prefix}high{suffix}"
        turned[low], turned[high] = -turned[high], -turned[low]
    for name in ("difference", "median_difference", "sign_of_mean", "sign_of_ranks", "rank_biserial", "cohen_dz"):
        turned[name] = -turned[name]
    turned["better"] = turned["better"].replace({"a": "b", "b": "a"})
    return turned[paired.columns]
