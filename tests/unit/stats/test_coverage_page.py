"""The measured tables of docs/statistics.md are those of the two CSV files."""

import pandas as pd

from benchmarks.coverage import MISSED_BY, REAL, SAME_MEAN, measured_part
from benchmarks.coverage_page import FALSE_POSITIVES, GOAL_SIZES, PAGE, result_lines, with_sections
from segbench.stats.coverage import DIFFERENCE, coverage_table


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
    exchangeable = rates[~rates["design"].str.contains("better")]
    margin = 2.6 * (0.05 * 0.95 / exchangeable["repeats"]) ** 0.5
    assert (exchangeable["rate"] <= 0.05 + margin).all()


def test_a_result_line_for_every_size_and_rule():
    lines = list(result_lines(coverage_table(), pd.read_csv(FALSE_POSITIVES)))
    assert all(line.startswith("result: ") for line in lines)
    assert sum("differences" in line for line in lines) == len(GOAL_SIZES)


def test_the_records_do_not_depend_on_the_number_of_workers():
    assert measured_part("tasks", 1, 1) == measured_part("tasks", 1, 2)
