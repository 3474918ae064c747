"""A run's record split by training recipe (`segbench.stats.recipes`), and what captions say of recipe and budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from segbench.core.run_record import JobRecord, Method, RunRecord
from segbench.core.vocabulary import EQUAL, NO_RECIPE, OWN, PUBLISHED, TUNED
from segbench.stats.recipes import comparisons, comparisons_of, experiment_of

WORDS = {
    EQUAL: "Recipe: equal, one for all models",
    PUBLISHED: "Recipe: published, each model by that of its card",
    TUNED: "Recipe: tuned, equal but for the learning rate that each job chose by trials on a part of its training "
    "patients; the budget includes the trials",
    OWN: "Recipe: own, stated for each model",
}


def belongs(experiment: str, recipe: str, comparison: str) -> bool:
    """Tell whether a job of a split record is part of a comparison; one without a recipe is part of several."""
    return comparison == experiment or (recipe == NO_RECIPE and experiment == experiment_of(comparison))


def split_record(record: RunRecord) -> RunRecord:
    """Return a record whose methods, tasks, skipped cells and jobs have the comparison in the place of the experiment.

    Jobs stay single, so that sums over them stay right: one without a recipe keeps its experiment (see `belongs`).
    """
    names = comparisons((method.experiment, method.recipe) for method in record.methods)
    if all(listed == [experiment] for experiment, listed in names.items()):
        return record

    order = [name for listed in names.values() for name in listed]

    def spread(items: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(
            item.model_copy(update={"experiment": name})
            for item in items
            for name in comparisons_of(names, item.experiment, getattr(item, "recipe", NO_RECIPE))
        )

    jobs = [
        job
        if job.recipe == NO_RECIPE
        else job.model_copy(update={"experiment": comparisons_of(names, job.experiment, job.recipe)[0]})
        for job in record.jobs
    ]
    changes = {
        "methods": spread(record.methods),
        "self_supervised": spread(record.self_supervised),
        "tasks": tuple(sorted(spread(record.tasks), key=lambda task: order.index(task.experiment))),
        "skipped": spread(record.skipped),
        "jobs": tuple(jobs),
    }
    return record.model_copy(update=changes)


def _titles(methods: Iterable[Method], fact: str) -> dict[str, list[str]]:
    """Return each value of a fact of methods with the titles of those that have it; where it is empty, none."""
    titles: dict[str, list[str]] = {}
    for method in methods:
        if value := getattr(method, fact):
            titles.setdefault(value, []).append(method.title)
    return titles


def _listed(titles: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{' and '.join(names)}: {value}" for value, names in titles.items())


def recipe_words(methods: Sequence[Method]) -> str:
    """Return by which recipe the methods of a comparison were trained; empty where it is not known, or none is."""
    recipe = next((method.recipe for method in methods if method.recipe != NO_RECIPE), NO_RECIPE)
    if recipe == NO_RECIPE or (recipe == EQUAL and not _titles(methods, "recipe_text")):
        return ""
    return f"{WORDS[recipe]}."


def recipes_of_methods(methods: Sequence[Method]) -> str:
    """Return the recipe of the methods, each where they differ, and preprocessing of their own; '' if not known."""
    recipes = _titles(methods, "recipe_text")
    if not recipes:
        return ""
    if len(recipes) == 1:
        return f" Recipe of all: {next(iter(recipes))}.{_own_preprocessing(methods)}"
    return f" Recipes: {_listed(recipes)}.{_own_preprocessing(methods)}"


def chosen_rates(jobs: Mapping[str, Iterable[JobRecord]]) -> str:
    """Return which learning rates the jobs of methods chose, with the range where they differ; empty without tuning.

    Args:
        jobs: title of a method -> its jobs.
    """
    words = []
    for title, own in jobs.items():
        rates = [job.tuned_learning_rate for job in own if job.tuned_learning_rate is not None]
        if rates:
            words.append(f"{title} {_range(rates, 'g')}")
    return f" Chosen learning rates: {', '.join(words)}." if words else ""


def _own_preprocessing(methods: Iterable[Method]) -> str:
    """Return how methods were preprocessed that do not follow the tasks' own recipes; empty where all do."""
    own = _titles(methods, "preprocessing")
    if not own:
        return ""
    return (
        f" Preprocessing other than the tasks' own: {_listed(own)}. All are scored on the native grid; the oracle "
        "is that of the tasks' own preprocessing."
    )


def budget_sentence(jobs: Iterable[JobRecord], tasks: int) -> str:
    """Return the budget of a comparison's trained jobs: steps, patches and FLOPs per task and in total, and hours.

    FLOPs are those of the forward passes over all patches; a backward pass takes about twice as many.

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
        hours = f"{_range([job.train_seconds / 3600 for job in own], '.2g')} h"
        totals = f"{_range(steps, ',.0f')} steps, {_range(patches, ',.0f')} patches"
        peta = [job.forward_flops * job.iterations * job.batch_size / 1e15 for job in own]
        work = f", {_range(peta, '.3g')} PFLOPs forward" if all(peta) else ""
        if not joint:
            words.append(f"per task {totals}, {hours}{work}")
            continue
        each = [_range([number / tasks for number in counts], ",.0f") for counts in (steps, patches)]
        shared = f" ({_range([number / tasks for number in peta], '.3g')} per task)" if work else ""
        words.append(f"joint {totals} ({each[0]} and {each[1]} per task), {hours}{work}{shared}")
    return f"Budget of a network: {'; '.join(words)}." if words else ""


def _range(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"
