"""Preprocess cases: read, bring onto the recipe's grid (`segbench.data.geometry`), store.

The address of a preprocessed case is a hash of its input files, its label merges, its recipe and the code of these
steps, so a stale file cannot be used and equal cases are shared between runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from segbench.core.cards import label_facts
from segbench.core.case import Case
from segbench.core.code import code_digest
from segbench.core.provenance import content_hash
from segbench.core.task import Task
from segbench.data.geometry import Geometry
from segbench.data.intensities import with_intensities
from segbench.data.parallel import of_every_case
from segbench.data.preprocessing_recipes import PreprocessingRecipe
from segbench.data.readers import read_image, read_label
from segbench.data.resampling import normalise
from segbench.data.store import is_stored, write_case
from segbench.experiment.preprocessed_index import PreprocessedIndex

NOT_IN_ADDRESS = (
    "segbench/data/parallel.py",
    "segbench/data/preprocessing_recipes.py",
    "segbench/data/intensities.py",
    "segbench/experiment/preprocessed_index.py",
)
"""Code that cannot change a case: the pool of processes, the index, and the recipe with what was measured for it, which
the address holds itself."""


def store_folder(case: Case, card: dict, recipe: PreprocessingRecipe, *, store_root: Path) -> Path:
    """Return the content address of a preprocessed case."""
    facts = {
        "code": code_digest("segbench/data/preprocess.py", without=NOT_IN_ADDRESS),
        "image": case.image_sha256,
        "label": case.label_sha256,
        "labels": label_facts(card),
        "channels": card["channels"],
        "recipe": recipe.to_dict(),
    }
    address = content_hash(facts if case.annotated is None else facts | {"annotated": case.annotated})
    return store_root / recipe.name / f"{case.task}-{case.case_id}-{address[:20]}"


def preprocess_case(case: Case, task: Task, card: dict, recipe: PreprocessingRecipe, *, store_root: Path) -> Path:
    """Preprocess one case unless it is in the store, and return its folder; a changed file raises InputError."""
    folder = store_folder(case, card, recipe, store_root=store_root)
    if is_stored(folder):
        return folder
    images_CXYZ, affine = read_image(case)
    labels_XYZ = read_label(case, card)
    geometry, images_CZYX = preprocessed_image(images_CXYZ, affine, task, recipe)
    about = {
        "case_id": case.case_id,
        "task": task.name,
        "geometry": geometry.to_dict(),
        "masked_channels": masked_channels(task, recipe),
    }
    about |= {} if case.annotated is None else {"annotated": list(case.annotated)}
    write_case(folder, images_CZYX, geometry.labels_to_grid(labels_XYZ), about)
    return folder


def preprocessed_image(
    images_CXYZ: np.ndarray, affine: np.ndarray, task: Task, recipe: PreprocessingRecipe
) -> tuple[Geometry, np.ndarray]:
    """Return the geometry of an image and images_CZYX on its preprocessed grid, normalised.

    Args:
        images_CXYZ: the image on its native grid.
        affine: 4x4 matrix in mm.
        task: says what the channels are.
        recipe: with `training` where the task needs it.
    """
    geometry = Geometry.of(images_CXYZ, affine, recipe)
    images_CZYX = geometry.to_grid(images_CXYZ, recipe)
    nonzero_ZYX = geometry.nonzero_to_grid(images_CXYZ) if masked_channels(task, recipe) else None
    normalise(images_CZYX, [channel.modality for channel in task.channels], recipe, nonzero_ZYX)
    return geometry, images_CZYX


def masked_channels(task: Task, recipe: PreprocessingRecipe) -> list[int]:
    """Return the channels that are zero outside the non-zero mask."""
    assert recipe.training is not None or not recipe.needs_training_cases(task), "intensities must be measured first"
    if recipe.training is None or not recipe.training.masked:
        return []
    return [number for number, channel in enumerate(task.channels) if channel.modality != "CT"]


def preprocess_task(
    cases: Sequence[Case], task: Task, card: dict, recipe: PreprocessingRecipe, *, store_root: Path, workers: int = 1
) -> dict[str, Path]:
    """Preprocess all cases of a task and return case id -> folder; cases already in the store cost nothing.

    Problems of single cases come together as one InputError, when the other cases are in the store.
    """
    work = partial(preprocess_case, task=task, card=card, recipe=recipe, store_root=store_root)
    folders = of_every_case(work, cases, title=f"preprocess {task.name}", workers=workers)
    return {case.case_id: folder for case, folder in zip(cases, folders, strict=True)}


def preprocess_folds(
    cases: Sequence[Case],
    task: Task,
    card: dict,
    recipe: PreprocessingRecipe,
    *,
    sides: Mapping[int, Sequence[str]],
    store_root: Path,
    workers: int = 1,
) -> PreprocessedIndex:
    """Preprocess all cases of a task for every fold and return the index of the run.

    Folds share their cases unless the recipe takes intensities from the training cases and these differ.

    Args:
        cases: cases of the manifest.
        task: the task.
        card: its card.
        recipe: its recipe.
        sides: fold -> ids of its training cases.
        store_root: folder of the store.
        workers: cases worked on at once.
    """
    recipes = with_intensities(recipe, cases, task, card, sides=sides, workers=workers)
    found: dict[int, PreprocessedIndex] = {}
    for fold, item in recipes.items():
        folders = preprocess_task(cases, task, card, item, store_root=store_root, workers=workers)
        measured = None if item.training is None else asdict(item.training)
        found[fold] = PreprocessedIndex(task.name, item.name, folders, measured)
    first, *others = sorted(found)
    differing = {fold: found[fold] for fold in others if found[fold] != found[first]}
    return replace(found[first], other_folds=differing)
