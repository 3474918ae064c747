"""Named preparation recipes: target spacing and how intensities are normalised, by modality.

Spacings of the published tasks are those of the released UniSeg planner (facts of the code). CT is clipped to
-325..325 HU and scaled to 0..1, other modalities get a z-score per case and channel; PET is in SUV before that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from segbench.core.errors import fault, suggestion
from segbench.core.task import Task


@dataclass(frozen=True)
class Recipe:
    """How a case becomes a prepared case.

    spacing_mm_zyx: target spacing in RAS+ order of axes z, y, x; None keeps the native one. clip_hu: window of CT.
    image_order: spline order of image resampling. anisotropy: above this ratio of the largest to the smallest spacing,
    native or target, the coarse axis is resampled with order 0 apart from the others, as nnU-Net does.
    crop_to_nonzero: cut away borders in which every channel is zero.
    """

    name: str
    spacing_mm_zyx: tuple[float, float, float] | None = None
    clip_hu: tuple[float, float] = (-325.0, 325.0)
    image_order: int = 3
    anisotropy: float = 3.0
    crop_to_nonzero: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for hashing."""
        return asdict(self)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("default"),
        Recipe("ct", (3.0, 1.5, 1.5)),
        Recipe("verse", (4.0, 2.0, 2.0)),
        Recipe("prostate", (3.0, 1.5, 1.5)),
        Recipe("brats", (1.0, 1.0, 1.0)),
        Recipe("autopet", (8.0, 4.0, 4.0)),
        Recipe("phantom_ct", (8.0, 7.0, 7.0)),
        Recipe("phantom_mr", (5.0, 4.0, 4.0)),
        Recipe("phantom_brain", (5.0, 5.0, 5.0)),
        Recipe("phantom_petct", (10.0, 8.0, 8.0)),
        Recipe("hippocampus", (1.0, 1.0, 1.0)),
        Recipe("openkbp", (3.0, 4.0, 4.0), clip_hu=(699.0, 1349.0)),
        Recipe("sts_petct", (3.27, 4.0, 4.0)),
        Recipe("sts_mr", (3.27, 4.0, 4.0)),
        Recipe("acdc", (10.0, 1.5, 1.5)),
        Recipe("brats2015", (2.0, 2.0, 2.0)),
    )
}


def recipe_for(task: Task, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """Return the recipe of a task with the config's changes applied; an unknown name or key raises `InputFaults`."""
    known = set(RECIPES) | set(changes)
    if task.recipe not in known:
        raise fault(
            f"recipe of {task.name}", found=repr(task.recipe), expected="a recipe", mend=suggestion(task.recipe, known)
        )
    recipe = RECIPES.get(task.recipe, Recipe(task.recipe))
    values = dict(changes.get(task.recipe, {}))
    for key in values:
        if key not in Recipe.__dataclass_fields__ or key == "name":
            mend = suggestion(key, Recipe.__dataclass_fields__)
            raise fault(f"recipes.{task.recipe}", found=repr(key), expected="a key of a recipe", mend=mend)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return replace(recipe, **values)
