"""Paired statistics against the libraries they come from, and their error rates under simulation."""

import baycomp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from segbench.stats.decision import correct, rank_biserial, sign_flip_p, wilcoxon_p
from segbench.stats.methods import ALL_TASKS, case_tables, pair_sums, patient_differences
from segbench.stats.paired import (
    detectable_per_task,
    equivalence,
    minimum_detectable,
    paired_over_tasks,
    paired_table,
    posterior_draws,
    variance_split,
)

from .score_tables import by_case, methods, table

A = [0.91, 0.85, 0.88, 0.72, 0.95, 0.64, 0.80, 0.78, 0.90]
B = [0.89, 0.86, 0.80, 0.60, 0.93, 0.50, 0.75, 0.70, 0.89]


def test_one_pair_agrees_with_scipy():
    row = paired_table(methods({"a": A, "b": B}), metric="dice").iloc[0]
    difference = np.round(np.array(A) - np.array(B), 12)
    expected = stats.ttest_1samp(difference, 0).confidence_interval()
    assert row["difference"] == pytest.approx(difference.mean())
    assert (row["low_as_seen"], row["high_as_seen"]) == pytest.approx(tuple(expected))
    assert row["low"] < row["low_as_seen"] < row["high_as_seen"] < row["high"]
    assert row["p_ranks"] == pytest.approx(stats.wilcoxon(difference).pvalue)
    assert row["p_holm"] == row["p_value"]
    assert row["better"] == "a"
    assert row["cohen_dz"] == pytest.approx(difference.mean() / difference.std(ddof=1))
    assert row["n_patients"] == 9


def test_lower_is_better_turns_the_winner_not_the_sign():
    values = {"a": [3.0, 4.0, 5.0, 3.5, 4.4, 3.9, 4.1, 5.2], "b": [9.0, 8.0, 9.5, 7.7, 8.8, 9.9, 8.1, 9.3]}
    row = paired_table(methods(values, metric="hd95", unit_of_value="mm"), metric="hd95").iloc[0]
    assert row["difference"] < 0
    assert row["better"] == "a"
    assert row["p_a_better"] > 0.95
    assert row["equivalence"] == "not shown"


def test_pooled_folds_widen_the_interval_of_a_difference():
    rows = methods({"a": [0.90, 0.91, 0.92, 0.93, 0.80, 0.81, 0.82, 0.83], "b": [0.85, 0.86, 0.85, 0.86] * 2})
    folds = rows["case"].map(lambda case: int(case >= "c04"))
    one, two = (paired_table(own, metric="dice").iloc[0] for own in (rows, rows.assign(fold=folds)))
    assert (one["n_folds"], two["n_folds"]) == (1, 2)
    assert two["low_as_seen"] < one["low_as_seen"] < one["high_as_seen"] < two["high_as_seen"]
    assert two["low"] < one["low"]
    assert two["difference"] == one["difference"]
    mixed = rows.assign(fold=[0, 1] * 8)
    same = paired_table(mixed, metric="dice").iloc[0]
    assert (same["low_as_seen"], same["high_as_seen"]) == (one["low_as_seen"], one["high_as_seen"])


def test_holm_over_all_pairs_and_tasks():
    values = {"a": A, "b": B, "c": [v - 0.001 for v in A]}
    two = pd.concat([methods(values, task=name) for name in ("S", "T")])
    found = paired_table(two, metric="dice")
    assert len(found) == 6
    assert (found["family"] == 6).all()
    smallest = found["p_value"].min()
    assert found.loc[found["p_value"] == smallest, "p_holm"].iloc[0] == pytest.approx(min(1, 6 * smallest))


def test_equal_methods_are_practically_equivalent():
    row = paired_table(methods({"a": A, "b": [v + 0.0005 for v in A]}), metric="dice").iloc[0]
    assert row["p_equivalent"] > 0.95
    assert row["equivalence"] == "equivalent as seen"
    same = paired_table(methods({"a": A, "b": A}), metric="dice").iloc[0]
    assert same["p_value"] == 1
    assert (same["low_as_seen"], same["high_as_seen"]) == (0, 0)
    assert same["better"] == ""


def test_only_what_both_count_is_paired():
    rows = methods({"a": [0.9, None, 0.7, 0.8], "b": [0.8, 0.8, 0.6, 0.7]})
    both = paired_table(rows, metric="dice", missing_masks={"dice": {"prediction_missing": "exclude"}}).iloc[0]
    assert both["n_patients"] == 3
    assert both["difference"] == pytest.approx(0.1)
    counted = paired_table(rows, metric="dice").iloc[0]
    assert counted["n_patients"] == 4
    assert counted["difference"] == pytest.approx((0.3 - 0.8) / 4)


def test_skipped_cells_have_no_pair():
    rows = methods({"a": A, "b": B})
    rows.loc[rows["model"] == "b", ["value", "status"]] = [np.nan, "skipped"]
    assert paired_table(rows, metric="dice").empty


def test_the_pair_turned_round_is_the_same_pair():
    """Limits of b minus a are those of a minus b with the sign changed, missed structures included."""
    rows = methods({"a": A, "b": [None, *B[1:]]})
    one, two = (paired_table(rows, metric="dice", pairs=[pair]).iloc[0] for pair in (("a", "b"), ("b", "a")))
    for low, high in (("low", "high"), ("low_as_seen", "high_as_seen")):
        assert (one[low], one[high]) == pytest.approx((-two[high], -two[low]))
    assert (one["n_missed_a"], one["n_missed_b"]) == (0, 1)
    assert (two["n_missed_a"], two["n_missed_b"]) == (1, 0)


def test_the_sums_of_a_pair_give_its_difference():
    """Two patients with one and two cases, tumour not counted in one: the weights of a patient add to 1."""
    rows = table(
        *({"patient": "p", "case": "p1", "structure": name, "model": m} for name in ("organ", "tumour") for m in "ab"),
        *({"patient": "q", "case": "q1", "structure": "organ", "model": m, "value": 0.8} for m in "ab"),
        {"patient": "q", "case": "q2", "structure": "organ", "model": "a", "value": 0.6},
        {"patient": "q", "case": "q2", "structure": "organ", "model": "b", "value": np.nan, "status": "failed"},
    )
    tables = case_tables(rows, metric="dice")
    first, second = pair_sums(tables, "T", ("a", "b"))
    assert first.counts_PK.sum(axis=1) == pytest.approx([1, 1])
    assert second.missed_PK.sum(axis=1) == pytest.approx([0, 0.5])
    expected = patient_differences(tables.values[["a", "b"]]).mean()
    assert (first.hit_sums_PK - second.hit_sums_PK).sum() / 2 == pytest.approx(expected) == pytest.approx(0.15)


def test_over_tasks_the_mean_is_decided_by_the_same_function():
    both = pd.concat(
        [methods({"a": A, "b": B}, task="S", dataset="S"), methods({"a": A, "b": B}, task="T", dataset="T")]
    )
    paired = paired_table(both, metric="dice")
    row = paired_over_tasks(both, paired, metric="dice").iloc[0]
    assert (row["task"], row["n_patients"], row["better"]) == (ALL_TASKS, 18, "a")
    assert row["difference"] == pytest.approx(paired["difference"].mean())
    half = (paired["high_as_seen"] - paired["difference"]).iloc[0]
    assert row["high_as_seen"] - row["difference"] == pytest.approx(half / np.sqrt(2))
    assert set(paired.columns) == set(row.index)
    one = both.assign(dataset="S")
    same = paired_over_tasks(one, paired_table(one, metric="dice"), metric="dice").iloc[0]
    assert same["n_patients"] == 9
    assert same["difference"] == pytest.approx(row["difference"])
    assert same["high_as_seen"] - same["difference"] == pytest.approx(half)
    assert same["p_value"] > row["p_value"]


def test_seeds_widen_the_difference():
    low = table(*by_case(A, model="a", seed=0), *by_case(A, model="a", seed=1), *by_case(B, model="b"))
    shifted = table(
        *by_case([v - 0.05 for v in A], model="a", seed=0),
        *by_case([v + 0.05 for v in A], model="a", seed=1),
        *by_case(B, model="b"),
    )
    narrow, wide = (paired_table(rows, metric="dice").iloc[0] for rows in (low, shifted))
    assert narrow["difference"] == pytest.approx(wide["difference"])
    assert wide["high"] - wide["low"] > 5 * (narrow["high"] - narrow["low"])


def test_a_seed_that_tasks_share_counts_once():
    """Over four tasks patients shrink the interval by two, and the seed of a joint training not at all."""
    shifts = dict(enumerate((-0.05, 0.0, 0.05)))

    def rows(task, shift_of_seed):
        return table(
            *(
                item
                for seed, shift in shift_of_seed.items()
                for item in by_case([value + shift for value in A], model="a", seed=seed, task=task, dataset=task)
            ),
            *by_case(B, model="b", task=task, dataset=task),
        )

    def halves(*parts):
        both = pd.concat(parts)
        paired = paired_table(both, metric="dice")
        whole = paired_over_tasks(both, paired, metric="dice").iloc[0]
        return [row["high_as_seen"] - row["difference"] for row in (paired.iloc[0], whole)], whole

    (one, shared), whole = halves(*(rows(task, shifts) for task in "STUV"))
    assert shared == pytest.approx(one, rel=0.1)
    assert (whole["seed_degrees"], whole["n_seeds_a"], whole["n_seeds_b"]) == (2, 3, 1)
    patients = whole["patient_high_as_seen"] - whole["difference"]
    (alone, over_four), _ = halves(*(rows(task, {0: 0.0}) for task in "STUV"))
    assert over_four == pytest.approx(alone / 2)
    assert patients == pytest.approx(over_four)
    turned = [{0: -0.05, 1: 0.05}, {0: 0.05, 1: -0.05}] * 2
    (one, opposite), _ = halves(*(rows(task, own) for task, own in zip("STUV", turned, strict=True)))
    assert opposite == pytest.approx(over_four), "effects that cancel over tasks are no spread of the mean over tasks"


def test_a_fold_that_tasks_share_counts_once():
    def half(tasks, *, turned=False):
        parts = []
        for i, task in enumerate(tasks):
            shifts = np.repeat([-0.02, 0.0, 0.02], 3) * (-1 if turned and i % 2 else 1)
            parts.append(methods({"a": np.array(A) - 0.05 + shifts, "b": B}, task=task, dataset=task))
        rows = pd.concat(parts)
        rows = rows.assign(fold=rows["case"].map(lambda case: int(case[1:]) // 3))
        whole = paired = paired_table(rows, metric="dice")
        if len(tasks) > 1:
            whole = paired_over_tasks(rows, paired, metric="dice")
        return whole["high_as_seen"].iloc[0] - whole["difference"].iloc[0]

    assert half("STUV") > 0.8 * half("S"), "the model of a fold serves every task"
    assert half("STUV", turned=True) < 0.8 * half("STUV"), "effects that cancel over tasks are no spread of the mean"


def test_rank_biserial_by_hand():
    """|d| ranks: 1 -> 1, -2 -> 2, 3 -> 3, 4 -> 4; positive 8, negative 2, all 10: 0.6."""
    assert rank_biserial(np.array([1.0, -2.0, 3.0, 4.0, 0.0])) == pytest.approx(0.6)
    assert rank_biserial(np.zeros(3)) == 0


def test_wilcoxon_of_nothing():
    assert np.isnan(wilcoxon_p(np.array([])))
    assert wilcoxon_p(np.zeros(5)) == 1


def test_wilcoxon_with_zeros_and_ties_agrees_with_scipy():
    zeros = np.array([0.0, 0.3, -0.1, 0.25, 0.4, 0.0, 0.35])
    assert wilcoxon_p(zeros) == pytest.approx(stats.wilcoxon(zeros[zeros != 0], method="exact").pvalue)
    ties = np.array([0.1, 0.1, -0.1, 0.2, 0.3, 0.4])
    assert wilcoxon_p(ties) == pytest.approx(stats.wilcoxon(ties, method=stats.PermutationMethod()).pvalue)


def _corrected(differences_by_pair):
    records = [
        {"p_value": sign_flip_p(d), "n_patients": len(d), "sign_of_mean": 1, "sign_of_ranks": 1}
        for d in differences_by_pair
    ]
    table = pd.DataFrame(records).assign(method_a="a", method_b="b", lower_is_better=False)
    return correct(table, reference=None, rule="mean", alpha=0.05)


@pytest.mark.slow
def test_family_wise_error_is_at_most_nominal():
    """Five exchangeable methods, 27 patients, skewed, some missed; stars are false. 400 repeats, 99 % margin."""
    rng, repeats, false = np.random.default_rng(11), 400, 0
    for _ in range(repeats):
        level = rng.beta(8, 2, (27, 1))
        scores = np.clip(level + rng.normal(0, 0.05, (27, 5)), 0, 1) * (rng.random((27, 5)) > 0.1)
        pairs = [scores[:, i] - scores[:, j] for i in range(5) for j in range(i)]
        false += _corrected(pairs)["significant"].any()
    assert false / repeats <= 0.05 + 2.33 * np.sqrt(0.05 * 0.95 / repeats)


def test_power_grows_with_patients():
    rng = np.random.default_rng(12)
    rates = [np.mean([wilcoxon_p(rng.normal(0.02, 0.04, size)) < 0.05 for _ in range(200)]) for size in (9, 27, 61)]
    assert rates[0] < rates[1] - 0.15 < rates[2] - 0.2
    assert rates[2] > 0.9


def test_minimum_detectable_difference_is_found_with_the_stated_power():
    rng, repeats = np.random.default_rng(13), 500
    difference = minimum_detectable(0.04, 25)
    rate = np.mean([wilcoxon_p(rng.normal(difference, 0.04, 25)) < 0.05 for _ in range(repeats)])
    assert rate == pytest.approx(0.8, abs=2.6 * np.sqrt(0.8 * 0.2 / repeats))
    assert np.isnan(minimum_detectable(0.04, 2))
    assert np.isnan(minimum_detectable(0.0, 25))
    assert minimum_detectable(0.04, 100) < minimum_detectable(0.04, 9)


def test_detectable_per_task():
    found = detectable_per_task(paired_table(methods({"a": A, "b": B, "c": A[::-1]}), metric="dice"))
    assert len(found) == 1
    assert found["smallest"].iloc[0] <= found["minimum_detectable"].iloc[0] <= found["largest"].iloc[0]


def test_variance_split_by_hand():
    """Patients 0, 1, 2 tenths, seeds plus or minus one tenth, no residual: variances 0.01 and 0.02."""
    patients = np.array([0.3, 0.4, 0.5])
    rows = table(*by_case(patients - 0.1, seed=0), *by_case(patients + 0.1, seed=1))
    found = variance_split(rows, metric="dice").iloc[0]
    assert (found["var_cases"], found["var_seeds"], found["var_residual"]) == pytest.approx(
        (0.01, 0.02, 0.0), abs=1e-12
    )
    assert found["fraction_seeds"] == pytest.approx(2 / 3)
    single = variance_split(table(*by_case(patients)), metric="dice").iloc[0]
    assert single["var_cases"] == pytest.approx(0.01)
    assert np.isnan(single["fraction_seeds"])


@pytest.mark.parametrize("shift", [0.0, 0.006, 0.02])
def test_the_bayesian_signed_rank_test_agrees_with_the_peer(shift):
    """The peer draws one after the other; both have a Monte-Carlo error of at most 0.0023 at 50,000 draws."""
    differences = np.random.default_rng(3).normal(shift, 0.02, 18)
    ours = equivalence(differences, 0.01, posterior_draws(18, (0,)))
    peer = baycomp.SignedRankTest.probs(np.zeros(18), differences, 0.01, random_state=0)
    np.testing.assert_allclose(ours, peer, atol=0.01)
