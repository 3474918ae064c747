"""Intensities of the training cases, for recipes that normalise by them; test cases are never opened.

The rules are nnU-Net v2's (its dataset fingerprint): as many foreground voxels of every case, drawn with replacement;
0.5 and 99.5 percentiles, mean and deviation of all of them; and a non-zero mask where the crop leaves less than three
quarters of the median case.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from segbench.core.case import Case
from segbench.core.errors import InputError, input_error
from segbench.core.task import IGNORED, Task
from segbench.data.parallel import of_every_case
from segbench.data.preprocessing_recipes import Intensities, PreprocessingRecipe
from segbench.data.readers import read_image, read_label
from segbench.data.resampling import nonzero_box

PERCENTILES = (0.5, 99.5)
SAMPLES = 10_000
MASK_BELOW = 3 / 4
DIGITS = 4


@dataclass(frozen=True)
class MeasuredCase:
    """Foreground values of each channel (none where they are not needed), and the fraction that the crop leaves."""

    samples: tuple[np.ndarray, ...]
    cropped_fraction: float


def measure_cases(
    cases: Sequence[Case], task: Task, card: dict, recipe: PreprocessingRecipe, *, workers: int = 1
) -> dict[str, MeasuredCase]:
    """Return case id -> what the recipe needs to know of it; problems of single cases come as one `InputError`."""
    work = partial(_measured, card=card, needed=recipe.measured_channels(task))
    found = of_every_case(work, cases, title=f"intensities {task.name}", workers=workers)
    return {case.case_id: measured for case, measured in zip(cases, found, strict=True)}


def _measured(case: Case, card: dict, needed: Sequence[bool]) -> MeasuredCase:
    images_CXYZ, _ = read_image(case)
    labels_XYZ = read_label(case, card) if any(needed) else None
    samples = []
    for image_XYZ, is_needed in zip(images_CXYZ, needed, strict=True):
        if labels_XYZ is None or not is_needed:
            samples.append(np.zeros(0, dtype=np.float32))
        else:
            samples.append(foreground_sample(image_XYZ[(labels_XYZ > 0) & (labels_XYZ != IGNORED)], case.case_id))
    box = nonzero_box(images_CXYZ)
    cropped = np.prod([part.stop - part.start for part in box]) / np.prod(images_CXYZ.shape[1:])
    return MeasuredCase(tuple(samples), float(cropped))


def foreground_sample(values: np.ndarray, case_id: str) -> np.ndarray:
    """Return as many values of every case, drawn with replacement; none of a case without foreground."""
    rng = np.random.default_rng(zlib.crc32(case_id.encode()))
    return rng.choice(values, SAMPLES) if len(values) else values


def training_intensities(measured: Iterable[MeasuredCase], task: Task, recipe: PreprocessingRecipe) -> Intensities:
    """Return what the recipe takes from the training cases; CT without any foreground in them raises `InputError`."""
    measured = list(measured)
    foreground: list[tuple[float, float, float, float] | None] = []
    for channel, is_needed in enumerate(recipe.measured_channels(task)):
        samples = [item.samples[channel] for item in measured]
        if is_needed and not any(len(values) for values in samples):
            raise _without_foreground(task)
        foreground.append(statistics_of(samples) if is_needed else None)
    masked = recipe.crop_to_nonzero and float(np.median([item.cropped_fraction for item in measured])) < MASK_BELOW
    return Intensities(tuple(foreground), masked and any(channel.modality != "CT" for channel in task.channels))


def _without_foreground(task: Task) -> InputError:
    return input_error(
        f"intensities of {task.name}",
        found="no foreground voxel in the training cases",
        expected="some, as the recipe clips CT by their percentiles",
        fix=f"state a window: preprocessing_recipes: {{{task.preprocessing}: {{clip_hu: [-325, 325]}}}}",
    )


def statistics_of(samples: Sequence[np.ndarray]) -> tuple[float, float, float, float]:
    """Return 0.5 and 99.5 percentile, mean and deviation of the samples of all cases, at least one value."""
    values = np.concatenate(samples)
    low, high = np.percentile(values, PERCENTILES)
    found = [round(float(value), DIGITS) for value in (low, high, values.mean(dtype=float), values.std(dtype=float))]
    return found[0], found[1], found[2], found[3]


def with_intensities(
    recipe: PreprocessingRecipe,
    cases: Sequence[Case],
    task: Task,
    card: dict,
    *,
    sides: Mapping[int, Sequence[str]],
    workers: int = 1,
) -> dict[int, PreprocessingRecipe]:
    """Return fold -> the recipe with the intensities of its training cases, or the recipe itself where it needs none.

    Args:
        recipe: the recipe of the task.
        cases: cases of the manifest.
        task: the task.
        card: its card.
        sides: fold -> ids of its training cases. A case that several folds train on is read once.
        workers: cases read at once.
    """
    if not recipe.needs_training_cases(task):
        return dict.fromkeys(sides, recipe)
    used = {name for names in sides.values() for name in names}
    measured = measure_cases([case for case in cases if case.case_id in used], task, card, recipe, workers=workers)
    return {
        fold: replace(recipe, training=training_intensities([measured[name] for name in names], task, recipe))
        for fold, names in sides.items()
    }
