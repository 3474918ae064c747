"""Named preprocessing recipes: target spacing and how intensities are normalised, by modality.

Spacings of the published tasks are those of the released UniSeg planner (facts of the code). CT is clipped to
-325..325 HU and scaled to 0..1, other modalities get a z-score per case and channel; PET is in SUV before that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from segbench.core.errors import input_error, suggestion
from segbench.core.task import Task


@dataclass(frozen=True)
class PreprocessingRecipe:
    """How a case becomes a preprocessed case.

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


PREPROCESSING_RECIPES = {
    recipe.name: recipe
    for recipe in (
        PreprocessingRecipe("default"),
        PreprocessingRecipe("ct", (3.0, 1.5, 1.5)),
        PreprocessingRecipe("verse", (4.0, 2.0, 2.0)),
        PreprocessingRecipe("prostate", (3.0, 1.5, 1.5)),
        PreprocessingRecipe("brats", (1.0, 1.0, 1.0)),
        PreprocessingRecipe("autopet", (8.0, 4.0, 4.0)),
        PreprocessingRecipe("phantom_ct", (8.0, 7.0, 7.0)),
        PreprocessingRecipe("phantom_mr", (5.0, 4.0, 4.0)),
        PreprocessingRecipe("phantom_brain", (5.0, 5.0, 5.0)),
        PreprocessingRecipe("phantom_petct", (10.0, 8.0, 8.0)),
        PreprocessingRecipe("hippocampus", (1.0, 1.0, 1.0)),
        PreprocessingRecipe("openkbp", (3.0, 4.0, 4.0), clip_hu=(699.0, 1349.0)),
        PreprocessingRecipe("sts_petct", (3.27, 4.0, 4.0)),
        PreprocessingRecipe("sts_mr", (3.27, 4.0, 4.0)),
        PreprocessingRecipe("acdc", (10.0, 1.5, 1.5)),
        PreprocessingRecipe("brats2015", (2.0, 2.0, 2.0)),
    )
}


def preprocessing_recipe(task: Task, changes: Mapping[str, Mapping[str, Any]]) -> PreprocessingRecipe:
    """Return the recipe of a task with the config's changes applied; an unknown name or key raises `InputError`."""
    known = set(PREPROCESSING_RECIPES) | set(changes)
    if task.preprocessing not in known:
        raise input_error(
            f"recipe of {task.name}",
            found=repr(task.preprocessing),
            expected="a recipe",
            fix=suggestion(task.preprocessing, known),
        )
    recipe = PREPROCESSING_RECIPES.get(task.preprocessing, PreprocessingRecipe(task.preprocessing))
    values = dict(changes.get(task.preprocessing, {}))
    for key in values:
        if key not in PreprocessingRecipe.__dataclass_fields__ or key == "name":
            fix = suggestion(key, PreprocessingRecipe.__dataclass_fields__)
            raise input_error(f"recipes.{task.preprocessing}", found=repr(key), expected="a key of a recipe", fix=fix)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return replace(recipe, **values)
