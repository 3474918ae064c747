"""Augmentation of the nnU-Net family through batchgeneratorsv2. Axis legend: B batch, C channel, Z Y X space.

That library draws from the global random states; each call runs with states seeded from the caller's generator, and
the former states are put back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from segbench.core.task import Task

Triple = tuple[int, int, int]
RADIANS_30 = 30 / 180 * np.pi


def build_augmentation(
    task: Task, patch_size_zyx: Triple, *, level: str, mirror_axes: Sequence[int] = (0, 1, 2)
) -> BasicTransform | None:
    """Return the transform of a level: 'none', 'light' (without blur and low resolution) or 'full'."""
    if level == "none":
        return None
    full = level == "full"
    steps: list[BasicTransform] = [
        SpatialTransform(
            patch_size_zyx,
            patch_center_dist_from_border=0,
            random_crop=False,
            p_elastic_deform=0,
            p_rotation=0.2 if full else 0.15,
            rotation=(-RADIANS_30, RADIANS_30),
            p_scaling=0.2 if full else 0.15,
            scaling=(0.7, 1.4),
            p_synchronize_scaling_across_axes=1,
            bg_style_seg_sampling=False,
        ),
        RandomTransform(GaussianNoiseTransform((0, 0.1), p_per_channel=1, synchronize_channels=True), 0.1),
    ]
    if full:
        steps.append(RandomTransform(GaussianBlurTransform((0.5, 1.0), p_per_channel=0.5, synchronize_axes=False), 0.2))
    steps += [
        RandomTransform(MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), False, 1), 0.15),
        RandomTransform(ContrastTransform(BGContrast((0.75, 1.25)), True, False, 1), 0.15),
    ]
    if full:
        steps.append(
            RandomTransform(SimulateLowResolutionTransform((0.5, 1), False, True, None, p_per_channel=0.5), 0.25)
        )
    steps.append(RandomTransform(GammaTransform(BGContrast((0.7, 1.5)), 0, False, 1, 1), 0.3))
    if mirror_axes:
        steps.append(MirrorTransform(tuple(mirror_axes)))
    return ComposeTransforms(steps)


def augment(
    transform: BasicTransform | None, images_BCZYX: np.ndarray, labels_BZYX: np.ndarray, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return augmented images_BCZYX (float32) and labels_BZYX (uint8); the same `rng` state gives the same result."""
    images, labels = torch.from_numpy(images_BCZYX), torch.from_numpy(labels_BZYX)
    if transform is None:
        return images, labels
    out_images, out_labels = [], []
    for image_CZYX, label_ZYX in zip(images, labels, strict=True):
        with seeded(int(rng.integers(2**31))):
            result = transform(image=image_CZYX, segmentation=label_ZYX[None].to(torch.int16))
        out_images.append(result["image"])
        out_labels.append(result["segmentation"][0].to(torch.uint8))
    return torch.stack(out_images), torch.stack(out_labels)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global random states inside the block and put the former ones back."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
