"""Check every case of a task before anything is written; all faults come in one list."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from segbench.core.case import CaseFiles
from segbench.core.errors import Fault, InputFaults
from segbench.core.task import Task
from segbench.data.ingest import discover


def check_task(task: Task, card: dict, data_root: Path) -> list[Fault]:
    """Return every fault of a task's files; an empty list when all is well."""
    try:
        cases = discover(task.name, card, data_root)
    except InputFaults as error:
        return list(error.faults)
    return [item for files in cases for item in check_case(task, card, files)]


def check_case(task: Task, card: dict, files: CaseFiles) -> list[Fault]:
    """Return the faults of one case: unreadable files, shapes, affines, undeclared labels, non-finite voxels."""
    try:
        images = [nib.load(path) for path in files.image_paths]
        label = nib.load(files.label_path)
        values = np.unique(np.asarray(label.dataobj))
        finite = all(np.isfinite(np.asarray(image.dataobj)).all() for image in images)
    except Exception as error:
        return [Fault(files.case_id, f"a file that cannot be read ({error})", "NIfTI", "get the file again")]
    faults = []
    if images[0].shape[:3] != label.shape:
        faults.append(
            Fault(str(files.label_path), f"shape {label.shape}", f"the image's {images[0].shape[:3]}", "mend the label")
        )
    declared = {int(value) for value in card["classes"]} | {int(value) for value in card.get("merge", {})} | {0}
    unknown = [value for value in values if value not in declared]
    if unknown:
        faults.append(Fault(str(files.label_path), f"values {unknown[:5]}", sorted(declared), "mend label or card"))
    if not finite:
        faults.append(Fault(files.case_id, "voxels that are not finite", "finite voxels", "mend the image"))
    return faults
