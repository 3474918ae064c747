"""The generated head of DoDNet: as large at the start as one that is learnt, whatever the length of the features."""

import pytest
import torch

from models.interface import NetworkSpec
from models.loader import build_model
from tests.unit.models.small import TASKS

SPEC = NetworkSpec(patch_size_zyx=(16, 16, 32), base_features=8)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model("dodnet", TASKS, SPEC).eval()


def heads(model, pooled_BC111):
    """Return the generated vector of every task."""
    found = []
    hook = model.controller.register_forward_hook(lambda _, inputs, output: found.append(output.flatten()))
    for task in TASKS:
        model.decode((pooled_BC111, [torch.zeros(1, 8, 4, 4, 4)]), task)
    hook.remove()
    return torch.stack(found)


def test_a_generated_head_starts_with_the_variance_of_he_for_eight_inputs(model):
    with torch.no_grad():
        drawn = heads(model, torch.rand(1, SPEC.features[-1], 1, 1, 1))
    assert drawn.var().item() == pytest.approx(2 / 8, rel=0.25)


@pytest.mark.parametrize("length", [0.1, 100.0])
def test_the_length_of_the_features_does_not_count(model, length):
    pooled_BC111 = torch.rand(1, SPEC.features[-1], 1, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(heads(model, length * pooled_BC111), heads(model, pooled_BC111))


def test_a_step_moves_a_head_three_times_as_far_as_learnt_weights_and_that_of_another_task_twice(model):
    """Weights that are learnt move by the rate times the gradient; features, code and bias each add as much here."""
    pooled_BC111 = torch.rand(1, SPEC.features[-1], 1, 1, 1)
    before = heads(model, pooled_BC111)
    before[0].sum().backward()  # the gradient of every generated weight of the first task is 1
    with torch.no_grad():
        for parameter in (model.controller.weight, model.controller.bias):
            parameter -= 0.1 * parameter.grad
        moved = before - heads(model, pooled_BC111)
    torch.testing.assert_close(moved[0], torch.full_like(moved[0], 0.1 * 3))  # features, code and bias
    torch.testing.assert_close(moved[1], torch.full_like(moved[1], 0.1 * 2))  # features and bias
