"""Optimisers, schedules and averaged weights of a recipe, against PyTorch and against formulas written out here."""

import copy
import math

import pytest
import torch
from torch import nn

from segbench.experiment.config.training import Recipe
from segbench.training.optimisation import Optimisation, build_optimiser


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def inputs_of(step: int) -> torch.Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(step))


def train(optimisation: Optimisation, steps: range) -> list[float]:
    """Do steps on inputs that the number of the step decides; return the learning rate of each."""
    rates = []
    for step in steps:
        rates.append(optimisation.learning_rate)
        optimisation.zero_grad()
        optimisation.model(inputs_of(step)).pow(2).mean().backward()
        optimisation.step()
        optimisation.advance()
    return rates


def rates(total: int, **recipe) -> list[float]:
    return train(Optimisation(network(), Recipe(**recipe), total), range(total))


def test_poly_decays_as_nnunet_does():
    expected = [0.01 * (1 - step / 20) ** 0.9 for step in range(20)]
    assert rates(20) == pytest.approx(expected, rel=1e-12)
    assert rates(5, poly_exponent=0.0) == [0.01] * 5


def test_cosine_is_half_a_wave_down_to_zero():
    expected = [0.5 * 2e-3 * (1 + math.cos(math.pi * step / 10)) for step in range(10)]
    found = rates(10, learning_rate_schedule="cosine", initial_learning_rate=2e-3)
    assert found == pytest.approx(expected, rel=1e-9)


def test_constant_stays():
    assert rates(6, learning_rate_schedule="constant") == [0.01] * 6


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [4, 0.2])
def test_warmup_rises_linearly_and_the_decay_spans_the_rest(schedule, warmup):
    found = rates(20, learning_rate_schedule=schedule, warmup=warmup)
    assert found[:4] == pytest.approx([0.01 * (step + 1) / 5 for step in range(4)])
    assert found[4:] == pytest.approx(rates(16, learning_rate_schedule=schedule), rel=1e-9)


def test_a_warmup_of_all_steps_but_one():
    assert rates(3, warmup=2) == pytest.approx([0.01 / 3, 0.02 / 3, 0.01])


@pytest.mark.parametrize(
    ("recipe", "reference"),
    [
        ({}, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.99, weight_decay=3e-5, nesterov=True)),
        ({"momentum": 0.0}, lambda p: torch.optim.SGD(p, lr=0.01, weight_decay=3e-5)),
        (
            {"optimiser": "adamw", "weight_decay": 0.1, "betas": [0.8, 0.9], "epsilon": 1e-4},
            lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.9), eps=1e-4, weight_decay=0.1),
        ),
        ({"optimiser": "adam"}, lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=3e-5)),
    ],
)
def test_weights_move_as_with_the_optimiser_of_pytorch(recipe, reference):
    recipe = Recipe(**recipe, learning_rate_schedule="constant")
    own = Optimisation(network(), recipe, 5)
    train(own, range(5))
    model = network()
    optimiser = reference(model.parameters())
    for step in range(5):
        optimiser.zero_grad()
        model(inputs_of(step)).pow(2).mean().backward()
        optimiser.step()
    for name, value in own.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_frozen_parameters_are_left_out():
    model = network()
    model[0].weight.requires_grad_(False)
    assert sum(len(group["params"]) for group in build_optimiser(model, Recipe()).param_groups) == 5


def test_the_average_follows_its_formula_and_is_what_is_scored():
    optimisation = Optimisation(network(), Recipe(ema_decay=0.75), 4)
    expected = None
    for step in range(4):
        train(optimisation, range(step, step + 1))
        weight = optimisation.model[0].weight.detach().clone()
        expected = weight if expected is None else 0.75 * expected + 0.25 * weight
    scored = optimisation.scored_weights()
    assert torch.allclose(scored["0.weight"], expected, atol=1e-7)
    assert not torch.equal(scored["0.weight"], optimisation.model[0].weight)
    assert scored.keys() == optimisation.model.state_dict().keys(), "the file of weights has the network's own names"
    assert torch.equal(scored["1.running_mean"], optimisation.model[1].running_mean), "buffers are those of the model"


def test_without_an_average_the_weights_themselves_are_scored():
    optimisation = Optimisation(network(), Recipe(), 2)
    train(optimisation, range(2))
    assert torch.equal(optimisation.scored_weights()["0.weight"], optimisation.model[0].weight)


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"warmup": 3},
        {"warmup": 6, "learning_rate_schedule": "cosine"},
        {"optimiser": "adamw", "learning_rate_schedule": "cosine", "ema_decay": 0.9},
    ],
)
def test_a_resumed_training_ends_with_the_same_weights(recipe, tmp_path):
    recipe = Recipe(**recipe)
    straight = Optimisation(network(), recipe, 9)
    expected = train(straight, range(9))
    first = Optimisation(network(), recipe, 9)
    train(first, range(5))
    torch.save([copy.deepcopy(first.model.state_dict()), first.state_dict()], tmp_path / "state.pt")
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    second = Optimisation(network(), recipe, 9)
    second.model.load_state_dict(weights)
    second.load_state_dict(state)
    assert train(second, range(5, 9)) == expected[5:]
    for name, value in straight.scored_weights().items():
        assert torch.equal(value, second.scored_weights()[name]), name


@pytest.mark.parametrize("recipe", [{"optimiser": "sgd"}, {"optimiser": "sgd", "momentum": 0.0}, {"optimiser": "adam"}])
def test_a_fused_optimiser_moves_as_the_other_one_parameters_with_a_late_first_gradient_included(recipe):
    one, other = (Optimisation(network(), Recipe(**recipe), 6, fused=fused) for fused in (False, True))
    for optimisation in (one, other):
        for step in range(6):
            optimisation.zero_grad()
            first, _, last = optimisation.model
            hidden = first(inputs_of(step)) if step > 2 else inputs_of(step).repeat(1, 2)[:, :4]
            last(hidden).pow(2).mean().backward()
            optimisation.step()
            optimisation.advance()
    for value, expected in zip(other.model.parameters(), one.model.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)


def layered() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"used": nn.Conv3d(2, 8, 3), "late": nn.Conv3d(2, 8, 3)})


def moved(optimisation: Optimisation, steps: range) -> list[torch.Tensor]:
    """Take steps, those from 4 on with the layer that is used late."""
    for step in steps:
        optimisation.zero_grad()
        images = torch.randn(1, 2, 4, 4, 4, generator=torch.Generator().manual_seed(step))
        for name in ("used", "late") if step >= 4 else ("used",):
            optimisation.model[name](images).pow(2).mean().backward()
        optimisation.step()
        optimisation.advance()
    return [parameter.detach().clone() for parameter in optimisation.model.parameters()]


@pytest.mark.parametrize("recipe", [{"optimiser": "sgd"}, {"optimiser": "adamw"}])
@pytest.mark.parametrize("fused", [True, False])
def test_a_state_of_another_device_continues_in_other_kernels_and_another_layout(recipe, fused):
    straight = moved(Optimisation(layered(), Recipe(**recipe), 8), range(8))
    layouts = (torch.channels_last_3d, torch.contiguous_format)
    first_model, second_model = (layered().to(memory_format=layout) for layout in layouts)
    first = Optimisation(first_model, Recipe(**recipe), 8, fused=fused)
    moved(first, range(3))
    second_model.load_state_dict(first_model.state_dict())
    second = Optimisation(second_model, Recipe(**recipe), 8, fused=not fused)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert bool(second.optimiser.param_groups[0]["fused"]) is not fused
    for value, expected in zip(moved(second, range(3, 8)), straight, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)
