"""Each training recipe is compared on its own: score rows are split by recipe before any method meets another.

A comparison is an experiment at one recipe. Its name is that of the experiment at the equal recipe, and
`experiment_recipe` otherwise; it stands in the column `experiment`, by which every statistic is grouped. What is not
trained here (controls, external models) is in each comparison of its experiment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from segbench.core.vocabulary import EQUAL, NO_RECIPE


def comparison_name(experiment: str, recipe: str) -> str:
    """Return the name of an experiment at one recipe; the name of a comparison stays what it is."""
    own = recipe in (EQUAL, NO_RECIPE) or experiment.endswith(f"_{recipe}")
    return experiment if own else f"{experiment}_{recipe}"


def experiment_of(comparison: str) -> str:
    """Return the experiment that a comparison belongs to."""
    return comparison.partition("_")[0]


def comparisons(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return experiment -> names of its comparisons, the equal recipe first."""
    found: dict[str, set[str]] = {}
    for experiment, recipe in pairs:
        found.setdefault(experiment, set())
        if recipe != NO_RECIPE:
            found[experiment].add(comparison_name(experiment, recipe))
    return {experiment: sorted(names) or [experiment] for experiment, names in found.items()}


def comparisons_of(names: Mapping[str, list[str]], experiment: str, recipe: str) -> Sequence[str]:
    """Return the comparisons that a method is part of; an objective without models of its recipe joins the first."""
    if recipe == NO_RECIPE:
        return names[experiment]
    own = comparison_name(experiment, recipe)
    return [own] if own in names[experiment] else names[experiment][:1]


def split_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return score rows with the comparison in the column `experiment`; those without a recipe come once for each."""
    pairs = list(rows[["experiment", "recipe"]].drop_duplicates().itertuples(index=False, name=None))
    names = comparisons(pairs)
    if all(listed == [experiment] for experiment, listed in names.items()):
        return rows
    keys = pd.MultiIndex.from_frame(rows[["experiment", "recipe"]])
    parts = []
    for name in (name for listed in names.values() for name in listed):
        inside = [pair for pair in pairs if name in comparisons_of(names, *pair)]
        parts.append(rows[keys.isin(inside)].assign(experiment=name))
    return pd.concat(parts, ignore_index=True)
