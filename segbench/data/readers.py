"""Read the image and the label map of a case as they are stored; merges of the card are applied to labels.

A file is read only while its contents have the hash that its manifest row says, so what was checked, preprocessed and
scored are the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segbench.core.case import Case
from segbench.core.errors import input_error
from segbench.core.files import sha256_of
from segbench.core.task import IGNORED
from segbench.data.volumes import open_volume, whole_numbers


def read_image(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return images_CXYZ (float32) and the 4x4 affine; one 4D file has its channels last.

    Raises InputError when a file changed since `ingest`.
    """
    _refuse_changed(case, case.image_paths, case.image_sha256)
    return read_channels(case.image_paths)


def read_channels(paths: Sequence[Path | str]) -> tuple[np.ndarray, np.ndarray]:
    """Return images_CXYZ (float32) of image files and the affine (mm) of the first."""
    volumes = [open_volume(path) for path in paths]
    channels = [channel.astype(np.float32) for volume in volumes for channel in volume.channels()]
    return np.stack(channels), volumes[0].affine


def read_label(case: Case, card: dict) -> np.ndarray:
    """Return labels_XYZ (uint8) after the card's merges; ignored voxels have the value `IGNORED`.

    A value that the card does not declare, and a file that changed since `ingest`, raise InputError.
    """
    _refuse_changed(case, [case.label_path], case.label_sha256)
    stored = whole_numbers(open_volume(case.label_path).voxels())
    labels = np.zeros(stored.shape, dtype=np.uint8)
    merge = {int(key): int(value) for key, value in card.get("merge", {}).items()}
    merge |= dict.fromkeys(card.get("ignore_labels", ()), IGNORED)
    declared = {int(value) for value in card["classes"]} | {0, *merge.values()}
    for value in np.unique(stored):
        target = merge.get(int(value), int(value))
        if value != int(value) or target not in declared:
            raise input_error(
                case.label_path, found=f"value {value}", expected=sorted(declared), fix="fix label or card"
            )
        labels[stored == value] = target
    return labels


def _refuse_changed(case: Case, paths: Sequence[str], expected: str) -> None:
    try:
        found = sha256_of(*paths)
    except OSError as error:
        found = error.strerror or "no file"
    if found != expected:
        raise input_error(
            f"{case.task}/{case.case_id}: {', '.join(paths)}",
            found=f"contents that changed since ingest ({found[:12]})",
            expected=f"SHA-256 {expected[:12]} as in the manifest",
            fix="run again so that ingest sees the change, or put the file back",
        )
