"""The prepared store: chunked compressed arrays, and the geometry to go back.

A case is a folder with images.b2nd (float32 C,Z,Y,X), labels.b2nd (uint8 Z,Y,X) and meta.json. It is written in a
temporary folder beside its place and renamed, so it is there whole or not at all.

Chunks of 64 voxels a side serve any patch size, as cases are shared between experiments. LZ4 is read as fast as its
slow form LZ4HC and several times faster than Zstandard, and written faster than both (docs/data_speed.md). Files are
read, not mapped: mapped pages count as memory of the process and grow to the size of the store.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from segbench.core.files import write_json

CHUNK = 64
BLOCK = 16
FOREGROUND_SAMPLES = 2000


@dataclass
class PreparedCase:
    """An open case; index `images` and `labels` like arrays to read only the chunks needed."""

    folder: Path
    case_id: str
    images: blosc2.NDArray
    labels: blosc2.NDArray
    meta: dict[str, Any]

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Prepared size in voxels."""
        return tuple(self.labels.shape)

    def foreground(self, value: int) -> list[list[int]]:
        """Return sampled voxel positions z,y,x of a class; empty when the case has none."""
        return self.meta["foreground"].get(str(value), [])


def write_case(folder: Path, images_CZYX: np.ndarray, labels_ZYX: np.ndarray, meta: dict[str, Any]) -> None:
    """Write a prepared case; an existing complete one is kept."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        _write_array(temporary / "images.b2nd", images_CZYX.astype(np.float32, copy=False))
        _write_array(temporary / "labels.b2nd", labels_ZYX.astype(np.uint8, copy=False))
        write_json(temporary / "meta.json", meta | {"foreground": _foreground(labels_ZYX)})
        os.chmod(temporary, 0o755)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not is_stored(folder):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_stored(folder: Path) -> bool:
    """Tell whether a prepared case is in the store."""
    return (folder / "meta.json").exists()


def open_case(folder: Path | str) -> PreparedCase:
    """Open a prepared case without reading its voxels."""
    folder = Path(folder)
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    images, labels = (
        blosc2.open(str(folder / name), mode="r", dparams={"nthreads": 1}) for name in ("images.b2nd", "labels.b2nd")
    )
    return PreparedCase(folder, meta["case_id"], images, labels, meta)


def _write_array(path: Path, array: np.ndarray) -> None:
    leading = array.ndim - 3
    chunks = (1,) * leading + tuple(min(CHUNK, size) for size in array.shape[leading:])
    blocks = (1,) * leading + tuple(min(BLOCK, size) for size in array.shape[leading:])
    parameters = {"codec": blosc2.Codec.LZ4, "clevel": 5, "nthreads": 1}
    blosc2.asarray(
        np.ascontiguousarray(array), urlpath=str(path), mode="w", chunks=chunks, blocks=blocks, cparams=parameters
    )
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())


def _foreground(labels_ZYX: np.ndarray) -> dict[str, list[list[int]]]:
    rng = np.random.default_rng(0)
    found = {}
    for value in np.unique(labels_ZYX):
        if value == 0:
            continue
        positions = np.argwhere(labels_ZYX == value)
        if len(positions) > FOREGROUND_SAMPLES:
            positions = positions[rng.choice(len(positions), FOREGROUND_SAMPLES, replace=False)]
        found[str(int(value))] = positions.tolist()
    return found
