"""Read the image and the label map of a case as they are stored; merges of the card are applied to labels."""

from __future__ import annotations

import nibabel as nib
import numpy as np

from segbench.core.case import Case
from segbench.core.errors import fault


def read_image(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return images_CXYZ (float32) and the 4x4 affine; one 4D file has its channels last."""
    volumes, affine = [], None
    for path in case.image_paths:
        image = nib.load(path)
        affine = image.affine if affine is None else affine
        data = np.asarray(image.dataobj, dtype=np.float32)
        volumes += [data] if data.ndim == 3 else list(np.moveaxis(data, -1, 0))
    return np.stack(volumes), affine


def read_label(case: Case, card: dict) -> np.ndarray:
    """Return labels_XYZ (uint8) after the card's merges; a value that the card does not declare raises InputFaults."""
    stored = np.asarray(nib.load(case.label_path).dataobj)
    labels = np.zeros(stored.shape, dtype=np.uint8)
    merge = {int(key): int(value) for key, value in card.get("merge", {}).items()}
    declared = {int(value) for value in card["classes"]} | {0}
    for value in np.unique(stored):
        target = merge.get(int(value), int(value))
        if value != int(value) or target not in declared:
            raise fault(case.label_path, found=f"value {value}", expected=sorted(declared), mend="mend label or card")
        labels[stored == value] = target
    return labels
