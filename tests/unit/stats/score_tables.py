"""Small score tables for the tests of segbench.stats, made up value by value or drawn from a seeded generator."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from segbench.core.vocabulary import SCORE_COLUMNS
from segbench.stats.scores import validate_rows

ROW = {
    "experiment": "upstream",
    "model": "a",
    "initialisation": "random",
    "recipe": "equal",
    "scope": "joint",
    "fold": 0,
    "seed": 0,
    "protocol": "seeded",
    "dataset": "T",
    "task": "T",
    "case": "c",
    "structure": "organ",
    "metric": "dice",
    "patient": "",
    "value": 0.5,
    "unit_of_value": "",
    "status": "ok",
    "reason": "",
    "reference_volume_mm3": 1.0,
    "prediction_volume_mm3": 1.0,
    "diagonal_mm": 300.0,
}


def table(*rows: dict, **common: object) -> pd.DataFrame:
    """Return checked rows: `ROW` with `common` and then each row's own cells on top; an empty mask has no volume."""
    full = [ROW | volumes((common | row).get("status", "ok")) | common | row for row in rows]
    frame = pd.DataFrame(full)[list(SCORE_COLUMNS)]
    return validate_rows(frame)


def volumes(status: str) -> dict[str, float]:
    """Return the volumes that a row of this status has."""
    return {
        "reference_volume_mm3": 0.0 if status in ("both_empty", "reference_empty") else 1.0,
        "prediction_volume_mm3": 0.0 if status in ("both_empty", "prediction_empty") else 1.0,
    }


def by_case(values: Iterable[float], **common: object) -> list[dict]:
    """Return one row per value for cases c00, c01, ...; a value of None is a missing prediction."""
    rows = []
    for index, value in enumerate(values):
        state = {"value": np.nan, "status": "prediction_missing"} if value is None else {"value": float(value)}
        rows.append({"case": f"c{index:02d}", **state, **common})
    return rows


def methods(values: dict[str, Iterable[float]], **common: object) -> pd.DataFrame:
    """Return a table of several models on the cases of one task."""
    return table(*(row for model, own in values.items() for row in by_case(own, model=model)), **common)
