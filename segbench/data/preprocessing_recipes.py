"""Named preprocessing recipes: target spacing and how intensities are normalised, by modality.

Spacings of the published tasks are those of the released UniSeg planner (facts of the code), which clips CT to
-325..325 HU and scales it to 0..1. Without a published window CT is clipped and gets a z-score by the foreground of the
training cases, the rule of nnU-Net. Other modalities get a z-score per case and channel; PET is in SUV before that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from segbench.core.errors import input_error, suggestion
from segbench.core.task import Task

PUBLISHED_WINDOW_HU = (-325.0, 325.0)


@dataclass(frozen=True)
class Intensities:
    """What normalisation takes from the training cases of a task.

    foreground: 0.5 and 99.5 percentile, mean and standard deviation of the foreground voxels of each channel; None for
    a channel that does not need them. masked: z-scores of channels other than CT are those of the non-zero voxels,
    because the crop to these removes more than a quarter of the median case.
    """

    foreground: tuple[tuple[float, float, float, float] | None, ...]
    masked: bool

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return what `asdict` gave, read back from JSON."""
        return cls(tuple(None if item is None else tuple(item) for item in content["foreground"]), content["masked"])


@dataclass(frozen=True)
class PreprocessingRecipe:
    """How a case becomes a preprocessed case.

    spacing_mm_zyx: target spacing in RAS+ order of axes z, y, x; None keeps the native one. clip_hu: window of CT,
    scaled to 0..1; None for the 0.5 and 99.5 percentiles of the training foreground, and a z-score by its mean and
    deviation. image_order: spline order of image resampling. anisotropy: above this ratio of the largest to the
    smallest spacing, native or target, the coarse axis is resampled with order 0 apart from the others, as nnU-Net
    does. crop_to_nonzero: cut away borders in which every channel is zero. training: measured in the training cases
    (`segbench.data.intensities`), never stated.
    """

    name: str
    spacing_mm_zyx: tuple[float, float, float] | None = None
    clip_hu: tuple[float, float] | None = None
    image_order: int = 3
    anisotropy: float = 3.0
    crop_to_nonzero: bool = True
    training: Intensities | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for hashing."""
        return asdict(self)

    def measured_channels(self, task: Task) -> tuple[bool, ...]:
        """Tell for each channel whether its normalisation needs the foreground of the training cases."""
        return tuple(channel.modality == "CT" and self.clip_hu is None for channel in task.channels)

    def needs_training_cases(self, task: Task) -> bool:
        """Tell whether `training` must be measured before a case of the task can be preprocessed."""
        masks = self.crop_to_nonzero and any(channel.modality != "CT" for channel in task.channels)
        return masks or any(self.measured_channels(task))


PREPROCESSING_RECIPES = {
    recipe.name: recipe
    for recipe in (
        PreprocessingRecipe("default"),
        PreprocessingRecipe("ct", (3.0, 1.5, 1.5), PUBLISHED_WINDOW_HU),
        PreprocessingRecipe("verse", (4.0, 2.0, 2.0), PUBLISHED_WINDOW_HU),
        PreprocessingRecipe("prostate", (3.0, 1.5, 1.5)),
        PreprocessingRecipe("brats", (1.0, 1.0, 1.0)),
        PreprocessingRecipe("autopet", (8.0, 4.0, 4.0), PUBLISHED_WINDOW_HU),
        PreprocessingRecipe("phantom_ct", (8.0, 7.0, 7.0), PUBLISHED_WINDOW_HU),
        PreprocessingRecipe("phantom_mr", (5.0, 4.0, 4.0)),
        PreprocessingRecipe("phantom_brain", (5.0, 5.0, 5.0)),
        PreprocessingRecipe("phantom_petct", (10.0, 8.0, 8.0), PUBLISHED_WINDOW_HU),
        PreprocessingRecipe("hippocampus", (1.0, 1.0, 1.0)),
        PreprocessingRecipe("openkbp", (3.0, 4.0, 4.0)),
        PreprocessingRecipe("sts_petct", (3.27, 4.0, 4.0)),
        PreprocessingRecipe("sts_mr", (3.27, 4.0, 4.0)),
        PreprocessingRecipe("acdc", (10.0, 1.5, 1.5)),
        PreprocessingRecipe("brats2015", (2.0, 2.0, 2.0)),
    )
}


STATED = tuple(name for name in PreprocessingRecipe.__dataclass_fields__ if name not in ("name", "training"))
"""Keys that a config may state."""


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
        if key not in STATED:
            fix = suggestion(key, STATED)
            raise input_error(f"recipes.{task.preprocessing}", found=repr(key), expected="a key of a recipe", fix=fix)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return replace(recipe, **values)
