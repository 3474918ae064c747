"""The tables of docs/statistics.md that `benchmarks.coverage` measures, made from its two CSV files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from segbench.core.cards import ROOT
from segbench.core.files import write_text
from segbench.stats.coverage import CELLS, DIFFERENCE, DIFFERENCE_AS_SEEN

FALSE_POSITIVES = Path(__file__).with_name("false_positives.csv")
PAGE = ROOT / "docs" / "statistics.md"
GOAL = (0.93, 0.97)
GOAL_SIZES = (9, 13, 27, 52)
PAIRED = "paired difference, "
BOOTSTRAP_T, SIGN_FLIPS = "difference, bootstrap-t", "difference, inverted sign flips"
OUTSIDE = "outside of 93 to 97 %"
LEVEL, MARGIN = 0.05, 3.3
"""Level of the tests, and the standard errors that the highest of thirty rates may lie above it."""
UNEQUAL_HITS = "better"
"""Word in the names of designs whose methods have the same mean and cannot be exchanged."""


def percent(fraction: float) -> str:
    """Return a fraction as a whole number of per cent."""
    return f"{100 * fraction:.0f}"


def wide(rows: pd.DataFrame, *, own: str, beside: str) -> list[str]:
    """Return a table with one line per design and one column per n: coverage of `own`, in brackets that of `beside`."""
    sizes = sorted(rows["n"].unique())
    lines = [f"| design | missed | {' | '.join(f'n = {size}' for size in sizes)} |", "|" + "---|" * (len(sizes) + 2)]
    for (design, missed), part in rows.groupby(["design", "missed_fraction"], sort=False):
        of = {
            method: part[part["method"] == method].set_index("n")["coverage"].reindex(sizes) for method in (own, beside)
        }
        cells = [
            f"{percent(of[own][size])} ({percent(of[beside][size])})" if of[own][size] == of[own][size] else ""
            for size in sizes
        ]
        lines.append(f"| {str(design).removeprefix(PAIRED)} | {100 * missed:g} % | {' | '.join(cells)} |")
    return lines


def of_cells(table: pd.DataFrame) -> list[str]:
    """Return the table of cells, with a percentile bootstrap in brackets."""
    return [
        *wide(table[table["method"].isin((CELLS, "percentile"))], own=CELLS, beside="percentile"),
        *goal(table, CELLS),
    ]


def of_seeds(table: pd.DataFrame) -> list[str]:
    """Return the table of cells with several seeds and of means over tasks."""
    rows = table[table["method"].isin(("segbench with seeds", "segbench over tasks"))]
    return [
        "| design | n | missed | coverage | repeats |",
        "|---|---|---|---|---|",
        *(
            f"| {row['design']} | {row['n']} | {100 * row['missed_fraction']:g} % | {100 * row['coverage']:.1f} "
            f"| {row['repeats']} |"
            for row in rows.to_dict("records")
        ),
    ]


def of_differences(table: pd.DataFrame) -> list[str]:
    """Return the table of paired differences, with the interval as seen in brackets."""
    rows = table[table["method"].isin((DIFFERENCE, DIFFERENCE_AS_SEEN))]
    others = table[table["method"].isin((BOOTSTRAP_T, SIGN_FLIPS))]
    return [
        *wide(rows, own=DIFFERENCE, beside=DIFFERENCE_AS_SEEN),
        *goal(table, DIFFERENCE),
        "",
        "Two known intervals on the same samples, bootstrap-t and in brackets the inverted sign-flip test:",
        "",
        *wide(others, own=BOOTSTRAP_T, beside=SIGN_FLIPS),
    ]


def goal(table: pd.DataFrame, method: str) -> list[str]:
    """Return how many designs reach the goal per n, and which drawn designs do not, with what was measured."""
    rows = table[(table["method"] == method) & table["n"].isin(GOAL_SIZES)]
    lines = ["", f"Designs per n inside and {OUTSIDE} (below, above), lowest and highest coverage:", ""]
    lines += ["| n | designs | inside | below | above | lowest | highest |", "|---|---|---|---|---|---|---|"]
    for size, part in rows.groupby("n"):
        seen = part["coverage"]
        counts = (len(seen), int(seen.between(*GOAL).sum()), int((seen < GOAL[0]).sum()), int((seen > GOAL[1]).sum()))
        ends = (f"{100 * seen.min():.1f}", f"{100 * seen.max():.1f}")
        lines.append(f"| {size} | {' | '.join(map(str, counts))} | {' | '.join(ends)} |")
    return lines


def of_false_positives(rates: pd.DataFrame) -> list[str]:
    """Return the table of false positives in per cent: rule `mean`, in brackets rule `ranks`."""
    sizes = sorted(rates["n"].unique())
    lines = [f"| design | {' | '.join(f'n = {size}' for size in sizes)} |", "|" + "---|" * (len(sizes) + 1)]
    for design, part in rates.groupby("design", sort=False):
        rate = part.set_index(["n", "rule"])["rate"]
        cells = [f"{100 * rate[size, 'mean']:.1f} ({100 * rate[size, 'ranks']:.1f})" for size in sizes]
        lines.append(f"| {design} | {' | '.join(cells)} |")
    return lines


def sections(table: pd.DataFrame, rates: pd.DataFrame) -> dict[str, list[str]]:
    """Return name -> lines of every measured part of the page."""
    return {
        "cells": of_cells(table),
        "seeds": of_seeds(table),
        "differences": of_differences(table),
        "false positives": of_false_positives(rates),
    }


def with_sections(page: str, table: pd.DataFrame, rates: pd.DataFrame) -> str:
    """Return the page with its measured parts, which stand between two comments, made anew."""
    for name, lines in sections(table, rates).items():
        begin, end = f"<!-- measured: {name} -->\n", f"<!-- end: {name} -->\n"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"docs/statistics.md lacks the comments around the measured part {name!r}")
        page = before + begin + "\n".join(["", *lines, "", ""]) + end + after
    return page


def update_page(table: pd.DataFrame, rates: pd.DataFrame) -> None:
    """Write the measured parts of docs/statistics.md."""
    write_text(PAGE, with_sections(PAGE.read_text(encoding="utf-8"), table, rates))


def result_lines(table: pd.DataFrame, rates: pd.DataFrame) -> Iterator[str]:
    """Yield lines `result: NAME VALUE TARGET ok|short`, values in per cent.

    Lowest and highest coverage per method and n against the two ends of the goal; the highest false-positive rate of
    methods that can be exchanged, per rule, against the level of the test with the margin of its repeats.
    """
    for method, name in ((CELLS, "cells"), (DIFFERENCE, "differences")):
        for size, part in table[(table["method"] == method) & table["n"].isin(GOAL_SIZES)].groupby("n"):
            low, high = part["coverage"].min(), part["coverage"].max()
            yield _result(f"lowest_coverage_{name}_n{size}", low, GOAL[0], is_met=low >= GOAL[0])
            yield _result(f"highest_coverage_{name}_n{size}", high, GOAL[1], is_met=high <= GOAL[1])
    exchangeable = rates[~rates["design"].str.contains(UNEQUAL_HITS)]
    for rule, part in exchangeable.groupby("rule", sort=False):
        target = LEVEL + MARGIN * (LEVEL * (1 - LEVEL) / part["repeats"].min()) ** 0.5
        rate = part["rate"].max()
        yield _result(f"highest_false_positive_rate_{rule}", rate, target, is_met=rate <= target)


def _result(name: str, value: float, target: float, *, is_met: bool) -> str:
    return f"result: {name} {100 * value:.1f} {100 * target:.1f} {'ok' if is_met else 'short'}"
