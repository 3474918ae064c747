"""Tables as CSV text for people and programs: names first, plain numbers, yes and no; and bounded file names."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pandas as pd

NAMES = (
    "data",
    "experiment",
    "metric",
    "unit",
    "protocol",
    "task",
    "structure",
    "model",
    "initialisation",
    "method",
    "method_a",
    "method_b",
    "universal",
    "single",
)
"""Columns that say what a row is about; they stand first, in this order."""
INTERNAL = ("seed_means", "seed_noise", "fold_means", "fold_noise", "patient_low", "patient_high", "lower_is_better")
"""Columns that other functions need and no reader does."""
LONGEST_STEM = 80
LONGEST_NAME = 60


def table_text(frame: pd.DataFrame) -> str:
    """Return CSV text: columns of NAMES first, INTERNAL ones left out, nine digits, yes or no for truth."""
    first = [name for name in NAMES if name in frame]
    rest = [name for name in frame.columns if name not in first and name not in INTERNAL]
    plain = pd.DataFrame({name: _plain(frame[name]) for name in (*first, *rest)}, index=frame.index)
    return plain.to_csv(index=False, lineterminator="\n", float_format="%.9g")


def _plain(column: pd.Series) -> pd.Series:
    if pd.api.types.is_bool_dtype(column):
        return column.map({True: "yes", False: "no"})
    if column.dtype == object:
        return column.map(_plain_value)
    return column


def _plain_value(value: object) -> object:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "" if value != value else f"{value:.9g}"
    return value


def short_name(text: str) -> str:
    """Return a name that fits a heading: a long one is cut and ends in a checksum, so that names stay apart."""
    if len(text) <= LONGEST_NAME:
        return text
    return f"{text[: LONGEST_NAME - 12]}\u2026 {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def file_stem(text: str) -> str:
    """Return a name for a file: letters, digits, '_', '-' and '.'; what had to be changed or cut ends in a checksum."""
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("._") or "table"
    if kept == text and len(kept) <= LONGEST_STEM:
        return kept
    return f"{kept[:LONGEST_STEM]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
