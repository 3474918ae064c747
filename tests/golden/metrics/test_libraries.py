"""Agreement with the library that defines each metric, on random masks with anisotropic spacing."""

import numpy as np
import pytest
import surface_distance
import torch
from medpy.metric import binary
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from segbench.core.task import Structure
from segbench.metrics import score_pair

RELATIVE = 1e-6


def masks(seed: int):
    """Two blobs with noise, of random shape and spacing."""
    rng = np.random.default_rng(seed)
    shape, spacing = tuple(rng.integers(8, 26, 3)), tuple(float(size) for size in rng.uniform(0.5, 4.0, 3))
    reference = ndimage.gaussian_filter(rng.normal(size=shape), 2) > 0.02
    prediction = np.roll(reference, int(rng.integers(0, 3)), axis=0) ^ (rng.random(shape) > 0.99)
    reference[0, 0, 0] = prediction[-1, -1, -1] = True
    return reference, prediction, spacing


def ours(reference, prediction, spacing, tolerance=2.0):
    found = score_pair(
        reference.astype(np.uint8), prediction.astype(np.uint8), spacing, [Structure("x", (1,), tolerance)]
    )
    return {item.metric: item.value for item in found}


@pytest.mark.parametrize("seed", range(12))
def test_medpy(seed):
    reference, prediction, spacing = masks(seed)
    found = ours(reference, prediction, spacing)
    assert found["dice"] == pytest.approx(binary.dc(prediction, reference), rel=RELATIVE)
    assert found["iou"] == pytest.approx(binary.jc(prediction, reference), rel=RELATIVE)
    assert found["hd95"] == pytest.approx(binary.hd95(prediction, reference, spacing), rel=RELATIVE)
    assert found["hd"] == pytest.approx(binary.hd(prediction, reference, spacing), rel=RELATIVE)
    assert found["assd"] == pytest.approx(binary.assd(prediction, reference, spacing), rel=RELATIVE)


@pytest.mark.parametrize("seed", range(12))
def test_surface_distance(seed):
    reference, prediction, spacing = masks(seed)
    distances = surface_distance.compute_surface_distances(reference, prediction, spacing)
    expected = surface_distance.compute_surface_dice_at_tolerance(distances, 2.0)
    assert ours(reference, prediction, spacing)["nsd"] == pytest.approx(expected, rel=RELATIVE)


@pytest.mark.parametrize("seed", range(4))
def test_monai(seed):
    reference, prediction, spacing = masks(seed)
    pair = [torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32)) for mask in (prediction, reference)]
    expected = compute_hausdorff_distance(*pair, percentile=95, spacing=spacing).item()
    assert ours(reference, prediction, spacing)["hd95_max"] == pytest.approx(expected, rel=1e-5)
    expected = compute_surface_dice(*pair, class_thresholds=[2.0], spacing=spacing).item()
    assert ours(reference, prediction, spacing)["nsd_voxel"] == pytest.approx(expected, rel=1e-5)
