"""Measured coverage of the cell intervals, made by `python -m benchmarks.coverage` and shipped as a small table."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd

CELLS, CELLS_AS_SEEN = "segbench", "segbench as seen"
DIFFERENCE, DIFFERENCE_AS_SEEN = "difference", "difference as seen"
TABLE = Path(__file__).with_name("measured_coverage.csv")


@functools.cache
def coverage_table() -> pd.DataFrame:
    """Return the measured table: design, n, missed_fraction, method, coverage, truth_below, truth_above, ...."""
    return pd.read_csv(TABLE)


@functools.cache
def measured_coverage(patients: int, method: str = CELLS, *, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the lowest and highest measured coverage over all designs, and the number of patients simulated there.

    `method` is CELLS for the intervals of `aggregate.cells`, DIFFERENCE for those of `paired_table`, seeds included.
    The largest simulated n at or below `patients` is used, and it is what must be quoted. NaN below the smallest one,
    and for intervals that are not of 95 %, which were not simulated.
    """
    if not np.isclose(confidence, 0.95):
        return np.nan, np.nan, np.nan
    table = coverage_table()
    table = table[(table["method"] == method) & (table["n"] <= patients)]
    if table.empty:
        return np.nan, np.nan, np.nan
    seen = table.loc[table["n"] == table["n"].max(), "coverage"]
    return float(seen.min()), float(seen.max()), float(table["n"].max())
