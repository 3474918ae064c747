"""Augmentation of the nnU-Net family: what is drawn for a patch, and how it is applied.

The steps, their order, probabilities and ranges are those of nnU-Net v2 (`nnUNetTrainer.get_training_transforms`), and
the intensity steps are applied by batchgeneratorsv2. All parameters come from the caller's generator and are known
before a voxel is read, so that only the voxels that a rotation or scaling needs are read; no global random state is
touched. Axis legend: C channel, Z Y X space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import blur_dimension
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from torch import Tensor

Triple = tuple[int, int, int]
Scalars = tuple[float, float, float]
ROTATION = 30.0  # degrees, both ways
ROTATION_IN_PLANE = 180.0  # of patches that are coarse along one axis
COARSE_PATCH = 3.0  # largest edge divided by the smallest above which a patch is rotated in its plane alone
SCALING = (0.7, 1.4)  # above 1: more of the volume on the same grid
NOISE = (0.0, 0.1)
BLUR = (0.5, 1.0)  # standard deviation in voxels
CONTRAST = (0.75, 1.25)
LOW_RESOLUTION = (0.5, 1.0)
GAMMA = (0.7, 1.5)
PROBABILITY = {
    "rotation": 0.2,
    "scaling": 0.2,
    "noise": 0.1,
    "blur": 0.2,
    "brightness": 0.15,
    "contrast": 0.15,
    "low resolution": 0.25,
    "inverted gamma": 0.1,
    "gamma": 0.3,
}
LIGHT = PROBABILITY | {"rotation": 0.15, "scaling": 0.15, "blur": 0.0, "low resolution": 0.0}
PER_CHANNEL = 0.5  # of a channel to be blurred, or to lose resolution, where that step is drawn

_contrast = ContrastTransform(CONTRAST, preserve_range=True, synchronize_channels=False)
_gamma = GammaTransform(GAMMA, 0, synchronize_channels=False, p_per_channel=1, p_retain_stats=1)
_low_resolution = SimulateLowResolutionTransform(LOW_RESOLUTION, False, True, None)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Drawn:
    """What was drawn for one patch; empty or None where a step is left out.

    angles: rotation about z, y, x in radians. scales: along z, y, x. noise: standard deviation, and seed of the field.
    blur: standard deviations z, y, x of each channel, or None. brightness, contrast, inverted_gamma, gamma: one value
    per channel. low_resolution: remaining fraction of the voxels along each axis, or None, per channel. mirrored: axes.
    """

    angles: Scalars | None = None
    scales: Scalars | None = None
    noise: tuple[float, int] | None = None
    blur: tuple[Scalars | None, ...] = ()
    brightness: tuple[float, ...] = ()
    contrast: tuple[float, ...] = ()
    low_resolution: tuple[float | None, ...] = ()
    inverted_gamma: tuple[float, ...] = ()
    gamma: tuple[float, ...] = ()
    mirrored: tuple[int, ...] = ()

    @property
    def affine(self) -> np.ndarray | None:
        """The 3x3 matrix from patch to volume, about the centre of the patch; None when voxels stay on their grid."""
        if self.angles is None and self.scales is None:
            return None
        return affine_matrix(self.angles or (0.0, 0.0, 0.0), self.scales or (1.0, 1.0, 1.0))


def affine_matrix(angles: Scalars, scales: Scalars) -> np.ndarray:
    """Return the 3x3 matrix that scales, then rotates about the first, the second and the third axis (radians).

    It is `create_affine_matrix_3d` of batchgeneratorsv2, whose module imports pandas in every job.
    """
    (cos_a, cos_b, cos_c), (sin_a, sin_b, sin_c) = np.cos(angles), np.sin(angles)
    first = np.array([[1, 0, 0], [0, cos_a, -sin_a], [0, sin_a, cos_a]])
    second = np.array([[cos_b, 0, sin_b], [0, 1, 0], [-sin_b, 0, cos_b]])
    third = np.array([[cos_c, -sin_c, 0], [sin_c, cos_c, 0], [0, 0, 1]])
    return third @ second @ first @ np.diag(scales)


class Augmentation:
    """Draws and applies the steps of one level.

    Args:
        patch_size_zyx: what the network gets.
        level: 'none', 'light' (without blur and low resolution, with fewer rotations and scalings) or 'full'.
        mirror_axes: axes (z, y, x = 0, 1, 2) that are mirrored with probability 1/2 each.
    """

    def __init__(self, patch_size_zyx: Triple, *, level: str, mirror_axes: Sequence[int] = (0, 1, 2)):
        self.level = level
        self.mirror_axes = tuple(mirror_axes)
        edges = np.asarray(patch_size_zyx)
        self.coarse_axis = int(edges.argmin()) if edges.max() / edges.min() > COARSE_PATCH else None

    def draw(self, channels: int, rng: np.random.Generator) -> Drawn:
        """Return the parameters of one patch with that many channels."""
        if self.level == "none":
            return Drawn()
        happens = {name: rng.random() < p for name, p in (LIGHT if self.level == "light" else PROBABILITY).items()}
        each = range(channels)
        return Drawn(
            angles=self._angles(rng) if happens["rotation"] else None,
            scales=self._scales(rng) if happens["scaling"] else None,
            noise=(rng.uniform(*NOISE), int(rng.integers(2**31))) if happens["noise"] else None,
            blur=tuple(_triple(rng) if rng.random() < PER_CHANNEL else None for _ in each) if happens["blur"] else (),
            brightness=tuple(_around_one(CONTRAST, rng) for _ in each) if happens["brightness"] else (),
            contrast=tuple(_around_one(CONTRAST, rng) for _ in each) if happens["contrast"] else (),
            low_resolution=tuple(
                float(rng.uniform(*LOW_RESOLUTION)) if rng.random() < PER_CHANNEL else None for _ in each
            )
            if happens["low resolution"]
            else (),
            inverted_gamma=tuple(_around_one(GAMMA, rng) for _ in each) if happens["inverted gamma"] else (),
            gamma=tuple(_around_one(GAMMA, rng) for _ in each) if happens["gamma"] else (),
            mirrored=tuple(axis for axis in self.mirror_axes if rng.random() < 0.5),
        )

    def _angles(self, rng: np.random.Generator) -> Scalars:
        if self.coarse_axis is None:
            z, y, x = np.radians(rng.uniform(-ROTATION, ROTATION, 3)).tolist()
            return z, y, x
        angles = [0.0, 0.0, 0.0]
        angles[self.coarse_axis] = float(np.radians(rng.uniform(-ROTATION_IN_PLANE, ROTATION_IN_PLANE)))
        return angles[0], angles[1], angles[2]

    def _scales(self, rng: np.random.Generator) -> Scalars:
        scale = float(rng.uniform(*SCALING))
        z, y, x = (1.0 if axis == self.coarse_axis else scale for axis in range(3))
        return z, y, x

    def change_intensities(self, image_CZYX: Tensor, drawn: Drawn) -> Tensor:
        """Apply the intensity steps, in place where possible, and return the image (float32)."""
        if drawn.noise:
            deviation, seed = drawn.noise
            generator, field = torch.Generator().manual_seed(seed), torch.empty(image_CZYX.shape[1:])
            for image_ZYX in image_CZYX:
                image_ZYX.add_(field.normal_(generator=generator), alpha=deviation)
        for image_ZYX, deviations in zip(image_CZYX, drawn.blur, strict=False):
            for axis, deviation in enumerate(deviations or ()):
                image_ZYX.copy_(blur_dimension(image_ZYX[None], deviation, axis)[0])
        for image_ZYX, factor in zip(image_CZYX, drawn.brightness, strict=False):
            image_ZYX.mul_(factor)
        if drawn.contrast:
            image_CZYX = _contrast.apply({"image": image_CZYX}, **_on_all(drawn.contrast, "multipliers"))["image"]
        lower = [(channel, value) for channel, value in enumerate(drawn.low_resolution) if value is not None]
        if lower:
            kept = [[value if axis != self.coarse_axis else 1.0 for axis in range(3)] for _, value in lower]
            channels = torch.tensor([channel for channel, _ in lower])
            found = _low_resolution.apply({"image": image_CZYX}, apply_to_channel=channels, scales=torch.tensor(kept))
            image_CZYX = found["image"]
        for values, inverted in ((drawn.inverted_gamma, True), (drawn.gamma, False)):
            if values:
                flags = {"retain_stats": [True] * len(values), "invert_image": [inverted] * len(values)}
                image_CZYX = _gamma.apply({"image": image_CZYX}, **_on_all(values, "gamma"), **flags)["image"]
        return image_CZYX


def mirrored(values: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Return a view of an array whose last three axes are z, y, x, with some of these reversed."""
    return np.flip(values, [values.ndim - 3 + axis for axis in axes]) if axes else values


def _triple(rng: np.random.Generator) -> Scalars:
    z, y, x = rng.uniform(*BLUR, 3).tolist()
    return z, y, x


def _around_one(limits: tuple[float, float], rng: np.random.Generator) -> float:
    """Return a value below one or above it, either with probability 1/2."""
    low, high = limits
    return float(rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high))


def _on_all(values: Sequence[float], name: str) -> dict[str, Tensor]:
    return {"apply_to_channel": torch.arange(len(values)), name: torch.tensor(values)}
