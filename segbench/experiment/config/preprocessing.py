"""Checks of `preprocessing_recipes` and `task_preprocessing`: keys and values of recipes, and names of recipes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, ValidationError

from segbench.core.errors import Problem
from segbench.core.schema import as_problem
from segbench.core.vocabulary import PREPROCESSING_RECIPES
from segbench.experiment.config.section import PREPROCESSING_RECIPE, Check, Section, unknown_names

if TYPE_CHECKING:
    from segbench.experiment.config.experiment import Config

Millimetres = Annotated[float, Field(gt=0)]


class RecipeKeys(Section):
    """What a config may state of a preprocessing recipe (`segbench.data.preprocessing_recipes`)."""

    spacing_mm_zyx: tuple[Millimetres, Millimetres, Millimetres] | None = None
    clip_hu: tuple[float, float] | None = None
    image_order: int = Field(3, ge=0, le=5)
    anisotropy: float = Field(3.0, ge=1)
    crop_to_nonzero: bool = True


def _recipe_values(config: Config) -> Iterator[Problem]:
    """Keys and values of recipes."""
    for name, values in config.preprocessing_recipes.items():
        key = f"preprocessing_recipes.{name}"
        try:
            found = RecipeKeys(**values)
        except ValidationError as error:
            yield from (as_problem(key, item, RecipeKeys) for item in error.errors())
            continue
        if found.clip_hu is not None and found.clip_hu[0] >= found.clip_hu[1]:
            low, high = found.clip_hu
            yield Problem(f"{key}.clip_hu", f"{low:g} to {high:g}", "the lower end first", "swap them")


def _recipes_named(config: Config) -> Iterator[Problem]:
    """Recipes that exist: those that tasks name, by the config or by their card."""
    known = (*PREPROCESSING_RECIPES, *config.preprocessing_recipes)
    for name in config.all_task_names:
        if name in config.dataset_cards:
            named = config.task_preprocessing.get(name, config.dataset_cards[name]["preprocessing"])
            where = f"task_preprocessing.{name}" if name in config.task_preprocessing else f"card {name}, preprocessing"
            yield from unknown_names(where, [named], known, PREPROCESSING_RECIPE)


TASKS = ("upstream.tasks", "downstream.tasks", "data.cards", "structures")
CHECKS = (
    Check(("preprocessing_recipes",), _recipe_values),
    Check((*TASKS, "task_preprocessing", "preprocessing_recipes"), _recipes_named),
)
