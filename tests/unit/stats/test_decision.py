"""One decision per comparison: ten paired designs with decision, interval and equivalence; families."""

import itertools

import numpy as np
import pandas as pd
import pytest

from segbench.stats.decision import (
    CONFLICTING,
    PRIMARY,
    SECONDARY,
    Directions,
    attainable_p,
    decide,
    oriented,
    sign_flip_p,
)
from segbench.stats.paired import compare_pair, paired_table

from .score_tables import methods

POINTS = np.linspace(-0.01, 0.01, 40)
DESIGNS = {
    "a 3 points better, 2 of 40 missed by a": np.r_[0.03 + POINTS[:38], -0.9, -0.9],
    "a 3 points better": 0.03 + POINTS,
    "heavy tails around 0": np.r_[POINTS[:36], -0.3, 0.3, -0.5, 0.5],
    "ties: half equal, half a better": np.r_[np.zeros(20), np.full(20, 0.02)],
    "2 of 42 missed by b, otherwise equal": np.r_[POINTS, 0.85, 0.85],
    "2 of 42 missed by a, otherwise equal": np.r_[POINTS, -0.85, -0.85],
    "equal methods": np.zeros(40),
    "one missed by each": np.r_[POINTS[:38], -0.9, 0.9],
    "four patients, a better": np.array([0.02, 0.03, 0.04, 0.05]),
    "opposite tails": np.r_[np.full(30, 0.01), np.full(10, -0.1)],
}
EXPECTED = {
    "a 3 points better, 2 of 40 missed by a": (CONFLICTING, "undecided"),
    "a 3 points better": ("a", "a better"),
    "heavy tails around 0": ("", "undecided"),
    "ties: half equal, half a better": ("a", "undecided"),
    "2 of 42 missed by b, otherwise equal": ("", "undecided"),
    "2 of 42 missed by a, otherwise equal": ("", "undecided"),
    "equal methods": ("", "practically equivalent"),
    "one missed by each": ("", "undecided"),
    "four patients, a better": ("", "a better"),
    "opposite tails": (CONFLICTING, "undecided"),
}


def outcome(differences, rule="mean"):
    found = compare_pair(
        differences, rope=0.01, alpha=0.05, lower_is_better=False, rng=np.random.default_rng(0), rule=rule
    )
    signs = Directions(found["sign_of_mean"], found["sign_of_ranks"])
    return decide(found["p_value"], signs, rule=rule, alpha=0.05, lower_is_better=False), found


@pytest.mark.parametrize("name", DESIGNS)
def test_the_ten_designs(name):
    better, found = outcome(DESIGNS[name])
    assert (better, found["status"]) == EXPECTED[name]
    by_ranks, _ = outcome(DESIGNS[name], "ranks")
    assert {better, by_ranks} != {"a", "b"}
    if found["status"] == "practically equivalent":
        assert -0.01 <= found["low"] <= found["high"] <= 0.01


def test_sign_flip_is_exact():
    differences = np.array([3.0, -1.0, 4.0, 1.0, 5.0, -2.0, 6.0]) / 22 / 2**10
    sums = [abs(sum(signs * differences)) for signs in itertools.product((-1, 1), repeat=7)]
    expected = np.mean(np.array(sums) >= abs(differences.sum()) - 1e-12)
    assert sign_flip_p(differences) == pytest.approx(expected)
    assert sign_flip_p(np.full(9, 0.1)) == pytest.approx(attainable_p(9)) == pytest.approx(2 / 2**9)
    assert sign_flip_p(np.zeros(4)) == 1
    assert np.isnan(sign_flip_p(np.array([])))


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
