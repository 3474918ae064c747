"""FLOPs are counted for every form of a network: a training records them before its first step."""

import pytest

from models.flops import forward_flops
from models.loader import build_model
from tests.unit.models.small import SPEC, TASKS


def counted(prompt):
    return forward_flops(build_model("uniseg", TASKS, SPEC, prompt=prompt), SPEC.patch_size_zyx)


@pytest.mark.parametrize("prompt", ["universal", "fixed_one_hot", "multiple"])
def test_a_prompt_adds_channels_to_a_convolution(prompt):
    """It was refused for several prompts, whose parameters have no history where gradients are off."""
    assert counted(prompt) > counted("none")
