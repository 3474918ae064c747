"""One decision per comparison: eleven paired designs with decision, interval and equivalence; families."""

import itertools

import numpy as np
import pandas as pd
import pytest

from segbench.core.cards import ROOT
from segbench.stats.decision import (
    ALL_PAIRS,
    CONFLICTING,
    PRIMARY,
    SECONDARY,
    Directions,
    agreement,
    attainable_p,
    correct,
    decide,
    oriented,
    sign_flip_p,
)
from segbench.stats.intervals import Scale, sums_of_values
from segbench.stats.paired import compare_pair, pair_limits, paired_table, posterior_draws

from .score_tables import methods

POINTS = np.linspace(-0.01, 0.01, 40)
DICE = Scale(0.0, 1.0, 0.0)


def _pair(differences, *, missed_a=0, missed_b=0, both=0.9):
    """Values of a and b: b at `both`, a with the differences, then patients with a missed structure."""
    a = np.r_[both + np.asarray(differences), np.zeros(missed_a), np.full(missed_b, both)]
    b = np.r_[np.full(len(differences), both), np.full(missed_a, both), np.zeros(missed_b)]
    return np.stack([a, b], axis=1)


DESIGNS = {
    "a 3 points better, 2 of 40 missed by a": _pair(0.03 + POINTS[:38], missed_a=2),
    "a 3 points better": _pair(0.03 + POINTS),
    "heavy tails around 0": _pair(np.r_[POINTS[:36], -0.3, 0.3, -0.4, 0.4], both=0.5),
    "ties: half equal, half a better": _pair(np.r_[np.zeros(20), np.full(20, 0.02)]),
    "2 of 42 missed by b, otherwise equal": _pair(POINTS, missed_b=2),
    "2 of 42 missed by a, otherwise equal": _pair(POINTS, missed_a=2),
    "equal methods": _pair(np.zeros(40)),
    "equal methods, 400 patients": _pair(np.zeros(400)),
    "one missed by each": _pair(POINTS[:38], missed_a=1, missed_b=1),
    "four patients, a better": _pair([0.02, 0.03, 0.04, 0.05]),
    "opposite tails": _pair(np.r_[np.full(30, 0.01), np.full(10, -0.1)]),
}
EXPECTED = {
    "a 3 points better, 2 of 40 missed by a": (CONFLICTING, "not shown", "yes"),
    "a 3 points better": ("a", "not shown", "as seen"),
    "heavy tails around 0": ("", "not shown", "yes"),
    "ties: half equal, half a better": ("a", "not shown", "as seen"),
    "2 of 42 missed by b, otherwise equal": ("", "not shown", "interval only"),
    "2 of 42 missed by a, otherwise equal": ("", "not shown", "interval only"),
    "equal methods": ("", "equivalent as seen", "yes"),
    "equal methods, 400 patients": ("", "practically equivalent", "yes"),
    "one missed by each": ("", "not shown", "yes"),
    "four patients, a better": ("", "not shown", "interval only"),
    "opposite tails": (CONFLICTING, "not shown", "interval only"),
}


def outcome(values_P2, rule="mean"):
    """The statistics of one design with its decision, and whether the intervals agree with it."""
    differences_P = (values_P2[:, 0] - values_P2[:, 1]).round(12)
    sums = tuple(sums_of_values(values_P2[:, [i]], DICE) for i in (0, 1))
    limits = pair_limits(differences_P, sums, DICE, alpha=0.05, rng_seeds=[0], bound=1.0)
    draws = posterior_draws(len(differences_P), (0,))
    found = compare_pair(differences_P, limits, rope=0.01, alpha=0.05, lower_is_better=False, draws=draws, rule=rule)
    signs = Directions(found["sign_of_mean"], found["sign_of_ranks"])
    better = decide(found["p_value"], signs, rule=rule, alpha=0.05, lower_is_better=False)
    seen = (limits.low_as_seen, limits.high_as_seen)
    agrees = agreement(better, (limits.low, limits.high), seen, lower_is_better=False)
    return better, found | {"interval_agrees": agrees}


def design_rows():
    """The rows of the table of designs in docs/statistics.md."""
    for name, values_P2 in DESIGNS.items():
        by_mean, found = outcome(values_P2)
        by_ranks, _ = outcome(values_P2, "ranks")
        numbers = [100 * found[key] for key in ("difference", "low", "high", "low_as_seen", "high_as_seen")]
        yield (
            f"| {name} | {len(values_P2)} | {numbers[0]:+.1f} ({numbers[1]:+.1f} to {numbers[2]:+.1f}) | "
            f"{numbers[3]:+.1f} to {numbers[4]:+.1f} | {found['p_mean']:.2g} | {found['p_ranks']:.2g} | "
            f"{by_mean or 'no difference shown'} | {by_ranks or 'no difference shown'} | {found['interval_agrees']} | "
            f"{found['p_equivalent']:.2f} | {found['equivalence']} |"
        )


def test_the_documentation_holds_the_table_of_the_designs():
    written = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8").splitlines()
    begin = next(number for number, line in enumerate(written) if line.startswith("| design | n | mean difference"))
    found = written[begin + 2 : begin + 3 + len(DESIGNS)]
    assert found == [*design_rows(), ""]


@pytest.mark.parametrize("name", DESIGNS)
def test_the_designs(name):
    better, found = outcome(DESIGNS[name])
    assert (better, found["equivalence"], found["interval_agrees"]) == EXPECTED[name]
    assert found["low"] <= found["low_as_seen"] <= found["high_as_seen"] <= found["high"]
    by_ranks, _ = outcome(DESIGNS[name], "ranks")
    assert {better, by_ranks} != {"a", "b"}
    if found["equivalence"] == "practically equivalent":
        assert -0.01 <= found["low"] <= found["high"] <= 0.01


@pytest.mark.parametrize("patients", [1, 2, 3])
def test_up_to_three_patients_give_neither_equivalence_nor_a_detectable_difference(patients):
    _, found = outcome(_pair(np.zeros(patients)))
    assert found["equivalence"] == "not shown"
    assert np.isnan(found["minimum_detectable"])


def test_without_a_reference_the_family_says_so():
    level = np.linspace(0.6, 0.9, 9)
    table = paired_table(methods({"x": level, "y": level + 0.02}), metric="dice")
    assert set(table["family_name"]) == {ALL_PAIRS}
    assert "no reference" in ALL_PAIRS


def test_sign_flip_is_exact():
    differences = np.array([3.0, -1.0, 4.0, 1.0, 5.0, -2.0, 6.0]) / 22 / 2**10
    sums = [abs(sum(signs * differences)) for signs in itertools.product((-1, 1), repeat=7)]
    expected = np.mean(np.array(sums) >= abs(differences.sum()) - 1e-12)
    assert sign_flip_p(differences) == pytest.approx(expected)
    assert sign_flip_p(np.full(9, 0.1)) == pytest.approx(attainable_p(9)) == pytest.approx(2 / 2**9)
    assert sign_flip_p(np.zeros(4)) == 1
    assert np.isnan(sign_flip_p(np.array([])))


def test_small_differences_are_not_lost_beside_a_large_one():
    """By hand: all of one sign give 2 / 2^n; one of thirteen against the others, (1 + 12) / 2^12 of the signs."""
    assert sign_flip_p(np.array([300.0] + [0.004] * 9)) == pytest.approx(2 / 2**10)
    assert sign_flip_p(np.array([120.0] + [0.0015] * 11 + [-0.0015])) == pytest.approx(13 / 2**12)


def test_more_patients_never_attain_less():
    """Holm's value of a task of six patients is not below that of the tasks before it."""
    rows = pd.DataFrame(
        {
            "method_a": "a",
            "method_b": "b",
            "n_patients": [6] + [9] * 20,
            "p_value": [attainable_p(6)] + [attainable_p(9)] * 20,
            "sign_of_mean": 1,
            "sign_of_ranks": 1,
            "lower_is_better": False,
        }
    )
    found = correct(rows, reference=None, rule="mean", alpha=0.05)
    assert found["attainable_p_holm"].tolist() == pytest.approx([21 * 2 / 2**9] * 21)
    assert found["p_holm"].tolist() == pytest.approx(found["attainable_p_holm"].tolist())


def test_the_primary_family_is_corrected_apart():
    level = np.linspace(0.6, 0.9, 9)
    rows = pd.concat(
        [
            methods({"ref": level, "x": level + 0.02, "y": level + 0.03}, task="S"),
            methods({"ref": level[:4], "x": level[:4] + 0.02, "y": level[:4] + 0.03}, task="few"),
        ]
    )
    table = paired_table(rows, metric="dice", reference="ref")
    families = table.groupby("family_name")["family"].first()
    assert families.to_dict() == {PRIMARY: 4, SECONDARY: 2}
    few = table[table["task"] == "few"]
    assert not few["can_be_significant"].any()
    first = table[(table["task"] == "S") & (table["family_name"] == PRIMARY)]
    assert first["attainable_p_holm"].tolist() == pytest.approx([4 * 2 / 2**9] * 2)
    turned = oriented(table, "x", "ref")
    assert turned.loc[turned["task"] == "S", "better"].tolist() == ["a"]
    assert (turned["difference"] > 0).all()
    assert list(turned.columns) == list(table.columns)


@pytest.mark.parametrize("differences", [[-1, -1, 2, -1], [2, 2, -1, -1], [1, 2, -1, 1, 1, -3, 2, 1], [-2, 3, -1] * 6])
def test_sums_that_tie_with_the_observed_one_count(differences):
    """Every sum of the first is odd, so that none lies nearer to 0 than the observed -1."""
    signs = np.array(list(itertools.product((1, -1), repeat=len(differences))))
    exact = (np.abs(signs @ np.array(differences)) >= abs(sum(differences))).mean()
    assert sign_flip_p(np.array(differences) / 100) == pytest.approx(exact)
