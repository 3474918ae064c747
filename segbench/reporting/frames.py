"""Rows of tables with names, typed loosely: what a column holds is known to the function that made the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd


def named_rows(frame: pd.DataFrame) -> Iterator[Any]:
    """Yield the rows; a column is an attribute of its name."""
    return frame.itertuples()


def groups_of(frame: pd.DataFrame, keys: list[str]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Yield (values of the keys, rows of the group) in the order of the rows."""
    for key, part in frame.groupby(keys, sort=False):
        yield (key if isinstance(key, tuple) else (key,)), part
