"""The measured tables of docs/statistics.md are those of the two CSV files."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.coverage import (
    MISSED_BY,
    REAL,
    SAME_MEAN,
    bootstrap_t,
    inverted_sign_flips,
    measured_part,
    student,
)
from benchmarks.coverage_page import (
    FALSE_POSITIVES,
    GOAL_SIZES,
    LEVEL,
    MARGIN,
    PAGE,
    UNEQUAL_HITS,
    result_lines,
    with_sections,
)
from segbench.stats.coverage import DIFFERENCE, coverage_table
from segbench.stats.decision import sign_flip_p


def test_the_page_holds_what_was_measured():
    page = PAGE.read_text(encoding="utf-8")
    assert with_sections(page, coverage_table(), pd.read_csv(FALSE_POSITIVES)) == page


def test_every_design_of_a_difference_was_measured_at_every_stated_size():
    table = coverage_table()
    sizes = table[table["method"] == DIFFERENCE].groupby("design")["n"].agg(set)
    stated = [f"{100 * a:g} % and {100 * b:g} % missed" for a, b in MISSED_BY]
    assert all(set(GOAL_SIZES) <= sizes[f"paired difference, {name}"] for name in (*stated, *REAL))


def test_exchangeable_methods_are_rarely_called_different():
    rates = pd.read_csv(FALSE_POSITIVES)
    assert set(rates["design"]) == set(SAME_MEAN)
    exchangeable = rates[~rates["design"].str.contains(UNEQUAL_HITS)]
    margin = MARGIN * (LEVEL * (1 - LEVEL) / exchangeable["repeats"]) ** 0.5
    assert (exchangeable["rate"] <= LEVEL + margin).all()


def test_a_result_line_for_every_size_and_rule():
    lines = list(result_lines(coverage_table(), pd.read_csv(FALSE_POSITIVES)))
    assert all(re.fullmatch(r"result: \w+ \d+\.\d \d+\.\d (ok|short)", line) for line in lines)
    assert sum("differences" in line for line in lines) == 2 * len(GOAL_SIZES)
    assert sum("false_positive" in line for line in lines) == 2


def test_known_intervals_agree_with_their_definitions():
    """The inverted test holds the means that the sign-flip test keeps; bootstrap-t is near Student's without skew."""
    values = np.linspace(-1, 2, 12) ** 3
    rng = np.random.default_rng(1)
    low, high = inverted_sign_flips(values, rng, 20_000)
    assert sign_flip_p(values - low) == pytest.approx(0.05, abs=0.01)
    assert sign_flip_p(values - high) == pytest.approx(0.05, abs=0.01)
    normal = stats.norm.ppf((np.arange(60) + 0.5) / 60)
    assert bootstrap_t(normal, rng, 4000) == pytest.approx(student(normal[:, None]), abs=0.03)
    assert bootstrap_t(np.ones(5), rng, 100) == (1, 1)


def test_the_records_do_not_depend_on_the_number_of_workers():
    assert measured_part("tasks", 1, 1) == measured_part("tasks", 1, 2)
