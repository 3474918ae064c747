"""FLOPs are counted for every form of a network: a training records them before its first step."""

import pytest
from torch import nn

from models.blocks.own_network import PerTaskModel
from models.flops import forward_flops
from models.loader import build_model
from segbench.core.task import TaskSet
from tests.unit.models.small import SPEC, TASKS


def counted(prompt):
    return forward_flops(build_model("uniseg", TASKS, SPEC, prompt=prompt), SPEC.patch_size_zyx)


@pytest.mark.parametrize("prompt", ["universal", "fixed_one_hot", "multiple"])
def test_a_prompt_adds_channels_to_a_convolution(prompt):
    """It was refused for several prompts, whose parameters have no history where gradients are off."""
    assert counted(prompt) > counted("none")


class Convolution(nn.Module):
    """A convolution of kernel 1; it may look at its answer, which has no values on the device of shapes."""

    def __init__(self, task, *, looks):
        super().__init__()
        self.layer, self.looks = nn.Conv3d(task.num_channels, task.num_classes, 1), looks

    def forward(self, images_BCZYX):
        logits_BKZYX = self.layer(images_BCZYX)
        return logits_BKZYX * (1.0 if not self.looks or logits_BKZYX.max().item() < 1e9 else 0.0)


@pytest.mark.parametrize("looks", [False, True])
def test_a_network_that_looks_at_values_is_counted_too(looks):
    task = next(iter(TASKS))
    network = Convolution(task, looks=looks)
    model = PerTaskModel(TaskSet([task]), SPEC, network=network, multiple_zyx=(1, 1, 1))
    assert forward_flops(model, (2, 3, 4)) == 2 * task.num_channels * task.num_classes * 24
