"""nnFormer's windows are those of the patch as it is padded."""

import pytest
import torch

from models.interface import NetworkSpec
from models.loader import build_model
from segbench.core.task import TaskSet
from tests.unit.models.small import images, make_task

TASK = make_task("toy", ("spleen",))


@pytest.mark.parametrize("size_zyx", [(16, 16, 16), (8, 24, 40)])
def test_a_patch_smaller_than_what_the_network_demands_is_padded(size_zyx):
    spec = NetworkSpec(patch_size_zyx=size_zyx, base_features=4)
    network = build_model("nnformer", TaskSet([TASK]), spec).eval()
    with torch.no_grad():
        assert network(images(size_zyx=size_zyx), TASK)[0].shape[2:] == size_zyx
