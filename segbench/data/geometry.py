"""The two grids of a case and the way between them: native X Y Z, and preprocessed Z Y X. C channel, K class.

To the preprocessed grid: RAS+ orientation, crop to the box of voxels that are non-zero in any channel, resampling to
the spacing of the preprocessing recipe. Back to the native grid: the same steps in reverse, with the native shape.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import nibabel as nib
import numpy as np
from nibabel import orientations

from segbench.core.files import atomic_path
from segbench.data.preprocessing_recipes import PreprocessingRecipe
from segbench.data.resampling import (
    coarse_axis,
    largest_fraction,
    nearest,
    new_shape_zyx,
    nonzero_box,
    nonzero_mask,
    resample,
    resample_labels,
)
from segbench.data.volumes import open_volume

Size = tuple[int, int, int]
Spacing = tuple[float, float, float]
RAS = np.array([[0, 1], [1, 1], [2, 1]])


@dataclass(frozen=True)
class Geometry:
    """Native grid, crop and preprocessed grid of one case; it is stored in the case's `meta.json`.

    native_affine: rows of the 4x4 matrix from voxel indices to mm. crop_ras: first and last index (exclusive) of the
    crop along x, y, z of the volume in RAS+ orientation. shape_zyx: the preprocessed grid.
    """

    native_shape_xyz: Size
    native_affine: tuple[tuple[float, ...], ...]
    crop_ras: tuple[tuple[int, int], ...]
    shape_zyx: Size

    @classmethod
    def of(cls, images_CXYZ: np.ndarray, affine: np.ndarray, recipe: PreprocessingRecipe) -> Self:
        """Return the geometry of a case by its images, its affine (in mm) and its preprocessing recipe."""
        ras_images = _to_ras(images_CXYZ, orientations.io_orientation(affine))
        crop = tuple((0, size) for size in ras_images.shape[1:])
        if recipe.crop_to_nonzero:
            crop = tuple((part.start, part.stop) for part in nonzero_box(ras_images))
        native_mm_zyx = ras_spacing_mm_zyx(affine)
        cropped_zyx = [stop - start for start, stop in crop][::-1]
        shape_zyx = new_shape_zyx(cropped_zyx, native_mm_zyx, recipe.spacing_mm_zyx or native_mm_zyx)
        return cls(_size(images_CXYZ.shape[1:]), _rows(affine), crop, shape_zyx)

    @property
    def affine(self) -> np.ndarray:
        """The 4x4 matrix from native voxel indices to mm."""
        return np.asarray(self.native_affine)

    @property
    def orientation(self) -> np.ndarray:
        """Native axes as rows (RAS+ axis, direction), nibabel's form."""
        return orientations.io_orientation(self.affine)

    @property
    def native_spacing_mm_zyx(self) -> Spacing:
        """Voxel sizes along z, y, x of the native volume in RAS+ orientation."""
        return ras_spacing_mm_zyx(self.affine)

    @property
    def cropped_shape_zyx(self) -> Size:
        """Voxels of the crop at the native spacing."""
        return _size([stop - start for start, stop in self.crop_ras][::-1])

    @property
    def spacing_mm_zyx(self) -> Spacing:
        """Voxel sizes of the preprocessed grid: the field of view of the crop, divided by its whole voxels."""
        sizes = zip(self.cropped_shape_zyx, self.native_spacing_mm_zyx, self.shape_zyx, strict=True)
        x, y, z = (old * size_mm / new for old, size_mm, new in sizes)
        return x, y, z

    def to_grid(self, images_CXYZ: np.ndarray, recipe: PreprocessingRecipe) -> np.ndarray:
        """Return images_CZYX (float32) on the preprocessed grid, before normalisation."""
        target_mm_zyx = recipe.spacing_mm_zyx or self.native_spacing_mm_zyx
        coarse = coarse_axis(self.native_spacing_mm_zyx, target_mm_zyx, anisotropy=recipe.anisotropy)
        return np.stack(
            [
                resample(image_ZYX, self.shape_zyx, order=recipe.image_order, coarse_axis=coarse)
                for image_ZYX in self._cropped(images_CXYZ)
            ]
        )

    def labels_to_grid(self, labels_XYZ: np.ndarray) -> np.ndarray:
        """Return labels_ZYX (uint8) on the preprocessed grid."""
        return resample_labels(self._cropped(labels_XYZ[None])[0], self.shape_zyx)

    def nonzero_to_grid(self, images_CXYZ: np.ndarray) -> np.ndarray:
        """Return the non-zero mask ZYX (bool) of a case on the preprocessed grid."""
        return resample_labels(nonzero_mask(self._cropped(images_CXYZ)), self.shape_zyx).astype(bool)

    def labels_to_native(self, labels_ZYX: np.ndarray) -> np.ndarray:
        """Return labels_XYZ (uint8) on the native grid; outside the crop is background.

        Labels go back the way they came: nearest neighbour along axes that were refined, else the largest fraction.
        """
        finer = [max(new, old) for new, old in zip(self.cropped_shape_zyx, labels_ZYX.shape, strict=True)]
        return self.placed(nearest(largest_fraction(labels_ZYX, finer), self.cropped_shape_zyx))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for `meta.json`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Return the geometry that `to_dict` wrote, read back from JSON."""
        return cls(**{field.name: _tuples(content[field.name]) for field in fields(cls)})

    def _cropped(self, volumes_CXYZ: np.ndarray) -> np.ndarray:
        box = tuple(slice(*part) for part in self.crop_ras)
        return _to_ras(volumes_CXYZ, self.orientation)[(slice(None), *box)].transpose(0, 3, 2, 1)

    def placed(self, cropped_ZYX: np.ndarray) -> np.ndarray:
        """Return labels_XYZ (uint8) of a crop put back into the native volume; outside the crop is background."""
        ras_shape = [self.native_shape_xyz[int(axis)] for axis in np.argsort(self.orientation[:, 0])]
        ras_XYZ = np.zeros(ras_shape, dtype=np.uint8)
        ras_XYZ[tuple(slice(*part) for part in self.crop_ras)] = cropped_ZYX.transpose(2, 1, 0)
        back = orientations.ornt_transform(RAS, self.orientation)
        return np.ascontiguousarray(orientations.apply_orientation(ras_XYZ, back))


def ras_spacing_mm_zyx(affine: np.ndarray) -> Spacing:
    """Return the voxel sizes along z, y, x of a volume once it is in RAS+ orientation."""
    order = np.argsort(orientations.io_orientation(affine)[:, 0])
    x, y, z = (float(value) for value in nib.affines.voxel_sizes(affine)[order])
    return z, y, x


def write_prediction(path: Path, labels_XYZ: np.ndarray, *, like: Path | str) -> None:
    """Write a label map as NIfTI on the grid of an image, whole or not at all.

    The header states what the image's header states: sform and qform with their codes, in mm. An image without any
    orientation gets a label map without any, so that every program shows the two on top of each other.
    """
    volume = open_volume(like)
    image = nib.Nifti1Image(labels_XYZ, volume.affine)
    if volume.header is None:
        image.set_qform(volume.affine, code="scanner")
        image.set_sform(volume.affine, code="scanner")
    else:
        image.header["pixdim"][1:4] = np.abs(volume.header["pixdim"][1:4]) * volume.mm_per_unit
        for form in ("qform", "sform"):
            getattr(image.header, f"set_{form}")(*volume.forms.get(form, (None, 0)))
        image._affine = image.header.get_best_affine()
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def _to_ras(volumes_CXYZ: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    return np.stack([orientations.apply_orientation(volume, orientation) for volume in volumes_CXYZ])


def _size(values: Any) -> Size:
    x, y, z = (int(value) for value in values)
    return x, y, z


def _rows(affine: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in affine)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
