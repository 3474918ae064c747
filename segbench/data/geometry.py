"""Back on the native grid with the exact affine. Axis legend: K class, Z Y X preprocessed, X Y Z native."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import orientations

from segbench.core.files import atomic_path
from segbench.data.resampling import largest_fraction, nearest, zoom


def to_native(prediction: np.ndarray, meta: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return labels_XYZ (uint8) of the native shape and the native affine.

    prediction: probabilities_KZYX, whose linearly interpolated maximum decides, or labels_ZYX, which go back the way
    they came (nearest neighbour along axes that were refined). Outside the crop is background.
    """
    shape_zyx = tuple(meta["cropped_shape_zyx"])
    if prediction.ndim == 4:
        cropped_ZYX = _largest_class(prediction, shape_zyx)
    else:
        finer = [max(new, old) for new, old in zip(shape_zyx, prediction.shape, strict=True)]
        cropped_ZYX = nearest(largest_fraction(prediction, finer), shape_zyx)
    to_ras = np.asarray(meta["orientation"])
    native_shape = tuple(meta["native_shape_xyz"])
    ras_shape = tuple(native_shape[int(axis)] for axis in np.argsort(to_ras[:, 0]))
    ras_XYZ = np.zeros(ras_shape, dtype=np.uint8)
    ras_XYZ[tuple(slice(*part) for part in meta["box_ras"])] = cropped_ZYX.transpose(2, 1, 0)
    ras = np.array([[0, 1], [1, 1], [2, 1]])
    labels_XYZ = orientations.apply_orientation(ras_XYZ, orientations.ornt_transform(ras, to_ras))
    return np.ascontiguousarray(labels_XYZ), np.asarray(meta["native_affine"])


def _largest_class(scores_KZYX: np.ndarray, shape_zyx: tuple[int, ...]) -> np.ndarray:
    best = np.full(shape_zyx, -np.inf, dtype=np.float32)
    labels = np.zeros(shape_zyx, dtype=np.uint8)
    for value, score_ZYX in enumerate(scores_KZYX):
        score_ZYX = zoom(score_ZYX, shape_zyx, (1, 1, 1))
        closer = score_ZYX > best
        labels[closer], best[closer] = value, score_ZYX[closer]
    return labels


def write_prediction(path: Path, labels_XYZ: np.ndarray, affine: np.ndarray) -> None:
    """Write a label map as NIfTI, whole or not at all."""
    image = nib.Nifti1Image(labels_XYZ, affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)
