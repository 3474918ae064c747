"""The preprocessed store: chunked compressed arrays, and the geometry to go back.

A case is a folder with images.b2nd (float32 C,Z,Y,X), labels.b2nd (uint8 Z,Y,X), foreground.npy (rows of label, z, y,
x) and meta.json. It is written in a temporary folder beside its final one and renamed, so it is there whole or not at
all.

Chunks of 64 voxels a side serve any patch size, as cases are shared between experiments. LZ4HC is read several times
faster than Zstandard, and at its lowest level written about as fast (docs/data_speed.md). Arrays are read and not
mapped, as mapped pages count as memory of the process, up to the whole store. A process holds the `OPEN_ARRAYS` that it
used last: thousands of open cases would exhaust its files, and processes that fork must not share them.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blosc2
import numpy as np

from segbench.core.errors import InputError, input_error, short
from segbench.core.files import part_prefix, write_json
from segbench.core.task import IGNORED

if TYPE_CHECKING:
    from segbench.data.geometry import Geometry

CHUNK = 64
IMAGE_FORM = {"block": 16, "filters": [blosc2.Filter.SHUFFLE]}
LABEL_FORM = {"block": 32, "filters": [blosc2.Filter.NOFILTER]}  # shuffling single bytes makes reading 4 times slower
ARRAYS = ("images.b2nd", "labels.b2nd", "foreground.npy")
FOREGROUND_SAMPLES = 10_000  # voxels of a class that are kept, as in nnU-Net v2
OPEN_ARRAYS = 256


@dataclass
class PreprocessedCase:
    """A case of the store; index `images` and `labels` like arrays to read only the blocks needed."""

    folder: Path
    case_id: str
    meta: dict[str, Any]

    @property
    def images(self) -> blosc2.NDArray:
        """images_CZYX (float32) on disk."""
        return _opened(self.folder / "images.b2nd", os.getpid())

    @property
    def labels(self) -> blosc2.NDArray:
        """labels_ZYX (uint8) on disk."""
        return _opened(self.folder / "labels.b2nd", os.getpid())

    @cached_property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Preprocessed size in voxels."""
        return tuple(self.images.shape[1:])

    @cached_property
    def geometry(self) -> Geometry:
        """The native grid and the way back to it."""
        from segbench.data.geometry import Geometry  # training does without it, and without what it imports

        return Geometry.from_dict(self.meta["geometry"])

    @property
    def masked_channels(self) -> list[int]:
        """Channels that are zero outside the non-zero mask, which they alone show."""
        return self.meta.get("masked_channels", [])

    @property
    def annotated(self) -> list[int] | None:
        """Class values that somebody looked for; None for all of them."""
        return self.meta.get("annotated")

    def is_annotated(self, value: int) -> bool:
        """Return whether a class was looked for."""
        return self.annotated is None or value in self.annotated

    def foreground(self, value: int) -> np.ndarray:
        """Return sampled voxels of a class, rows z,y,x; no row when the case has none."""
        first, last = np.searchsorted(self._foreground[:, 0], [value, value + 1])
        return self._foreground[first:last, 1:]

    @cached_property
    def _foreground(self) -> np.ndarray:
        return np.load(self.folder / "foreground.npy", mmap_mode="r", allow_pickle=False)


def write_case(folder: Path, images_CZYX: np.ndarray, labels_ZYX: np.ndarray, meta: dict[str, Any]) -> None:
    """Write a preprocessed case; an existing complete one is kept."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=part_prefix(), dir=folder.parent))
    try:
        _write_array(temporary / "images.b2nd", images_CZYX.astype(np.float32, copy=False), **IMAGE_FORM)
        _write_array(temporary / "labels.b2nd", labels_ZYX.astype(np.uint8, copy=False), **LABEL_FORM)
        np.save(temporary / "foreground.npy", _foreground(labels_ZYX), allow_pickle=False)
        sizes = {name: (temporary / name).stat().st_size for name in ARRAYS}
        write_json(temporary / "meta.json", meta | {"bytes": sizes})
        os.chmod(temporary, 0o755)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not is_stored(folder):
                raise
    except (RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        # Blosc2 and NumPy do not say that a disk is full
        raise OSError(errno.EIO, f"not written ({short(error)})", str(folder)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_stored(folder: Path) -> bool:
    """Tell whether a preprocessed case is in the store; raises `InputError` when it is there but damaged."""
    if not (folder / "meta.json").exists():
        return False
    open_case(folder)
    return True


def open_case(folder: Path | str) -> PreprocessedCase:
    """Open a preprocessed case without reading its voxels.

    Raises:
        InputError: the case is absent, was written by another version, or an array is not as long as it was written.
    """
    folder = Path(folder)
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        sizes = dict(meta["bytes"])
        case = PreprocessedCase(folder, meta["case_id"], meta)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder / "meta.json", f"a file that cannot be used ({short(error)})") from error
    for name in ARRAYS:
        found = (folder / name).stat().st_size if (folder / name).is_file() else 0
        if found != sizes.get(name):
            raise _damaged(folder / name, f"{found} of {sizes.get(name)} bytes")
    return case


def _damaged(path: Path, found: str) -> InputError:
    fix = f"delete the folder {path.parent} and run again: the case is preprocessed anew"
    return input_error(path, found=found, expected="a preprocessed case as segbench wrote it", fix=fix)


@lru_cache(maxsize=OPEN_ARRAYS)
def _opened(path: Path, process: int) -> blosc2.NDArray:
    return blosc2.open(str(path), mode="r", dparams={"nthreads": 1})


def _write_array(path: Path, array: np.ndarray, *, block: int, filters: list[blosc2.Filter]) -> None:
    leading = array.ndim - 3
    chunks = (1,) * leading + tuple(min(CHUNK, size) for size in array.shape[leading:])
    blocks = (1,) * leading + tuple(min(block, size) for size in array.shape[leading:])
    parameters = {"codec": blosc2.Codec.LZ4HC, "clevel": 1, "filters": filters, "nthreads": 1}
    blosc2.asarray(
        np.ascontiguousarray(array), urlpath=str(path), mode="w", chunks=chunks, blocks=blocks, cparams=parameters
    )
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())


def _foreground(labels_ZYX: np.ndarray) -> np.ndarray:
    """Return rows of label, z, y, x (int32) sorted by label; at most `FOREGROUND_SAMPLES` of each label."""
    rng = np.random.default_rng(0)
    found = [np.zeros((0, 4), dtype=np.int32)]
    for value in np.unique(labels_ZYX):
        if value in (0, IGNORED):
            continue
        positions = np.argwhere(labels_ZYX == value)
        if len(positions) > FOREGROUND_SAMPLES:
            positions = positions[rng.choice(len(positions), FOREGROUND_SAMPLES, replace=False)]
        found.append(np.insert(positions, 0, value, axis=1).astype(np.int32))
    return np.concatenate(found)
