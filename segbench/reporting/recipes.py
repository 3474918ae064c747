"""Each training recipe has tables and families of tests of its own: a run is split by recipe before it is compared.

A comparison is an experiment at one recipe. Its name is that of the experiment at the equal recipe, and
`experiment_recipe` otherwise; it stands in the column `experiment`, by which everything is grouped. What is not trained
here (controls, external models) is in each comparison of its experiment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from segbench.core.run_record import JobRecord, Method, RunRecord
from segbench.core.vocabulary import EQUAL, NO_RECIPE, OWN, PUBLISHED

WORDS = {
    EQUAL: "Recipe: equal, one for all models",
    PUBLISHED: "Recipe: published, each model by that of its card",
    OWN: "Recipe: own, stated for each model",
}


def comparison_name(experiment: str, recipe: str) -> str:
    """Return the name of an experiment at one recipe."""
    return experiment if recipe in (EQUAL, NO_RECIPE) else f"{experiment}_{recipe}"


def experiment_of(comparison: str) -> str:
    """Return the experiment that a comparison belongs to."""
    return comparison.partition("_")[0]


def belongs(experiment: str, recipe: str, comparison: str) -> bool:
    """Tell whether a job of a split record is part of a comparison; one without a recipe is part of several."""
    return comparison == experiment or (recipe == NO_RECIPE and experiment == experiment_of(comparison))


def _names(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return experiment -> names of its comparisons, the equal recipe first."""
    found: dict[str, set[str]] = {}
    for experiment, recipe in pairs:
        found.setdefault(experiment, set())
        if recipe != NO_RECIPE:
            found[experiment].add(comparison_name(experiment, recipe))
    return {experiment: sorted(names) or [experiment] for experiment, names in found.items()}


def _into(names: dict[str, list[str]], experiment: str, recipe: str) -> Sequence[str]:
    """Return the comparisons that a method is part of; an objective without models of its recipe joins the first."""
    if recipe == NO_RECIPE:
        return names[experiment]
    own = comparison_name(experiment, recipe)
    return [own] if own in names[experiment] else names[experiment][:1]


def split_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return score rows with the comparison in the column `experiment`; those without a recipe come once for each."""
    pairs = list(rows[["experiment", "recipe"]].drop_duplicates().itertuples(index=False, name=None))
    names = _names(pairs)
    if all(listed == [experiment] for experiment, listed in names.items()):
        return rows
    keys = pd.MultiIndex.from_frame(rows[["experiment", "recipe"]])
    parts = []
    for name in (name for listed in names.values() for name in listed):
        inside = [pair for pair in pairs if name in _into(names, *pair)]
        parts.append(rows[keys.isin(inside)].assign(experiment=name))
    return pd.concat(parts, ignore_index=True)


def split_record(record: RunRecord) -> RunRecord:
    """Return a record whose methods, tasks, skipped cells and jobs have the comparison in the place of the experiment.

    Jobs stay single, so that sums over them stay right: one without a recipe keeps its experiment (see `belongs`).
    """
    names = _names((method.experiment, method.recipe) for method in record.methods)
    if all(listed == [experiment] for experiment, listed in names.items()):
        return record

    def spread(items: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(
            item.model_copy(update={"experiment": name})
            for item in items
            for name in _into(names, item.experiment, getattr(item, "recipe", NO_RECIPE))
        )

    jobs = [
        job
        if job.recipe == NO_RECIPE
        else job.model_copy(update={"experiment": _into(names, job.experiment, job.recipe)[0]})
        for job in record.jobs
    ]
    changes = {
        "methods": spread(record.methods),
        "self_supervised": spread(record.self_supervised),
        "tasks": tuple(sorted(spread(record.tasks), key=lambda task: [*names].index(experiment_of(task.experiment)))),
        "skipped": spread(record.skipped),
        "jobs": tuple(jobs),
    }
    return record.model_copy(update=changes)


def _texts(methods: Iterable[Method]) -> dict[str, list[str]]:
    """Return the text of each recipe with the titles of the methods that follow it."""
    texts: dict[str, list[str]] = {}
    for method in methods:
        if method.recipe != NO_RECIPE:
            texts.setdefault(method.recipe_text, []).append(method.title)
    return texts


def recipe_words(methods: Sequence[Method]) -> str:
    """Return by which recipe the methods of a comparison were trained; empty where none is trained here."""
    texts = _texts(methods)
    if not texts:
        return ""
    recipe = next(method.recipe for method in methods if method.recipe != NO_RECIPE)
    return f"{WORDS[recipe]}{f': {next(iter(texts))}' if len(texts) == 1 else ''}."


def recipes_of_methods(methods: Sequence[Method]) -> str:
    """Return the recipe of each method where they differ, otherwise nothing."""
    texts = _texts(methods)
    if len(texts) < 2:
        return ""
    listed = [f"{' and '.join(titles)}: {text}" for text, titles in texts.items()]
    return f" Recipes: {'; '.join(listed)}."


def budget_sentence(jobs: Iterable[JobRecord], tasks: int) -> str:
    """Return the budget of a comparison's trained jobs: steps and patches per task and in total, and hours.

    Args:
        jobs: jobs of the comparison; those that are not trained here do not count.
        tasks: number of its tasks.

    Returns:
        One sentence per kind of network, both readings for joint ones; empty without a trained job.
    """
    trained = [job for job in jobs if job.batch_size and job.iterations]
    words = []
    for joint in (False, True):
        own = [job for job in trained if (job.scope == "joint") == joint]
        if not own:
            continue
        steps, patches = [job.iterations for job in own], [job.iterations * job.batch_size for job in own]
        hours = _range([job.train_seconds / 3600 for job in own], ".3g")
        if joint:
            per_task = _range([number / tasks for number in steps], ",.0f")
            seen = _range([number / tasks for number in patches], ",.0f")
            words.append(
                f"joint networks {per_task} steps and {seen} patches per task (mean of {tasks} tasks), "
                f"{_range(steps, ',.0f')} steps and {_range(patches, ',.0f')} patches in total, {hours} h each"
            )
        else:
            words.append(
                f"per-task networks {_range(steps, ',.0f')} steps and {_range(patches, ',.0f')} patches each, for "
                f"their one task, {hours} h each"
            )
    return f"Budget: {'; '.join(words)}." if words else ""


def _range(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"
