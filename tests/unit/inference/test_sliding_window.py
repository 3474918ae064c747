"""Sliding windows: equal to whole-volume blending and interpolation, mirroring undone, one encoding for all tasks."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference
from torch.multiprocessing.reductions import StorageWeakRef

from models.blocks.plain_unet import BatchStatisticsNorm
from models.interface import NetworkSpec, SegmentationModel
from models.loader import build_model
from segbench.core.errors import InputError
from segbench.core.task import Channel, Structure, Task, TaskSet
from segbench.data.geometry import Geometry
from segbench.data.resampling import zoom
from segbench.inference import sliding_window
from segbench.inference.sliding_window import (
    NotFinite,
    Windows,
    gaussian_weights,
    predict_labels,
    predict_probabilities,
    sums_device,
)

ORGAN = Structure("organ", (1,), 2.0)
TASKS = [Task(name, name, (Channel("CT", "CT"),), ("organ",), (ORGAN,)) for name in ("first", "second")]
MANY = Task("many", "many", (Channel("MR", "MR"),), tuple(f"class {number}" for number in range(1, 6)), (ORGAN,))
CUBE = Windows((8, 8, 8))


class Threshold(SegmentationModel):
    """Foreground where the image is positive; counts the samples of its encodings."""

    def __init__(self):
        super().__init__(TaskSet(TASKS), NetworkSpec(patch_size_zyx=(8, 8, 8)))
        self.scale = torch.nn.Parameter(torch.tensor(20.0))
        self.batches = []

    def encode(self, images_BCZYX):
        self.batches.append(len(images_BCZYX))
        return images_BCZYX

    def decode(self, features, task):
        return [torch.cat([-features * self.scale, features * self.scale], dim=1)]


class Positions(SegmentationModel):
    """Six classes whose probabilities depend on the position in the window, so that every weight counts."""

    def __init__(self, patch_zyx, activation="softmax"):
        super().__init__(TaskSet([MANY]), NetworkSpec(patch_size_zyx=patch_zyx))
        self.activation = activation
        generator = torch.Generator().manual_seed(3)
        self.maps = torch.nn.Parameter(torch.randn(1, 6, *patch_zyx, generator=generator))

    def encode(self, images_BCZYX):
        return images_BCZYX

    def decode(self, features, task):
        return [2 * self.maps + features * torch.linspace(-2, 2, 6)[:, None, None, None]]


@pytest.fixture
def volume():
    return np.random.default_rng(0).choice([-1.0, 1.0], size=(1, 11, 9, 13)).astype(np.float32)


def whole_volume_probabilities(model, images_CZYX, task, windows):
    """Return the probabilities of a volume by MONAI, one window at a time, flips averaged."""

    def predict(window_BCZYX):
        axes = [axis + 2 for axis in windows.mirror_axes]
        flips = [flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)]
        found = [model.probabilities(model(window_BCZYX.flip(flip), task)[0], task).flip(flip) for flip in flips]
        return sum(found) / len(flips)

    with torch.no_grad():
        overlap = 1 - windows.step
        found = sliding_window_inference(
            torch.as_tensor(images_CZYX)[None], windows.patch_size_zyx, 1, predict, overlap=overlap, mode="gaussian"
        )
    return found[0].numpy()


def whole_volume_labels(probabilities_KZYX, geometry):
    """Return labels of all planes at once: each class on the native grid by spline matrices, the first largest wins."""
    native_KZYX = np.stack([zoom(each, geometry.cropped_shape_zyx, (1, 1, 1)) for each in probabilities_KZYX])
    return geometry.placed(native_KZYX.argmax(axis=0).astype(np.uint8))


def geometry_of(native_xyz, shape_zyx, *, axes="RAS"):
    sign = [1 if axis in "RAS" else -1 for axis in axes]
    crop = tuple((0, size) for size in native_xyz)
    return Geometry(tuple(native_xyz), tuple(map(tuple, np.diag([*sign, 1.0]).tolist())), crop, tuple(shape_zyx))


CASES = [  # grid z y x, native x y z, patch, step
    ((11, 9, 13), (13, 9, 11), (8, 8, 8), 0.5),
    ((23, 19, 17), (17, 19, 23), (8, 6, 10), 0.5),
    ((23, 19, 17), (31, 25, 40), (8, 6, 10), 0.5),
    ((30, 19, 17), (12, 25, 11), (8, 6, 10), 0.75),
    ((5, 19, 7), (9, 30, 4), (8, 6, 10), 0.25),
    ((1, 4, 50), (60, 3, 7), (4, 4, 8), 1.0),
    ((16, 8, 8), (8, 8, 100), (8, 8, 8), 0.5),
    ((64, 8, 8), (8, 8, 3), (8, 8, 8), 0.5),
]


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("mirror_axes", [(), (0,), (0, 1, 2)])
@pytest.mark.parametrize(("grid", "native", "patch", "step"), CASES)
def test_streamed_label_maps_are_those_of_the_whole_volume(monkeypatch, grid, native, patch, step, mirror_axes, parts):
    images = np.random.default_rng(1).normal(size=(1, *grid)).astype(np.float32)
    windows, geometry = Windows(patch, step, mirror_axes), geometry_of(native, grid, axes="LAS")
    model = Positions(patch)
    expected = whole_volume_probabilities(model, images, MANY, windows)
    found = predict_probabilities(model, images, [MANY], windows)["many"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    plane_bytes = 4 * 6 * patch[0] * max(grid[2], patch[2])
    monkeypatch.setattr(sliding_window, "ACCUMULATOR_BYTES", math.ceil(plane_bytes * grid[1] / parts))
    labels = predict_labels(model, images, [MANY], geometry, windows)["many"]
    assert labels.shape == native
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, whole_volume_labels(expected, geometry))


def test_the_sums_of_some_rows_are_freed_before_those_of_the_next(monkeypatch):
    sums: list[StorageWeakRef] = []
    make = sliding_window._Sums.__init__

    def watched(self, *arguments):
        assert all(reference.expired() for reference in sums)
        make(self, *arguments)
        sums.append(StorageWeakRef(self._sums_KZYX[0].untyped_storage()))

    monkeypatch.setattr(sliding_window._Sums, "__init__", watched)
    monkeypatch.setattr(sliding_window, "ACCUMULATOR_BYTES", 4 * 6 * 8**3)
    images = np.zeros((1, 16, 24, 8), dtype=np.float32)
    predict_labels(Positions((8, 8, 8)), images, [MANY], geometry_of((16, 24, 8), (16, 24, 8)), Windows((8, 8, 8)))
    assert len(sums) == 3


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_are_probabilities_with_any_mirroring(activation):
    images = np.random.default_rng(1).normal(size=(1, 11, 9, 13)).astype(np.float32)
    for mirror_axes in [(), (2,), (0, 1, 2)]:
        found = predict_probabilities(
            Positions((8, 8, 8), activation), images, [MANY], Windows((8, 8, 8), 0.5, mirror_axes)
        )["many"]
        assert found.min() >= 0
        assert found.max() <= 1 + 1e-6
        if activation == "softmax":
            np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)


def test_of_equal_classes_the_first_wins_everywhere():
    model = Positions((8, 8, 8))
    model.decode = lambda features, task: [torch.zeros(len(features), 6, 8, 8, 8)]
    labels = predict_labels(
        model, np.zeros((1, 11, 9, 13), np.float32), [MANY], geometry_of((20, 7, 9), (11, 9, 13)), CUBE
    )
    assert not labels["many"].any()


@pytest.mark.parametrize("mirror_axes", [(), (0,), (0, 1, 2)])
def test_the_answer_is_the_image_wherever_windows_lie(volume, mirror_axes):
    found = predict_probabilities(Threshold(), volume, TASKS[:1], Windows((8, 8, 8), 0.5, mirror_axes))
    assert np.array_equal(found["first"].argmax(0), volume[0] > 0)


def test_a_volume_smaller_than_the_patch_is_padded_and_cut(volume):
    small = volume[:, :4, :5, :6]
    found = predict_probabilities(Threshold(), small, TASKS[:1], CUBE)
    assert found["first"].shape == (2, 4, 5, 6)
    assert np.array_equal(found["first"].argmax(0), small[0] > 0)


def test_two_tasks_cost_one_encoding(volume):
    alone, together = Threshold(), Threshold()
    predict_probabilities(alone, volume, TASKS[:1], CUBE)
    found = predict_probabilities(together, volume, TASKS, CUBE)
    assert together.batches == alone.batches
    assert set(found) == {"first", "second"}


def test_a_wrong_channel_count_is_refused(volume):
    with pytest.raises(InputError, match="C = 1"):
        predict_probabilities(Threshold(), np.concatenate([volume, volume]), TASKS[:1], CUBE)


def test_windows_and_flips_go_in_pairs(volume):
    mirrored, plain = Threshold(), Threshold()
    predict_probabilities(mirrored, volume, TASKS[:1], Windows((8, 8, 8), 0.5, (0, 1)))
    assert set(mirrored.batches) == {2}
    predict_probabilities(plain, volume[:, :8, :8], TASKS[:1], Windows((8, 8, 8), 0.5))
    assert plain.batches == [2, 1], "three windows"


def test_a_network_that_uses_the_statistics_of_its_batch_sees_one_window_at_a_time(volume):
    model = Threshold()
    model.norm = BatchStatisticsNorm(1)
    predict_probabilities(model, volume, TASKS[:1], Windows((8, 8, 8), 0.5, (0,)))
    assert set(model.batches) == {1}


@pytest.mark.parametrize(
    "name", ["uniseg", "models_genesis", "clip_driven_original", "dodnet_original", "nnunet_plain"]
)
def test_label_maps_of_a_network_do_not_depend_on_the_batch(monkeypatch, name):
    tasks = TaskSet(TASKS[:1])
    torch.manual_seed(0)
    spec = NetworkSpec((16, 16, 16), 4, 16, ((2, 2, 2),) * 2, ((3, 3, 3),) * 3)
    model = build_model(name, tasks, spec).eval()
    images = np.random.default_rng(2).normal(size=(1, 24, 20, 16)).astype(np.float32)
    windows, geometry = Windows((16, 16, 16), 0.5, (0,)), geometry_of((20, 25, 30), (24, 20, 16))
    paired = predict_labels(model, images, [TASKS[0]], geometry, windows)["first"]
    monkeypatch.setattr(sliding_window, "BATCH", {"cpu": 1})
    alone = predict_labels(model, images, [TASKS[0]], geometry, windows)["first"]
    assert np.mean(paired != alone) < 1e-4


def test_sums_move_to_the_processor_when_the_memory_of_a_device_is_used_up(monkeypatch, caplog):
    model, images = Positions((8, 8, 8)), np.random.default_rng(1).normal(size=(1, 11, 9, 13)).astype(np.float32)
    geometry = geometry_of((20, 7, 9), (11, 9, 13))
    expected = predict_labels(model, images, [MANY], geometry, CUBE)["many"]
    cpu = torch.device("cpu")
    monkeypatch.setattr(sliding_window, "_attempts", lambda device: [(cpu, 8), (cpu, 1)])
    decode = model.decode

    def full(features, task):
        if len(features) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return decode(features, task)

    model.decode = full
    np.testing.assert_array_equal(predict_labels(model, images, [MANY], geometry, CUBE)["many"], expected)
    assert "kept in the processor's memory" in caplog.text
    monkeypatch.setattr(sliding_window, "_attempts", lambda device: [(cpu, 8)])
    with pytest.raises(torch.OutOfMemoryError):
        predict_labels(model, images, [MANY], geometry, CUBE)


class Overflowing(Threshold):
    """Its probabilities are not finite while autocast is on, or ever."""

    def __init__(self, *, always):
        super().__init__()
        self.always = always

    def decode(self, features, task):
        factor = math.nan if self.always or torch.is_autocast_enabled("cpu") else 1.0
        return [logits * factor for logits in super().decode(features, task)]


def test_what_is_not_finite_in_a_lower_precision_is_predicted_again_in_float32(volume, caplog):
    geometry = geometry_of((13, 9, 11), (11, 9, 13))
    arguments = (volume, TASKS[:1], geometry)
    lower = dataclasses.replace(CUBE, precision="bfloat16")
    expected = predict_labels(Threshold(), *arguments, CUBE)
    assert expected["first"].any()
    found = predict_labels(Overflowing(always=False), *arguments, lower)
    np.testing.assert_array_equal(found["first"], expected["first"])
    assert "not finite in bfloat16: the volume is predicted again in float32" in caplog.text
    for windows in (CUBE, lower):
        with pytest.raises(NotFinite, match="not finite"):
            predict_labels(Overflowing(always=True), *arguments, windows)


def test_a_gpu_keeps_sums_of_a_few_parts_and_leaves_more_to_the_processor(monkeypatch):
    cuda, patch, free = torch.device("cuda"), (8, 8, 8), {"bytes": 0}
    monkeypatch.setattr(sliding_window, "_free_bytes", lambda device: free["bytes"])
    whole = 4 * TASKS[0].num_classes * 8 * 16 * 16
    for count, where in ((1, "cuda"), (2, "cpu")):
        free["bytes"] = 3 * whole // count
        assert len(sliding_window._row_parts(TASKS[:1], (16, 16, 16), 16, patch, cuda)) == count
        assert sums_device(cuda, TASKS[:1], (16, 16, 16), patch).type == where
    free["bytes"] = 0
    assert len(sliding_window._row_parts(TASKS[:1], (16, 16, 16), 16, patch, cuda)) == 16
    assert sums_device(torch.device("cpu"), TASKS[:1], (16, 16, 16), patch).type == "cpu"


def test_attempts_of_a_gpu_end_with_the_processor():
    kinds = [device.type for device, _ in sliding_window._attempts(torch.device("cuda"))]
    assert kinds == ["cuda", "cpu"]
    assert len(sliding_window._attempts(torch.device("cpu"))) == 1


def test_the_weights_are_a_gaussian_that_never_vanishes():
    weights = gaussian_weights((64, 8, 9))
    assert weights.shape == (64, 8, 9)
    assert float(weights[32, 4, 4]) == pytest.approx(math.exp(-0.5 * ((0.5 / 8) ** 2 + 0.5**2)))
    assert float(weights.min()) == pytest.approx(1e-3)
