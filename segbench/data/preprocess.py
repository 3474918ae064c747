"""Prepare cases: read, bring onto the recipe's grid (`segbench.data.grid`), store.

The address of a prepared case is a hash of its input files, its label merges, its recipe and the code of these steps,
so a stale file cannot be used and equal preparations are shared between runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from segbench.core.case import Case
from segbench.core.errors import Fault, InputFaults, raise_faults
from segbench.core.progress import Progress
from segbench.core.provenance import PREPARED_CODE, code_fingerprint, content_hash
from segbench.core.task import Task
from segbench.data.grid import normalise, to_grid
from segbench.data.parallel import mapped
from segbench.data.readers import read_image, read_label
from segbench.data.recipes import Recipe
from segbench.data.store import is_stored, write_case


def store_folder(case: Case, card: dict, recipe: Recipe, *, store_root: Path) -> Path:
    """Return the content address of a prepared case."""
    address = content_hash(
        {
            "code": code_fingerprint(PREPARED_CODE),
            "image": case.image_sha256,
            "label": case.label_sha256,
            "merge": card.get("merge", {}),
            "channels": card["channels"],
            "recipe": recipe.to_dict(),
        }
    )
    return store_root / recipe.name / f"{case.task}-{case.case_id}-{address[:20]}"


def prepare_case(case: Case, task: Task, card: dict, recipe: Recipe, *, store_root: Path) -> Path:
    """Prepare one case unless it is in the store, and return its folder; a changed file raises InputFaults."""
    folder = store_folder(case, card, recipe, store_root=store_root)
    if is_stored(folder):
        return folder
    images_CXYZ, affine = read_image(case)
    labels_XYZ = read_label(case, card)
    images_CZYX, labels_ZYX, geometry = to_grid(images_CXYZ, labels_XYZ, affine, recipe)
    for channel, image_ZYX in zip(task.channels, images_CZYX, strict=True):
        normalise(image_ZYX, channel.modality, recipe)
    write_case(folder, images_CZYX, labels_ZYX, geometry | {"case_id": case.case_id, "task": task.name})
    return folder


def prepare_task(
    cases: Sequence[Case], task: Task, card: dict, recipe: Recipe, *, store_root: Path, workers: int = 1
) -> dict[str, Path]:
    """Prepare all cases of a task and return case id -> folder; cases already in the store cost nothing.

    Faults of single cases come together as one InputFaults, when the other cases are in the store.
    """
    work = partial(_folder_or_faults, task=task, card=card, recipe=recipe, store_root=store_root)
    folders: dict[str, Path] = {}
    faults: list[Fault] = []
    with Progress(total=len(cases), title=f"prepare {task.name}") as progress:
        for case, found in zip(cases, mapped(work, cases, workers=workers), strict=True):
            if isinstance(found, InputFaults):
                faults += found.faults
            else:
                folders[case.case_id] = found
            progress.advance(case.case_id)
    raise_faults(faults)
    return folders


def _folder_or_faults(case: Case, **how) -> Path | InputFaults:
    try:
        return prepare_case(case, **how)
    except InputFaults as error:
        return error
