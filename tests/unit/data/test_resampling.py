"""Resampling equals scipy's zoom, the coarse axis follows the stated rule, intensities are normalised as expected."""

import numpy as np
import pytest
from scipy import ndimage

from segbench.data.preprocessing_recipes import Intensities, PreprocessingRecipe
from segbench.data.resampling import (
    coarse_axis,
    nonzero_box,
    nonzero_mask,
    normalise,
    resample,
    resample_labels,
    zoom,
)

SHAPE = (13, 22, 17)


def volume(scale: float = 500.0) -> np.ndarray:
    rng = np.random.default_rng(3)
    return (scale * rng.normal(size=SHAPE)).astype(np.float32)


@pytest.mark.parametrize("new", [(20, 15, 17), (13, 40, 9), (1, 22, 30)])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_zoom_is_that_of_scipy(order, new):
    factors = [b / a for a, b in zip(SHAPE, new, strict=True)]
    expected = ndimage.zoom(volume().astype(float), factors, order=order, mode="nearest", grid_mode=True)
    found = zoom(volume(), new, (order, order, order))
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 2e-3  # float32 arithmetic on values up to 2000


def test_a_view_with_turned_axes_is_resampled_alike():
    turned = np.ascontiguousarray(volume().transpose(2, 1, 0)).transpose(2, 1, 0)
    assert np.array_equal(resample(turned, (9, 30, 20), order=3), resample(volume(), (9, 30, 20), order=3))


def test_resampling_leaves_its_input_alone_and_returns_a_copy():
    image = volume()
    kept = image.copy()
    same = resample(image, SHAPE, order=3)
    same += 1
    resample(image, (9, 30, 20), order=3)
    assert np.array_equal(image, kept)


def test_a_coarse_axis_repeats_slices():
    found = resample(volume(), (26, 22, 30), order=3, coarse_axis=0)
    assert np.array_equal(found[::2], found[1::2])
    assert np.array_equal(found[::2], resample(volume(), (13, 22, 30), order=3))


def test_the_coarse_axis_is_that_of_the_native_spacing_or_else_of_the_target():
    assert coarse_axis((5.0, 1.0, 1.0), (1.0, 1.0, 1.0), anisotropy=3.0) == 0
    assert coarse_axis((1.0, 1.0, 1.0), (1.0, 4.0, 1.0), anisotropy=3.0) == 1
    assert coarse_axis((3.0, 1.0, 1.0), (3.0, 1.0, 1.0), anisotropy=3.0) is None
    assert coarse_axis((0.24, 1.25, 1.25), (1.0, 1.0, 1.0), anisotropy=3.0) is None  # two coarse axes


def test_labels_keep_their_values_and_the_largest_fraction_wins():
    labels = np.zeros((6, 6, 6), dtype=np.uint8)
    labels[:4] = 3
    assert np.array_equal(resample_labels(resample_labels(labels, (12, 6, 6)), (6, 6, 6)), labels)
    halved = resample_labels(labels, (3, 3, 3))
    assert np.array_equal(halved[:, 0, 0], [3, 3, 0])


def test_the_crop_is_the_box_of_all_channels_and_the_whole_of_an_empty_volume():
    images = np.zeros((2, 5, 6, 7), dtype=np.float32)
    assert nonzero_box(images) == (slice(0, 5), slice(0, 6), slice(0, 7))
    images[0, 1, 2, 3], images[1, 3, 5, 3] = -1, 2
    assert nonzero_box(images) == (slice(1, 4), slice(2, 6), slice(3, 4))


def test_ct_is_clipped_to_the_window_and_scaled_and_others_get_a_z_score():
    ct = np.array([[[[-1000.0, -325.0, 0.0, 325.0, 3000.0]]]], dtype=np.float32)
    normalise(ct, ["CT"], PreprocessingRecipe("ct", clip_hu=(-325.0, 325.0)), None)
    assert np.allclose(ct, [[[[0, 0, 0.5, 1, 1]]]])
    for modality in ("MR", "PET"):
        image = volume()[None] + 40
        normalise(image, [modality], PreprocessingRecipe("default"), None)
        assert abs(image.mean()) < 1e-4
        assert abs(image.std() - 1) < 1e-4
    constant = np.full((1, 2, 2, 2), 7.0, dtype=np.float32)
    normalise(constant, ["MR"], PreprocessingRecipe("default"), None)
    assert np.array_equal(constant, np.zeros((1, 2, 2, 2)))


def test_ct_without_a_window_is_clipped_and_scaled_by_the_training_foreground():
    ct = np.array([[[[-1000.0, 100.0, 300.0, 3000.0]]]], dtype=np.float32)
    recipe = PreprocessingRecipe("default", training=Intensities(((0.0, 500.0, 200.0, 50.0),), False))
    normalise(ct, ["CT"], recipe, None)
    assert np.allclose(ct, [[[[-4, -2, 2, 6]]]])


def test_a_masked_channel_has_the_z_score_of_its_mask_and_zero_outside():
    image = volume()[None] + 40
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:9, 3:11, 4:12] = True
    normalise(image, ["MR"], PreprocessingRecipe("default"), mask)
    assert abs(image[0][mask].mean()) < 1e-4
    assert abs(image[0][mask].std() - 1) < 1e-4
    assert not image[0][~mask].any()


def test_the_non_zero_mask_holds_its_holes():
    images = np.zeros((2, 7, 7, 7), dtype=np.float32)
    images[1, 1:6, 1:6, 1:6] = 5
    images[1, 3, 3, 3] = 0
    expected = np.zeros((7, 7, 7), dtype=bool)
    expected[1:6, 1:6, 1:6] = True
    assert np.array_equal(nonzero_mask(images), expected)
