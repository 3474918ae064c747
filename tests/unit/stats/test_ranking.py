"""Rankings by hand, against challengeR's own examples and autorank, and the bootstrap of ranks."""

import numpy as np
import pandas as pd
import pytest
from autorank import autorank
from scipy import stats

from segbench.stats.ranking import (
    ALL_TASKS,
    GIVEN_WEIGHTS,
    consensus,
    critical_difference,
    friedman,
    nemenyi,
    rank_distribution,
    rank_methods,
    rank_stability,
    rank_table,
)
from segbench.stats.ranking_variants import ranking_variants
from segbench.stats.resample import board, cell_means, draw_means

from .score_tables import by_case, methods, table


def ranks(rows, metric="dice"):
    return rank_table(rows, metric=metric).set_index(["task", "method"])


def test_three_rankings_disagree_by_design():
    """b wins four of six cases by a hair, a wins on the mean, nobody significantly (n = 6)."""
    found = ranks(methods({"a": [0.80, 0.80, 0.80, 0.80, 0.90, 0.90], "b": [0.81, 0.81, 0.81, 0.81, 0.10, 0.10]}))
    assert found.loc[("T", "a"), "rank_by_mean"] == 1
    assert found.loc[("T", "b"), "rank_by_mean_rank"] == 1
    assert found.loc[("T", "b"), "mean_rank"] == pytest.approx((4 * 1 + 2 * 2) / 6)
    assert (found["rank_by_significance"] == 1.5).all()


def test_significance_counts_beaten_methods():
    values = {"a": np.linspace(0.90, 0.95, 12), "b": np.linspace(0.80, 0.86, 12), "c": np.linspace(0.70, 0.77, 12)}
    found = ranks(methods(values))
    assert found["significant_wins"].tolist() == [2, 1, 0]
    assert found["rank_by_significance"].tolist() == [1, 2, 3]


# Inputs and expected ranks of challengeR's own examples (its tests of aggregateThenRank and rankThenAggregate, smaller
# values are better): two algorithms on one case, on two cases, and on two tasks that disagree.
CHALLENGER = [
    ({"T1": {"A1": [0.6], "A2": [0.8]}}, {"T1": {"A1": 1, "A2": 2}}),
    ({"T1": {"A1": [0.6, 0.4], "A2": [0.8, 1.0]}}, {"T1": {"A1": 1, "A2": 2}}),
    (
        {"T1": {"A1": [0.6], "A2": [0.8]}, "T2": {"A1": [0.5], "A2": [0.4]}},
        {"T1": {"A1": 1, "A2": 2}, "T2": {"A1": 2, "A2": 1}},
    ),
]


@pytest.mark.parametrize(("values", "expected"), CHALLENGER)
def test_agrees_with_challenger_examples(values, expected):
    parts = [methods(own, task=task, metric="assd", unit_of_value="mm") for task, own in values.items()]
    found = ranks(pd.concat(parts, ignore_index=True), "assd")
    for task, own in expected.items():
        for method, rank in own.items():
            assert found.loc[(task, method), ["rank_by_mean", "rank_by_mean_rank"]].tolist() == [rank, rank]


def test_agrees_with_challenger_on_one_case_without_significance():
    """Its test-then-rank gives nobody a win on a single case and on two cases; both get the same rank."""
    for values in ({"A1": [0.6], "A2": [0.8]}, {"A1": [0.6, 0.6], "A2": [0.8, 0.8]}):
        found = ranks(methods(values, metric="assd", unit_of_value="mm"), "assd")
        assert found["significant_wins"].tolist() == [0, 0]
        assert found["rank_by_significance"].nunique() == 1


@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:RuntimeWarning", "ignore:.*:FutureWarning")
def test_agrees_with_autorank():
    """Mean ranks, Friedman's p and the critical difference of autorank on five methods and twenty patients."""
    rng = np.random.default_rng(21)
    level = rng.exponential(0.1, (20, 1))
    scores = np.clip(0.95 - level - rng.exponential(0.05, (20, 5)) * np.arange(1, 6), 0.01, 1)
    frame = pd.DataFrame(scores, columns=list("abcde"))
    theirs = autorank(frame, alpha=0.05, order="descending", force_mode="nonparametric")
    ours = friedman(methods({name: frame[name] for name in frame}), metric="dice")
    ours = ours[ours["task"] == "T"].set_index("method")
    assert ours["mean_rank"].sort_index().tolist() == pytest.approx(theirs.rankdf["meanrank"].sort_index().tolist())
    assert ours["critical_difference"].iloc[0] == pytest.approx(theirs.cd, rel=1e-3)
    assert ours["p_value"].iloc[0] == pytest.approx(theirs.pvalue, rel=1e-6)


def test_critical_difference_of_the_textbook():
    """Demsar 2006: q(0.05) = 2.569 for four classifiers; four on fourteen data sets give 1.25."""
    assert critical_difference(4, 14) == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), rel=1e-3)
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_friedman_needs_three_methods_and_survives_full_ties():
    values = [0.9, 0.8, 0.7]
    assert friedman(methods({"a": values, "b": values}), metric="dice").empty
    tied = friedman(methods({"a": values, "b": values, "c": values}), metric="dice")
    assert tied["p_value"].unique().tolist() == [1.0]
    assert not nemenyi(methods({"a": values, "b": values}), metric="dice")


def test_rank_distribution_knows_what_is_certain_and_what_is_not():
    rng = np.random.default_rng(22)
    base = rng.uniform(0.5, 0.7, 12)
    noisy = {"b": base + rng.normal(0, 0.02, 12), "c": base + rng.normal(0, 0.02, 12)}
    rows = methods({"a": base + 0.2, **noisy, "d": base - 0.2})
    found = rank_distribution(rows, metric="dice", resamples=400)
    assert found.groupby(["task", "method"])["fraction"].sum().to_numpy() == pytest.approx(1)
    stability = rank_stability(found).set_index(["task", "method"])
    assert stability.loc[(ALL_TASKS, "a"), "p_first"] > 0.95
    assert stability.loc[("T", "d"), ["rank_median", "rank_high"]].tolist() == [4, 4]
    assert stability.loc[("T", "b"), ["rank_low", "rank_high"]].tolist() == [2, 3]


def test_the_spread_of_draws_is_the_standard_error():
    """Dirichlet weights of n patients: spread sd / sqrt(n + 1); all methods see the same patients."""
    rng = np.random.default_rng(23)
    values = rng.uniform(0.3, 0.9, 25)
    arrays = board(methods({"a": values, "b": values - 0.1}), metric="dice")
    assert cell_means(arrays)[:, 0] == pytest.approx([values.mean(), values.mean() - 0.1])
    draws = draw_means(arrays, resamples=4000, rng=rng, unseen=False)
    assert draws[:, 0, 0].std() == pytest.approx(values.std() / np.sqrt(26), rel=0.05)
    assert np.ptp(draws[:, 0, 0] - draws[:, 1, 0]) == pytest.approx(0, abs=1e-12)


def test_ranks_allow_for_missed_structures_that_were_not_seen():
    """b is 1 point worse on all of nine patients: first never as seen, at times with unseen missed structures."""
    values = np.linspace(0.7, 0.9, 9)
    rows = methods({"a": values, "b": values - 0.01})
    arrays = board(rows, metric="dice")
    seen = draw_means(arrays, resamples=2000, rng=np.random.default_rng(1), unseen=False)[:, :, 0]
    assert (seen[:, 0] > seen[:, 1]).all()
    stability = rank_stability(rank_distribution(rows, metric="dice")).set_index(["task", "method"])
    assert 0.7 < stability.loc[("T", "a"), "p_first"] < 0.9
    assert stability["condition"].unique().tolist() == [GIVEN_WEIGHTS]


def test_few_patients_have_no_rank_probability():
    rows = methods({"a": [0.9, 0.8, 0.7], "b": [0.8, 0.7, 0.6]})
    assert rank_distribution(rows, metric="dice").empty
    assert rank_stability(rank_distribution(rows, metric="dice")).empty


def test_means_and_cases_tie_by_one_rule():
    """0.1 + 0.2 and 0.3 differ in the last bit only: a tie by mean and by case ranks."""
    found = ranks(methods({"a": [0.1 + 0.2, 0.5], "b": [0.3, 0.5]}))
    assert found[["rank_by_mean", "rank_by_mean_rank"]].to_numpy().tolist() == [[1.5, 1.5], [1.5, 1.5]]


def test_equal_means_of_large_values_tie():
    """The same volumes in mm3 in another order: their sums differ in a bit that is worth 1e-10."""
    values = [123456.71, 987654.32, 543210.99, 271828.18, 314159.26, 161803.39, 141421.35, 577215.66, 662607.02]
    orders = [values[k:] + values[:k] for k in range(9)] + [values[::-1]]
    assert len({sum(order) for order in orders}) > 1
    rows = methods({f"m{k}": order for k, order in enumerate(orders)}, metric="hd95", diagonal_mm=np.nan)
    assert (ranks(rows, metric="hd95")["rank_by_mean"] == 5.5).all()
    assert (ranking_variants(rows, metrics=["hd95"]).query("aggregation == 'mean of task means'")["rank"] == 1).all()


def test_friedman_over_tasks_ties_as_ranks_do():
    """0.1 + 0.2 and 0.3 are one value: three methods that are equal on every task do not differ."""
    one = methods({"a": [0.1 + 0.2], "b": [0.3], "c": [0.3]}, task="T")
    other = methods({"a": [0.7], "b": [0.7], "c": [0.7 + 1e-16]}, task="U")
    found = friedman(pd.concat([one, other], ignore_index=True), metric="dice")
    assert found.loc[found["task"] == "all tasks", "p_value"].tolist() == [1.0] * 3
    one = methods({"a": [0.1 + 0.2], "b": [0.3], "c": [0.2]}, task="T")
    other = methods({"a": [0.3], "b": [0.1 + 0.2], "c": [0.2]}, task="U")
    found = friedman(pd.concat([one, other], ignore_index=True), metric="dice")
    whole = found[found["task"] == "all tasks"]
    expected = stats.friedmanchisquare([0.3, 0.3], [0.3, 0.3], [0.2, 0.2])
    assert whole["statistic"].iloc[0] == pytest.approx(expected.statistic)


def test_seeds_are_resampled_within_a_method():
    """Constant patients, seeds 0.6 and 0.8: a draw is 0.6, 0.7 or 0.8 in the ratio 1 : 2 : 1; b has one seed."""
    rows = table(
        *by_case([0.6] * 5, model="a", seed=0),
        *by_case([0.8] * 5, model="a", seed=1),
        *by_case([0.5] * 5, model="b", seed=0),
    )
    draws = draw_means(board(rows, metric="dice"), resamples=2000, rng=np.random.default_rng(24), unseen=False)
    values, counts = np.unique(draws[:, 0, 0].round(6), return_counts=True)
    assert values.tolist() == [0.6, 0.7, 0.8]
    assert counts / 2000 == pytest.approx([0.25, 0.5, 0.25], abs=0.04)
    assert np.unique(draws[:, 1, 0]).round(6).tolist() == [0.5]


def test_consensus_leaves_out_who_is_not_everywhere():
    parts = pd.concat(
        [
            methods({"a": [0.9, 0.8], "b": [0.7, 0.6], "c": [0.5, 0.4]}, task="S"),
            methods({"a": [0.6, 0.5], "b": [0.9, 0.8]}, task="T"),
            methods({"a": [0.9, 0.9], "b": [0.8, 0.8]}, task="U"),
        ],
        ignore_index=True,
    )
    found = consensus(rank_table(parts, metric="dice")).set_index("method")
    assert sorted(found.index) == ["a", "b"]
    assert found["mean_rank_by_mean"].to_dict() == pytest.approx({"a": 4 / 3, "b": 5 / 3})
    assert found["consensus_rank"].to_dict() == {"a": 1, "b": 2}


def test_rank_methods_leaves_nan_alone():
    assert rank_methods(np.array([0.3, np.nan, 0.5, 0.5]), lower_is_better=False)[[0, 2, 3]].tolist() == [3, 1.5, 1.5]
    assert stats.rankdata([1, 2]).tolist() == rank_methods(np.array([1, 2]), lower_is_better=True).tolist()
