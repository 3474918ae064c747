"""Prepare a case: orient, crop, resample, normalise, store. Axis legend: C channel, X Y Z native, Z Y X prepared.

The address of a prepared case is a hash of its input files, its label merges, its recipe and the version of this step,
so a stale file cannot be used and equal preparations are shared between runs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations
from scipy import ndimage

from segbench.core.case import Case
from segbench.core.progress import Progress
from segbench.core.provenance import content_hash
from segbench.core.task import Task
from segbench.data.readers import read_image, read_label
from segbench.data.recipes import Recipe
from segbench.data.store import write_case

VERSION = 2
log = logging.getLogger(__name__)


def store_folder(case: Case, card: dict, recipe: Recipe, *, store_root: Path) -> Path:
    """Return the content address of a prepared case."""
    address = content_hash(
        {
            "version": VERSION,
            "image": case.image_sha256,
            "label": case.label_sha256,
            "merge": card.get("merge", {}),
            "channels": card["channels"],
            "recipe": recipe.to_dict(),
        }
    )
    return store_root / recipe.name / f"{case.task}-{case.case_id}-{address[:20]}"


def prepare_case(case: Case, task: Task, card: dict, recipe: Recipe, *, store_root: Path) -> Path:
    """Prepare one case unless it is in the store, and return its folder."""
    folder = store_folder(case, card, recipe, store_root=store_root)
    if (folder / "meta.json").exists():
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
    """Prepare all cases of a task and return case id -> folder; cases already in the store cost nothing."""
    work = partial(prepare_case, task=task, card=card, recipe=recipe, store_root=store_root)
    folders = {}
    with Progress(total=len(cases), title=f"prepare {task.name}") as progress:
        if workers == 1:
            for case in cases:
                folders[case.case_id] = work(case)
                progress.advance(case.case_id)
            return folders
        with ProcessPoolExecutor(workers) as pool:
            for case, folder in zip(cases, pool.map(work, cases), strict=True):
                folders[case.case_id] = folder
                progress.advance(case.case_id)
    return folders


def to_grid(
    images_CXYZ: np.ndarray, labels_XYZ: np.ndarray, affine: np.ndarray, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Orient to RAS+, crop and resample; return images_CZYX, labels_ZYX and the geometry that leads back."""
    to_ras = orientations.io_orientation(affine)
    ras_images = np.stack([orientations.apply_orientation(image, to_ras) for image in images_CXYZ])
    ras_labels = orientations.apply_orientation(labels_XYZ, to_ras)
    spacing_mm_xyz = nib.affines.voxel_sizes(affine)[np.argsort(to_ras[:, 0])]
    box = _nonzero_box(ras_images) if recipe.crop_to_nonzero else tuple(slice(0, size) for size in ras_labels.shape)
    images_CZYX = ras_images[(slice(None), *box)].transpose(0, 3, 2, 1)
    labels_ZYX = ras_labels[box].transpose(2, 1, 0)
    spacing_mm_zyx = tuple(float(value) for value in spacing_mm_xyz[::-1])
    target_mm_zyx = recipe.spacing_mm_zyx or spacing_mm_zyx
    shape_zyx = tuple(
        max(1, round(size * old / new))
        for size, old, new in zip(labels_ZYX.shape, spacing_mm_zyx, target_mm_zyx, strict=True)
    )
    geometry = {
        "native_shape_xyz": list(labels_XYZ.shape),
        "native_affine": affine.tolist(),
        "orientation": to_ras.tolist(),
        "box_ras": [[part.start, part.stop] for part in box],
        "cropped_shape_zyx": list(labels_ZYX.shape),
        "prepared_shape_zyx": list(shape_zyx),
        "prepared_spacing_mm_zyx": [
            size * old / new for size, old, new in zip(labels_ZYX.shape, spacing_mm_zyx, shape_zyx, strict=True)
        ],
    }
    coarse = _coarse_axis(spacing_mm_zyx, recipe.anisotropy)
    images = np.stack(
        [resample(image, shape_zyx, order=recipe.image_order, coarse_axis=coarse) for image in images_CZYX]
    )
    return images, resample_labels(labels_ZYX, shape_zyx), geometry


def resample(
    image_ZYX: np.ndarray, shape_zyx: Sequence[int], *, order: int, coarse_axis: int | None = None
) -> np.ndarray:
    """Return the image on another grid over the same field of view (voxel edges aligned), float32.

    A `coarse_axis` is resampled with order 0 after the other axes.
    """
    image_ZYX = np.asarray(image_ZYX, dtype=np.float32)
    if tuple(shape_zyx) == image_ZYX.shape:
        return image_ZYX.copy()
    if coarse_axis is not None and shape_zyx[coarse_axis] != image_ZYX.shape[coarse_axis]:
        within = list(shape_zyx)
        within[coarse_axis] = image_ZYX.shape[coarse_axis]
        return _zoom(_zoom(image_ZYX, within, order), shape_zyx, 0)
    return _zoom(image_ZYX, shape_zyx, order)


def resample_labels(labels_ZYX: np.ndarray, shape_zyx: Sequence[int]) -> np.ndarray:
    """Return labels on another grid over the same field of view (uint8).

    Along axes that get finer by nearest neighbour, which loses nothing; along axes that get coarser each class
    linearly, and the largest share wins.
    """
    finer = [max(new, old) for new, old in zip(shape_zyx, labels_ZYX.shape, strict=True)]
    return largest_share(nearest(labels_ZYX, finer), shape_zyx)


def nearest(labels_ZYX: np.ndarray, shape_zyx: Sequence[int]) -> np.ndarray:
    """Return labels on another grid, each voxel that of the old voxel in which its centre lies (uint8)."""
    indices = [
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(shape_zyx, labels_ZYX.shape, strict=True)
    ]
    return labels_ZYX[np.ix_(*indices)].astype(np.uint8)


def largest_share(labels_ZYX: np.ndarray, shape_zyx: Sequence[int]) -> np.ndarray:
    """Return labels on another grid, each class resampled linearly and the largest share winning (uint8)."""
    if tuple(shape_zyx) == labels_ZYX.shape:
        return labels_ZYX.astype(np.uint8)
    best = np.full(tuple(shape_zyx), -1.0, dtype=np.float32)
    result = np.zeros(tuple(shape_zyx), dtype=np.uint8)
    for value in np.unique(labels_ZYX):
        share = _zoom((labels_ZYX == value).astype(np.float32), shape_zyx, 1)
        closer = share > best
        result[closer], best[closer] = value, share[closer]
    return result


def _zoom(image_ZYX: np.ndarray, shape_zyx: Sequence[int], order: int) -> np.ndarray:
    if tuple(shape_zyx) == image_ZYX.shape:
        return image_ZYX
    factors = [new / old for new, old in zip(shape_zyx, image_ZYX.shape, strict=True)]
    return ndimage.zoom(image_ZYX, factors, order=order, mode="nearest", grid_mode=True)


def normalise(image_ZYX: np.ndarray, modality: str, recipe: Recipe) -> None:
    """Normalise in place: CT is clipped and scaled to 0..1, other modalities get a z-score over all voxels.

    A constant image becomes zero.
    """
    if modality == "CT":
        low, high = recipe.clip_hu
        np.clip(image_ZYX, low, high, out=image_ZYX)
        image_ZYX -= low
        image_ZYX /= high - low
        return
    image_ZYX -= image_ZYX.mean()
    image_ZYX /= max(float(image_ZYX.std()), 1e-8)


def _nonzero_box(images_CXYZ: np.ndarray) -> tuple[slice, slice, slice]:
    """Return the box of voxels that are non-zero in any channel; the whole volume when all are zero."""
    mask = (images_CXYZ != 0).any(axis=0)
    found = ndimage.find_objects(mask.astype(np.uint8))
    return found[0] if found and found[0] else tuple(slice(0, size) for size in mask.shape)


def _coarse_axis(spacing_mm_zyx: Sequence[float], anisotropy: float) -> int | None:
    largest = int(np.argmax(spacing_mm_zyx))
    return largest if spacing_mm_zyx[largest] / min(spacing_mm_zyx) > anisotropy else None
