"""Preprocess cases: read, bring onto the recipe's grid (`segbench.data.geometry`), store.

The address of a preprocessed case is a hash of its input files, its label merges, its recipe and the code of these
steps, so a stale file cannot be used and equal cases are shared between runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from segbench.core.case import Case
from segbench.core.code import code_digest
from segbench.core.errors import InputError, Problem, raise_problems
from segbench.core.progress import Progress
from segbench.core.provenance import content_hash
from segbench.core.task import Task
from segbench.data.geometry import Geometry
from segbench.data.parallel import mapped
from segbench.data.preprocessing_recipes import PreprocessingRecipe
from segbench.data.readers import read_image, read_label
from segbench.data.resampling import normalise
from segbench.data.store import is_stored, write_case

NOT_IN_ADDRESS = ("segbench/data/parallel.py", "segbench/data/preprocessing_recipes.py")
"""Code that cannot change a case: the pool of processes, and the recipes (the address holds the case's own)."""


def store_folder(case: Case, card: dict, recipe: PreprocessingRecipe, *, store_root: Path) -> Path:
    """Return the content address of a preprocessed case."""
    address = content_hash(
        {
            "code": code_digest("segbench/data/preprocess.py", without=NOT_IN_ADDRESS),
            "image": case.image_sha256,
            "label": case.label_sha256,
            "merge": card.get("merge", {}),
            "ignore_labels": card.get("ignore_labels", []),
            "channels": card["channels"],
            "recipe": recipe.to_dict(),
        }
    )
    return store_root / recipe.name / f"{case.task}-{case.case_id}-{address[:20]}"


def preprocess_case(case: Case, task: Task, card: dict, recipe: PreprocessingRecipe, *, store_root: Path) -> Path:
    """Preprocess one case unless it is in the store, and return its folder; a changed file raises InputError."""
    folder = store_folder(case, card, recipe, store_root=store_root)
    if is_stored(folder):
        return folder
    images_CXYZ, affine = read_image(case)
    labels_XYZ = read_label(case, card)
    geometry = Geometry.of(images_CXYZ, affine, recipe)
    images_CZYX = geometry.to_grid(images_CXYZ, recipe)
    for channel, image_ZYX in zip(task.channels, images_CZYX, strict=True):
        normalise(image_ZYX, channel.modality, recipe)
    about = {"case_id": case.case_id, "task": task.name, "geometry": geometry.to_dict()}
    write_case(folder, images_CZYX, geometry.labels_to_grid(labels_XYZ), about)
    return folder


def preprocess_task(
    cases: Sequence[Case], task: Task, card: dict, recipe: PreprocessingRecipe, *, store_root: Path, workers: int = 1
) -> dict[str, Path]:
    """Preprocess all cases of a task and return case id -> folder; cases already in the store cost nothing.

    Problems of single cases come together as one InputError, when the other cases are in the store.
    """
    work = partial(_folder_or_problems, task=task, card=card, recipe=recipe, store_root=store_root)
    folders: dict[str, Path] = {}
    problems: list[Problem] = []
    with Progress(total=len(cases), title=f"preprocess {task.name}") as progress:
        for case, found in zip(cases, mapped(work, cases, workers=workers), strict=True):
            if isinstance(found, InputError):
                problems += found.problems
            else:
                folders[case.case_id] = found
            progress.advance(case.case_id)
    raise_problems(problems)
    return folders


def _folder_or_problems(case: Case, **how) -> Path | InputError:
    try:
        return preprocess_case(case, **how)
    except InputError as error:
        return error
