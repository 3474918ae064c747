"""Find the cases of a data set and write down what they are: paths, hashes, geometry. Files are never copied."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

from segbench.core import cards
from segbench.core.case import Case, CaseFiles
from segbench.core.errors import input_error, some
from segbench.core.files import sha256_of
from segbench.core.task import Task
from segbench.data import layouts
from segbench.data.volumes import open_volume


@cache
def known_cards() -> dict[str, dict]:
    """Return the data-set cards of this repository."""
    return cards.dataset_cards()


def card_of(name: str) -> str | None:
    """Return the data-set card with this name, or whose folder has this name; None when there is none."""
    if name in known_cards():
        return name
    return next((key for key, card in known_cards().items() if Path(card["folder"]).name == name), None)


def discover(task_name: str, card: dict, data_root: Path) -> list[CaseFiles]:
    """Return the labelled cases of a data set by its layout.

    A missing folder raises InputError, and so does a pattern that finds no patient in a case id: that case would be a
    patient of its own, and its patient on both sides of a split.
    """
    if card["layout"] == "custom":
        module = importlib.import_module(f"segbench.data.sources.{task_name}")
        return module.discover(data_root / card["folder"], card)
    found = getattr(layouts, card["layout"])(data_root / card["folder"], card)
    pattern = card.get("patient_pattern")
    if pattern and card["layout"] != "table":  # whose column says it
        left = [case.case_id for case in found if not cards.matched_patient(pattern, case.case_id)]
        if left:
            raise input_error(
                f"card {task_name}, patient_pattern",
                found=f"{pattern!r}, which finds no patient in {some(left)}",
                expected="a patient in the id of every case",
                fix="extend the pattern; its group may hold alternatives: (P[0-9]+|.+)",
            )
    return found


def ingest(task: Task, card: dict, data_root: Path) -> list[Case]:
    """Return one manifest row per labelled case."""
    return [manifest_row(task.name, files) for files in discover(task.name, card, data_root)]


def manifest_row(task_name: str, files: CaseFiles) -> Case:
    """Return what one case is: paths, hashes and the geometry of its first image."""
    image = open_volume(files.image_paths[0])
    (x, y, z), (dx, dy, dz) = image.shape[:3], image.spacing_mm_xyz
    assert files.label_path is not None, "only labelled cases are discovered"
    return Case(
        task=task_name,
        case_id=files.case_id,
        patient_id=files.patient_id,
        image_paths=tuple(str(path) for path in files.image_paths),
        label_path=str(files.label_path),
        image_sha256=sha256_of(*files.image_paths),
        label_sha256=sha256_of(files.label_path),
        shape_xyz=(x, y, z),
        spacing_mm_xyz=(round(dx, 6), round(dy, 6), round(dz, 6)),
        orientation=image.orientation,
        annotated=files.annotated,
    )
