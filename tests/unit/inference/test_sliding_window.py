"""Sliding windows: blending leaves a constant answer constant, mirroring is undone, tasks share one encoding."""

import numpy as np
import pytest
import torch

from models.interface import NetworkSpec, SegmentationModel
from segbench.core.errors import InputError
from segbench.core.task import Channel, Structure, Task, TaskSet
from segbench.inference.sliding_window import predict_probabilities

ORGAN = Structure("organ", (1,), 2.0)
TASKS = [Task(name, name, (Channel("CT", "CT"),), ("organ",), (ORGAN,)) for name in ("first", "second")]


class Threshold(SegmentationModel):
    """Foreground where the image is positive; counts encodings."""

    def __init__(self):
        super().__init__(TaskSet(TASKS), NetworkSpec(patch_size_zyx=(8, 8, 8)))
        self.scale = torch.nn.Parameter(torch.tensor(20.0))
        self.encodings = 0

    def encode(self, images_BCZYX):
        self.encodings += 1
        return images_BCZYX

    def decode(self, features, task):
        return [torch.cat([-features * self.scale, features * self.scale], dim=1)]


@pytest.fixture
def volume():
    return np.random.default_rng(0).choice([-1.0, 1.0], size=(1, 11, 9, 13)).astype(np.float32)


@pytest.mark.parametrize("mirror_axes", [(), (0,), (0, 1, 2)])
def test_the_answer_is_the_image_wherever_windows_lie(volume, mirror_axes):
    found = predict_probabilities(
        Threshold(), volume, TASKS[:1], patch_size_zyx=(8, 8, 8), step=0.5, mirror_axes=mirror_axes
    )
    assert np.array_equal(found["first"].argmax(0), volume[0] > 0)


def test_a_volume_smaller_than_the_patch_is_padded_and_cut(volume):
    small = volume[:, :4, :5, :6]
    found = predict_probabilities(Threshold(), small, TASKS[:1], patch_size_zyx=(8, 8, 8))
    assert found["first"].shape == (2, 4, 5, 6)
    assert np.array_equal(found["first"].argmax(0), small[0] > 0)


def test_two_tasks_cost_one_encoding(volume):
    alone, together = Threshold(), Threshold()
    predict_probabilities(alone, volume, TASKS[:1], patch_size_zyx=(8, 8, 8))
    found = predict_probabilities(together, volume, TASKS, patch_size_zyx=(8, 8, 8))
    assert together.encodings == alone.encodings
    assert set(found) == {"first", "second"}


def test_a_wrong_channel_count_is_refused(volume):
    with pytest.raises(InputError, match="C = 1"):
        predict_probabilities(Threshold(), np.concatenate([volume, volume]), TASKS[:1], patch_size_zyx=(8, 8, 8))
