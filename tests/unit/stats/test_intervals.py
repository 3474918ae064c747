"""Coverage of the intervals in stated designs, and the closed forms that they reduce to."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.coverage import (
    DICE,
    designs,
    draw_seeds,
    measure,
    measure_seeds,
    one_structure,
    organ_and_tumour,
    real_designs,
    thirteen_organs,
)
from segbench.stats.coverage import coverage_table, measured_coverage
from segbench.stats.intervals import (
    PatientSums,
    Scale,
    combine,
    interval,
    mean_draws,
    seed_spread,
    sums_of_values,
)

REPEATS = 300
ERROR = 2.6 * np.sqrt(0.95 * 0.05 / REPEATS)  # 99 % Monte-Carlo margin at 95 %: 3.3 points
DESIGNS = [
    (one_structure("organ", 0.95, sd=0.02, missed=0.1), 9),
    (one_structure("organ", 0.95, sd=0.02, missed=0.1), 13),
    (one_structure("organ", 0.95, sd=0.02, missed=0.1), 27),
    (one_structure("organ", 0.95, sd=0.02, missed=0.05), 27),
    (one_structure("tumour", 0.70, sd=0.20, missed=0.2), 9),
    (one_structure("tumour", 0.70, sd=0.20, missed=0.2), 27),
    (organ_and_tumour(0.1), 13),
    (thirteen_organs(0.1), 9),
    (one_structure("organ", 0.90, sd=0.08, missed=0.0), 9),
    (one_structure("organ", 0.90, sd=0.08, missed=0.0), 27),
]


@pytest.mark.parametrize(("design", "patients"), DESIGNS, ids=lambda value: getattr(value, "name", value))
def test_interval_covers_in_small_samples_with_missed_structures(design, patients):
    rng = np.random.default_rng(41)
    found = {row["method"]: row for row in measure(design, patients, repeats=REPEATS, rng=rng, resamples=500)}
    assert 0.93 - ERROR <= found["segbench"]["coverage"] <= 0.97 + ERROR


def test_percentile_bootstrap_fails_where_ours_holds():
    """0.9^9 = 39 % of samples of nine miss nothing, and a bootstrap of those never reaches the true mean."""
    rng = np.random.default_rng(43)
    design = one_structure("organ", 0.95, sd=0.02, missed=0.1)
    found = {row["method"]: row["coverage"] for row in measure(design, 9, repeats=REPEATS, rng=rng, resamples=500)}
    assert found["percentile"] < 0.66
    assert found["segbench"] > 0.93


def test_shipped_coverage_table_holds_what_it_says():
    table = coverage_table()
    ours = table[(table["method"] == "segbench") & (table["n"] >= 9)]
    assert set(ours["design"]) == {design.name for design in (*designs(), *real_designs())}
    assert ours["repeats"].min() >= 1000
    assert ours["coverage"].min() >= 0.925
    dice = ours[~ours["design"].str.startswith(("HD95", "real"))]
    assert dice["coverage"].between(0.93, 0.98).mean() > 0.85
    assert dice["coverage"].max() <= 0.995
    with_missed = dice[dice["missed_fraction"] > 0]["coverage"]
    assert with_missed.between(0.925, 0.985).all()
    design = next(design for design in designs() if design.missed_fraction == 0.2)
    again = measure(design, 13, repeats=REPEATS, rng=np.random.default_rng(47), resamples=500)[0]
    row = ours[(ours["design"] == design.name) & (ours["missed_fraction"] == 0.2) & (ours["n"] == 13)].iloc[0]
    assert abs(again["coverage"] - row["coverage"]) < ERROR + 0.01


def test_measured_coverage_takes_the_nearest_smaller_sample():
    assert measured_coverage(12) == measured_coverage(9)
    assert measured_coverage(251) == measured_coverage(100)
    assert np.isnan(measured_coverage(3)).all()
    low, high, simulated = measured_coverage(12)
    assert 0.9 < low <= high <= 1
    assert simulated == 9


def _constant_hits(missed: int, patients: int) -> PatientSums:
    values = np.ones((patients, 1))
    values[:missed] = 0
    return sums_of_values(values, DICE)


def test_missed_structures_give_jeffreys_interval():
    """With hits of exactly 1 the mean is 1 - p, and p ~ Beta(k + 1/2, n - k + 1/2)."""
    draws = mean_draws(_constant_hits(3, 13), DICE, rng=np.random.default_rng(1), resamples=200_000)[1]
    expected = 1 - stats.beta(3.5, 10.5).ppf([0.975, 0.025])
    assert interval(draws) == pytest.approx(expected, abs=0.003)


def test_no_missed_structure_gives_mid_p_limit():
    """Half of the mass on p = 0, half on Beta(1, n): the 97.5 % point of p is the 95 % point of Beta(1, n)."""
    draws = mean_draws(_constant_hits(0, 9), DICE, rng=np.random.default_rng(1), resamples=200_000)[1]
    low, high = interval(draws)
    assert low == pytest.approx(1 - stats.beta(1, 9).ppf(0.95), abs=0.004)
    assert low == pytest.approx(0.05 ** (1 / 9), abs=0.004)  # Beta(1, n) has the survival function (1 - p)^n
    assert high == 1


def test_without_missed_structures_it_is_students_interval():
    values = np.array([3.0, 5.0, 4.0, 8.0, 6.0])
    sums = sums_of_values(values[:, None], Scale())
    low, high = interval(mean_draws(sums, Scale(), rng=np.random.default_rng(2), resamples=400_000)[1])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.03)


def test_structures_of_a_patient_move_together():
    """Two structures with equal values have the interval of one; independent structures a narrower one."""
    rng = np.random.default_rng(3)
    one = rng.normal(0, 1, (12, 1))
    twice = np.concatenate([one, one], axis=1)
    apart = np.concatenate([one, rng.normal(0, 1, (12, 1))], axis=1)
    widths = [
        np.diff(
            interval(mean_draws(sums_of_values(v, Scale()), Scale(), rng=np.random.default_rng(4), resamples=50_000)[1])
        )
        for v in (one, twice, apart)
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.02)
    assert widths[2] < 0.9 * widths[0]


def test_interval_stays_in_the_range_of_the_metric():
    values = np.array([[0.99], [1.0], [0.2], [0.97]])
    low, high = interval(mean_draws(sums_of_values(values, DICE), DICE, rng=np.random.default_rng(5))[1])
    assert 0 <= low < values.mean() < high <= 1


def test_one_patient_has_no_interval():
    draws = mean_draws(sums_of_values(np.array([[0.9]]), DICE), DICE, rng=np.random.default_rng(6))[1]
    assert np.isnan(interval(draws)).all()


def test_unbounded_metric_with_hits_of_one_patient_has_no_interval():
    sums = PatientSums(np.array([[4.0, 4.0], [5.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 0.0]]), np.zeros((2, 2)))
    assert np.isnan(mean_draws(sums, Scale(), rng=np.random.default_rng(7))).all()


def test_everything_missed_reaches_from_zero_upward():
    low, high = interval(mean_draws(sums_of_values(np.zeros((9, 1)), DICE), DICE, rng=np.random.default_rng(8))[1])
    assert low == pytest.approx(0, abs=0.01)
    assert 0.05 < high < 0.4


def test_seed_spread_separates_seeds_from_patients():
    """Means per seed 1, 2, 3 without residual: variance 1, margin t(2) * sqrt(1 / 3)."""
    values = np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]])
    spread = seed_spread(values)
    assert spread.means_S.tolist() == [1, 2, 3]
    assert spread.noise == 0
    assert spread.margin() == pytest.approx(stats.t.ppf(0.975, 2) * np.sqrt(1 / 3))
    assert seed_spread(values[:, :1]).margin() == 0


def test_seed_spread_forgets_what_patients_explain():
    """Without seed effects the margin is mostly zero or small: the residual explains the per-seed means."""
    rng = np.random.default_rng(9)
    margins = [seed_spread(draw_seeds(rng, 27, seeds_S=np.zeros(3))).margin() for _ in range(200)]
    assert np.mean(np.array(margins) == 0) > 0.45


@pytest.mark.parametrize("seed_sd", [0.0, 0.02])
def test_interval_with_seeds_covers(seed_sd):
    (found,) = measure_seeds(27, seed_sd=seed_sd, repeats=300, rng=np.random.default_rng(10))
    assert found["coverage"] >= 0.95 - 2.6 * np.sqrt(0.95 * 0.05 / 300)


def test_combine_adds_in_squares():
    assert combine(5.0, (2.0, 6.0), 4.0, Scale()) == pytest.approx((0.0, 5 + np.sqrt(17)))
    assert combine(0.5, (0.2, 0.9), 0.4, Scale(0, 1)) == (0.0, 1.0)
    assert combine(200.0, (150.0, 199.9), 0.0, Scale()) == (150.0, 200.0)  # never beyond both center and limit
