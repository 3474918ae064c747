"""The network size that config states, and what a network may answer."""

import pytest
import torch

from models.blocks.own_network import PerTaskModel
from models.interface import NetworkSpec, SegmentationModel
from segbench.core.errors import InputError
from segbench.core.task import TaskSet
from tests.unit.models.small import SPEC, TASKS

TASK = next(iter(TASKS))
CLASSES = TASK.num_classes
SIZE_ZYX = (4, 8, 8)
IMAGES_BCZYX = torch.zeros(1, TASK.num_channels, *SIZE_ZYX)


class Answers(SegmentationModel):
    """Answers what it is given."""

    def __init__(self, answer):
        super().__init__(TASKS, SPEC)
        self.answer = answer

    def encode(self, images_BCZYX):
        return images_BCZYX

    def decode(self, features, task):
        return self.answer


class Network(torch.nn.Module):
    """Returns what it is given."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images_BCZYX):
        return self.answer


def test_sizes_of_the_paper():
    spec = NetworkSpec()
    assert spec.features == (32, 64, 128, 256, 320, 320)
    assert spec.downsampling_zyx == (16, 32, 32)
    assert spec.bottleneck_grid_zyx == (4, 6, 6)


def logits(classes=CLASSES, size_zyx=SIZE_ZYX):
    return torch.zeros(1, classes, *size_zyx)


def test_the_full_resolution_comes_first_and_coarser_scales_may_follow():
    answer = [logits(), logits(size_zyx=(2, 4, 4))]
    assert Answers(answer)(IMAGES_BCZYX, TASK) is answer


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ([logits(CLASSES + 1)], f".a tensor of shape .1, {CLASSES + 1}, 4, 8, 8"),
        ([logits(size_zyx=(2, 4, 4))], "found .a tensor of shape .* 2, 4, 4"),
        ([logits(), logits(CLASSES + 1, (2, 4, 4))], f"expected a list with the shape .1, {CLASSES}, 4, 8, 8. first"),
        (logits(), "found a tensor .* let decode return a list"),
        ([], r"found \[\];"),
        ({"logits": logits()}, "found a dict;"),
    ],
)
def test_another_answer_is_refused_before_anything_is_learned_from_it(answer, found):
    with pytest.raises(InputError, match=f"logits of Answers for the task {TASK.name}: .*{found}"):
        Answers(answer)(IMAGES_BCZYX, TASK)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"logits": logits()}, "found a dict"),
        ((logits(), None), "found .a tensor of shape .*, a NoneType"),
        (logits()[:, None], f"found a tensor of shape .1, 1, {CLASSES}, 4, 8, 8"),
    ],
)
def test_a_network_that_returns_more_than_logits_is_told_what_to_do(answer, found):
    model = PerTaskModel(TaskSet([TASK]), SPEC, network=Network(answer), multiple_zyx=(4, 4, 4))
    with pytest.raises(InputError, match=f"what Network returns: {found}.*put a module around it"):
        model(IMAGES_BCZYX, TASK)
