"""Measured coverage of the cell intervals, made by `python -m benchmarks.coverage` and shipped as a small table."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd

CELLS, DIFFERENCE = "segbench", "difference"
TABLE = Path(__file__).with_name("measured_coverage.csv")


@functools.cache
def coverage_table() -> pd.DataFrame:
    """Return the measured table: design, n, missed_fraction, method, coverage, truth_below, truth_above, ...."""
    return pd.read_csv(TABLE)


@functools.cache
def measured_coverage(patients: int, method: str = CELLS) -> tuple[float, float]:
    """Return the lowest and highest measured coverage over all designs with the nearest measured n.

    `method` is CELLS for the intervals of `aggregate.cells`, DIFFERENCE for those of `paired_table`, seeds included.

    The nearest n at or below `patients` is used, the smallest one below that. Fewer than two patients have no interval.
    """
    if patients < 2:
        return np.nan, np.nan
    table = coverage_table()
    table = table[table["method"] == method]
    sizes = np.sort(table["n"].unique())
    nearest = sizes[max(int(np.searchsorted(sizes, patients, side="right")) - 1, 0)]
    seen = table.loc[table["n"] == nearest, "coverage"]
    return float(seen.min()), float(seen.max())
