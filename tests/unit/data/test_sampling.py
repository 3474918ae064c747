"""Batches by nnU-Net's rules: forced samples, where patches lie, larger reads, few invented voxels."""

from collections import Counter

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

from segbench.core.task import Channel, Structure, Task
from segbench.data.resampled_patch import coordinates, interpolated_labels
from segbench.data.sampling import PatchSampler, is_forced, read_patch, transformed_patch
from segbench.data.store import open_case, write_case
from segbench.data.transforms import SCALING, Augmentation, Drawn

TASK = Task("t", "t", (Channel("CT", "CT"),), ("a", "b"), (Structure("a", (1,), 1.0),))
SHAPE = (40, 36, 32)
PATCH = (12, 14, 16)


@pytest.fixture
def case(tmp_path):
    """A volume of ones with a block of class 2 and a single voxel of class 1."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[20:26, 10:18, 12:20] = 2
    labels[39, 35, 31] = 1
    write_case(tmp_path / "case", np.ones((1, *SHAPE)), labels, {"case_id": "case"})
    return open_case(tmp_path / "case")


def sampler(case, *, level="none", patch=PATCH, fraction=0.33, task=TASK, axes=()):
    augmentation = Augmentation(patch, level=level, mirror_axes=axes)
    return PatchSampler([case], task, patch_size_zyx=patch, augmentation=augmentation, foreground_fraction=fraction)


@pytest.mark.parametrize(
    ("batch", "fraction", "expected"),
    [(1, 0.33, 0), (2, 0.33, 1), (3, 0.33, 1), (4, 0.33, 1), (6, 0.33, 2), (12, 0.33, 4), (2, 0.0, 0), (2, 1.0, 2)],
)
def test_the_last_samples_of_a_batch_are_forced(batch, fraction, expected):
    forced = [is_forced(number, batch, fraction) for number in range(batch)]
    assert forced == [False] * (batch - expected) + [True] * expected


def test_a_forced_sample_shows_each_present_class_equally_often(case):
    rng, seen = np.random.default_rng(0), Counter()
    drawn = sampler(case)
    for _ in range(400):
        labels = drawn.sample(rng, 2).labels[1]
        centre = int(labels[PATCH[0] // 2, PATCH[1] // 2, PATCH[2] // 2])
        assert centre in (1, 2), "the centre of the patch is the drawn voxel, even at the upper border"
        seen[centre] += 1
    assert 160 < seen[1] < 240  # 200 +- 4 standard deviations


def test_the_first_sample_lies_anywhere_inside(case):
    rng = np.random.default_rng(0)
    starts = np.array([sampler(case)._start(case, rng, forced=False) for _ in range(2000)])
    assert starts.min(0).tolist() == [0, 0, 0]
    assert starts.max(0).tolist() == [size - patch for size, patch in zip(SHAPE, PATCH, strict=True)]


def test_a_volume_smaller_than_the_patch_lies_in_its_middle(case):
    drawn = sampler(case, patch=(50, 45, 32))
    rng = np.random.default_rng(0)
    starts = {tuple(drawn._start(case, rng, forced=False)) for _ in range(100)}
    assert starts == {(-5, -5, 0), (-5, -4, 0)}
    images = drawn.sample(rng, 1).images[0, 0]
    assert images.sum() == np.prod(SHAPE)
    assert not images[:5].any()
    assert not images[45:].any()


def test_without_foreground_a_forced_sample_lies_anywhere(tmp_path):
    write_case(tmp_path / "case", np.ones((1, *SHAPE)), np.zeros(SHAPE, dtype=np.uint8), {"case_id": "case"})
    images = sampler(open_case(tmp_path / "case"), fraction=1.0).sample(np.random.default_rng(0), 2).images
    assert images.min() == 1


def test_labels_are_not_read_without_a_task(case):
    (case.folder / "labels.b2nd").write_bytes(b"no array")
    assert not sampler(case, task=None, level="full").sample(np.random.default_rng(0), 4).labels.any()


def test_the_same_state_gives_the_same_batch_and_global_states_stay(case):
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, two = (sampler(case, level="full", axes=(0, 1, 2)).sample(np.random.default_rng(7), 6) for _ in range(2))
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.labels, two.labels)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_a_transformed_patch_inside_the_volume_has_no_invented_voxel(case):
    """Every corner of a rotated patch that is scaled by 1.2 is read: the image of ones stays one."""
    affine = Drawn(angles=(0.5, -0.5, 0.3), scales=(1.2, 1.2, 1.2)).affine
    images, _ = transformed_patch(case, (14, 11, 8), PATCH, affine)
    assert images.min() == pytest.approx(1, abs=1e-5)
    inside, _ = read_patch(case, (14, 11, 8), PATCH)
    assert inside.min() == 1


def test_few_voxels_are_invented_over_all_draws(case):
    """Only what lies outside the volume is invented: of patches anywhere, with 36 % transformed, below 4 %.

    Reading only the patch itself invents 11 % of all voxels of a patch of half a volume.
    """
    rng, drawn = np.random.default_rng(0), sampler(case, level="full")
    drawn.augmentation.change_intensities = lambda images_CZYX, drawn: images_CZYX
    half = [drawn.sample(rng, 2).images[0] for _ in range(300)]
    assert float((torch.stack(half) < 0.5).float().mean()) < 0.04


@pytest.mark.parametrize("angles", [(0.4, 0.2, -0.5), None])
@pytest.mark.parametrize("scale", [0.8, 1.3])
def test_images_and_labels_are_those_of_batchgenerators(tmp_path, angles, scale):
    """The same transform by the library on the whole volume, whose centre is the centre of the patch."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 4, (8, 8, 8)).astype(np.uint8)
    labels = coarse.repeat(5, 0).repeat(5, 1).repeat(5, 2)
    images = rng.normal(size=(2, 40, 40, 40)).astype(np.float32)
    write_case(tmp_path / "case", images, labels, {"case_id": "case"})
    affine = Drawn(angles=angles, scales=(scale,) * 3).affine
    ours = transformed_patch(open_case(tmp_path / "case"), (12, 12, 12), (16, 16, 16), affine)
    library = SpatialTransform((16, 16, 16), 0, random_crop=False, p_rotation=1, p_scaling=1)
    values = iter([*(angles or (0, 0, 0)), scale])
    library.rotation = library.scaling = lambda *args, **kwargs: next(values)
    library.p_synchronize_scaling_across_axes = 1
    found = library(image=torch.from_numpy(images), segmentation=torch.from_numpy(labels)[None].to(torch.int16))
    assert torch.allclose(ours[0], found["image"], atol=2e-4)
    assert (ours[1] == found["segmentation"][0]).float().mean() > 0.998  # half precision there


def test_labels_end_with_the_value_outside():
    places = coordinates((9, 9, 9), np.eye(3), [2, 2, 2])
    found = interpolated_labels(torch.full((5, 5, 5), 7, dtype=torch.uint8), places, outside=3)
    expected = torch.full((9, 9, 9), 3, dtype=torch.uint8)
    expected[2:7, 2:7, 2:7] = 7
    assert torch.equal(found, expected)


class Draws:
    """Many draws of one level."""

    def __init__(self, level, count=4000, **how):
        rng = np.random.default_rng(3)
        augmentation = Augmentation((16, 16, 16), level=level, **how)
        self.all = [augmentation.draw(2, rng) for _ in range(count)]

    def fraction(self, name):
        return np.mean([bool(getattr(drawn, name)) for drawn in self.all])


@pytest.mark.parametrize(
    ("name", "probability"),
    [
        ("angles", 0.2),
        ("scales", 0.2),
        ("noise", 0.1),
        ("blur", 0.2),
        ("brightness", 0.15),
        ("contrast", 0.15),
        ("low_resolution", 0.25),
        ("inverted_gamma", 0.1),
        ("gamma", 0.3),
    ],
)
def test_each_step_is_drawn_as_often_as_in_nnunet(name, probability):
    spread = 4 * np.sqrt(probability * (1 - probability) / 4000)
    assert abs(Draws("full").fraction(name) - probability) < spread


def test_values_lie_in_their_ranges():
    draws = Draws("full").all
    angles = np.degrees([drawn.angles for drawn in draws if drawn.angles])
    assert 29 < np.abs(angles).max() <= 30
    scales = np.array([drawn.scales for drawn in draws if drawn.scales])
    assert (scales.min(), scales.max()) == pytest.approx(SCALING, abs=0.01)
    assert (scales == scales[:, :1]).all(), "one scale for all axes"
    gamma = np.array([drawn.gamma for drawn in draws if drawn.gamma])
    assert (gamma.min(), gamma.max()) == pytest.approx((0.7, 1.5), abs=0.01)
    assert 0.47 < (gamma < 1).mean() < 0.53, "as often below one as above"
    assert np.std([sum(axis in drawn.mirrored for axis in (0, 1, 2)) for drawn in draws]) > 0.8


def test_light_has_neither_blur_nor_low_resolution_and_none_has_nothing():
    draws = Draws("light")
    assert draws.fraction("blur") == draws.fraction("low_resolution") == 0
    assert draws.fraction("gamma") > 0.25
    assert set(Draws("none", 20).all) == {Drawn()}


def test_a_patch_that_is_coarse_along_an_axis_is_rotated_and_scaled_in_its_plane():
    rng, augmentation = np.random.default_rng(0), Augmentation((10, 64, 64), level="full")
    draws = [augmentation.draw(1, rng) for _ in range(500)]
    angles = np.degrees([drawn.angles for drawn in draws if drawn.angles])
    assert not angles[:, 1:].any()
    assert np.abs(angles[:, 0]).max() > 150
    assert {drawn.scales[0] for drawn in draws if drawn.scales} == {1.0}


def test_both_gammas_keep_mean_and_deviation_and_the_inverted_one_acts_on_the_other_end():
    image = torch.rand((1, 8, 9, 10), generator=torch.Generator().manual_seed(0))
    augmentation = Augmentation((8, 9, 10), level="full")
    plain = augmentation.change_intensities(image.clone(), Drawn(gamma=(1.4,)))
    inverted = augmentation.change_intensities(image.clone(), Drawn(inverted_gamma=(1.4,)))
    for changed in (plain, inverted):
        assert changed.mean() == pytest.approx(image.mean().item(), abs=1e-5)
        assert changed.std() == pytest.approx(image.std().item(), abs=1e-5)
        assert not torch.allclose(changed, image, atol=1e-3)
    expected = -augmentation.change_intensities(-image, Drawn(gamma=(1.4,)))
    assert torch.allclose(inverted, expected, atol=1e-5)


@pytest.mark.parametrize(
    "drawn",
    [
        Drawn(noise=(0.1, 4)),
        Drawn(blur=(None, (0.7, 0.8, 0.9))),
        Drawn(low_resolution=(None, 0.6)),
        Drawn(brightness=(1.0, 1.2)),
        Drawn(contrast=(1.0, 0.8)),
    ],
)
def test_a_step_changes_the_channels_it_was_drawn_for(drawn):
    image = torch.randn((2, 8, 9, 10), generator=torch.Generator().manual_seed(0))
    changed = Augmentation((8, 9, 10), level="full").change_intensities(image.clone(), drawn)
    assert torch.allclose(changed[0], image[0], atol=1e-5) == (drawn.noise is None)
    assert not torch.allclose(changed[1], image[1], atol=1e-3)
