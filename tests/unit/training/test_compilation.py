"""Compiled blocks: which they are, that they compute the same, and when it pays."""

import pytest
import torch

from models.loader import build_model
from segbench.training.compilation import LEAST_STEPS, LEAST_VOXELS, compile_blocks, pays
from tests.unit.models.small import SPEC, SPLEEN, TASKS, images

CUDA = torch.device("cuda")


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of the compiler itself
@pytest.mark.parametrize(("name", "count"), [("uniseg", 13), ("nnunet_plain", 10), ("unetr", 0)])
def test_blocks_of_both_backbones_are_compiled_and_compute_the_same(name, count):
    task = SPLEEN
    tasks = TASKS if name == "uniseg" else [task]
    torch.manual_seed(0)
    model = build_model(name, tasks, SPEC).train()
    expected, names = model(images(), task)[0], list(model.state_dict())
    assert compile_blocks(model, backend="aot_eager") == count
    torch.testing.assert_close(model(images(), task)[0], expected, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize(
    ("device", "mode", "voxels", "steps", "expected"),
    [
        (CUDA, "fast", LEAST_VOXELS, LEAST_STEPS, True),
        (CUDA, "fast", LEAST_VOXELS - 1, LEAST_STEPS, False),
        (CUDA, "fast", LEAST_VOXELS, LEAST_STEPS - 1, False),
        (CUDA, "exact", LEAST_VOXELS, LEAST_STEPS, False),
        (torch.device("cpu"), "fast", LEAST_VOXELS, LEAST_STEPS, False),
    ],
)
def test_large_batches_of_long_trainings_on_gpus_are_compiled(device, mode, voxels, steps, expected):
    assert pays(device, mode, voxels=voxels, steps=steps) is expected
