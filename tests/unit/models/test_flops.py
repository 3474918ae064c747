"""FLOPs are counted for every form of a network: a training records them before its first step."""

import pytest

from models.flops import forward_flops
from models.loader import build_model
from tests.unit.models.small import SPEC, TASKS


@pytest.mark.parametrize("prompt", ["universal", "none", "fixed_one_hot", "multiple"])
def test_the_flops_of_a_prompt_are_counted(prompt):
    counted = {
        name: forward_flops(build_model("uniseg", TASKS, SPEC, prompt=name), SPEC.patch_size_zyx)
        for name in (prompt, "none")
    }
    assert counted[prompt] >= counted["none"] > 0
