"""One step: clipping, numbers that are not finite, repeats in float32, foreground, randomness."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from segbench.experiment.config import Training
from segbench.training import step as step_module
from segbench.training.guards import Diverged
from segbench.training.optimisation import Optimisation
from segbench.training.precision import Arithmetic
from segbench.training.step import Stepper
from tests.unit.models.small import make_task

TASK = make_task("spleen", ["spleen"])
CPU = torch.device("cpu")


class Line(nn.Module):
    """One weight; its loss is `slope` times the weight, so that the gradient is `slope`."""

    activation = "softmax"

    def __init__(self, slope):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.slope = slope

    def forward(self, images_BCZYX, task):
        loss = self.weight * self.slope
        return [torch.stack([loss, loss - 1]).reshape(1, 2, 1, 1, 1)]


class Plain:
    """SGD, with the interface of `Optimisation`."""

    def __init__(self, model, rate=0.1):
        self.optimiser = torch.optim.SGD(model.parameters(), lr=rate)

    def step(self, *, where=None, again=False):
        assert (where, again) == (None, False), "nothing here is late"
        self.optimiser.step()

    def zero_grad(self):
        self.optimiser.zero_grad()

    def state_dict(self):
        return self.optimiser.state_dict()

    def load_state_dict(self, state):
        self.optimiser.load_state_dict(state)


@pytest.fixture(autouse=True)
def loss_is_the_first_logit(monkeypatch):
    """The loss of `Line` is its background logit."""
    monkeypatch.setattr(
        step_module, "training_loss", lambda model, outputs, labels, task, **options: outputs[0][0, 0].sum()
    )


def stepper(model, precision="float32", *, clip=12.0):
    settings = Training(gradient_clip=12.0).model_copy(update={"gradient_clip": clip})
    return Stepper(model, Plain(model), Arithmetic(CPU, "exact", precision), settings, seed=0)


def take(own, **options):
    images = torch.zeros(1, 1, 2, 2, 2)
    return own.result(own.step(images, torch.ones(1, 2, 2, 2, dtype=torch.uint8), TASK, number=0, **options))


def test_a_step_goes_down_the_gradient():
    model = Line(3.0)
    result = take(stepper(model))
    assert (result.loss, result.norm) == (3.0, 3.0)
    assert model.weight.item() == pytest.approx(1 - 0.1 * 3)


def test_a_lower_rate_moves_less_and_is_not_kept():
    model = Line(3.0)
    own = stepper(model)
    take(own, rate_factor=0.5)
    assert model.weight.item() == pytest.approx(1 - 0.05 * 3)
    assert own.optimisation.optimiser.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(("clip", "moved"), [(12.0, 12.0), (None, 50.0)])
def test_a_large_gradient_is_clipped_to_its_norm(clip, moved):
    model = Line(-50.0)
    result = take(stepper(model, clip=clip))
    assert result.norm == 50.0, "as it was before clipping"
    assert model.weight.item() == pytest.approx(1 + 0.1 * moved, rel=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("slope", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_moves_no_weight(slope, precision):
    model = Line(slope)
    with pytest.raises(Diverged, match=f"the loss is {slope}"):
        take(stepper(model, precision))
    assert model.weight.item() == 1.0
    assert model.weight.grad is None


def test_a_gradient_that_is_not_finite_moves_no_weight(monkeypatch):
    def root(self, images, task):
        return [torch.stack([torch.sqrt(self.weight - 1.0), self.weight]).reshape(1, 2, 1, 1, 1)]

    monkeypatch.setattr(Line, "forward", root)
    model = Line(1.0)
    with pytest.raises(Diverged, match="the norm of the gradient is"):
        take(stepper(model))
    assert model.weight.item() == 1.0


class Overflows(Line):
    """Not finite below float32."""

    def __init__(self, slope):
        super().__init__(slope)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, images_BCZYX, task):
        lower = torch.is_autocast_enabled("cpu")
        self.norm(torch.full((2, 1), math.nan if lower else 7.0))
        factor = math.inf if lower else 1.0
        return [logits * factor for logits in super().forward(images_BCZYX, task)]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_step_that_is_not_finite_in_a_lower_precision_is_repeated_in_float32(caplog, precision):
    model, plain = Overflows(3.0), Line(3.0)
    own = stepper(model, precision)
    result = take(own)
    assert result == take(stepper(plain))
    assert torch.equal(model.weight, plain.weight)
    assert own.repeats == 1
    assert f"step 0 of spleen is not finite in {precision}: repeated in float32" in caplog.text
    assert model.norm.running_mean.item() == pytest.approx(0.7), "the statistics of the finite attempt alone"
    for _ in range(9):
        take(own)
    assert own.repeats == 10
    assert caplog.text.count("repeated in float32") == 5


def test_a_scale_that_grew_too_far_is_halved_and_the_step_repeated_in_float16():
    largest = torch.finfo(torch.float32).max / 65536
    model, plain = Line(1.5 * largest), Line(1.5 * largest)
    own = stepper(model, "float16")
    assert take(own) == take(stepper(plain))
    assert torch.equal(model.weight, plain.weight)
    assert (own.scaler.get_scale(), own.repeats) == (65536 / 2, 0)


def test_the_scale_of_float16_halves_after_every_overflow_and_is_stored():
    model = Overflows(3.0)
    own = stepper(model, "float16")
    first = own.scaler.get_scale()
    take(own)
    assert own.scaler.get_scale() == first / 4
    state = own.state_dict()
    other = stepper(Overflows(3.0), "float16")
    other.load_state_dict(state)
    assert (other.scaler.get_scale(), other.repeats) == (first / 4, 1)
    assert torch.equal(other.model.weight, model.weight)


def test_a_scaled_step_is_the_step_without_a_scale():
    scaled, plain = Line(3.0), Line(3.0)
    assert take(stepper(scaled, "float16")) == take(stepper(plain))
    assert torch.equal(scaled.weight, plain.weight)


def test_foreground_that_is_not_predicted_is_seen():
    own = stepper(Line(0.0))
    images = torch.zeros(1, 1, 1, 1, 1)
    for label, missed in ((1, True), (0, None), (255, None)):
        labels = torch.full((1, 1, 1, 1), label, dtype=torch.uint8)
        assert own.result(own.step(images, labels, TASK, number=0)).missed is missed


def test_a_step_leaves_the_global_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    take(stepper(Line(1.0)))
    assert torch.equal(torch.rand(2), expected)


def test_an_attempt_draws_the_same_numbers_again(monkeypatch):
    seen = []

    def noisy(self, images, task):
        seen.append(torch.rand(1).item())
        factor = math.nan if torch.is_autocast_enabled("cpu") else 1.0
        return [self.weight * factor * torch.ones(1, 2, 1, 1, 1)]

    monkeypatch.setattr(Line, "forward", noisy)
    take(stepper(Line(1.0), "bfloat16"))
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert np.isfinite(seen).all()


def late_stepper(model, precision="float32", **recipe):
    settings = Training(initial_learning_rate=0.1, **recipe)
    optimisation = Optimisation(model, settings, 100, fused=True)
    return Stepper(model, optimisation, Arithmetic(CPU, "fast", precision), settings, seed=0)


def start(own, number):
    images = torch.zeros(1, 1, 2, 2, 2)
    return own.step(images, torch.ones(1, 2, 2, 2, dtype=torch.uint8), TASK, number=number)


def test_numbers_on_a_gpu_are_waited_for_when_they_are_asked_for_and_not_before(monkeypatch):
    done = []

    class Values:
        device = torch.device("cuda")

        def to(self, device, *, non_blocking):
            done.append(("copy", device, non_blocking))
            return torch.tensor([1.0, 2.0])

    class Event:
        def record(self):
            done.append("record")

        def synchronize(self):
            done.append("wait")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    numbers = step_module._Numbers(Values())
    assert done == [("copy", "cpu", True), "record"]
    assert numbers.wait() == [1.0, 2.0]
    assert done[-1] == "wait"


def numbers_of(own):
    """Weights and everything that the optimiser remembers."""
    kept = [value for state in own.optimisation.optimiser.state.values() for value in state.values()]
    return [own.model.weight.detach().clone(), *(value.clone() for value in kept)]


RECIPES = [{"optimiser": "sgd", "momentum": 0.9}, {"optimiser": "sgd", "momentum": 0.0}, {"optimiser": "adamw"}]


@pytest.mark.parametrize("recipe", RECIPES)
def test_in_mode_fast_the_device_keeps_the_weights_before_anybody_has_looked(recipe):
    model, plain = Line(3.0), Line(3.0)
    own, other = late_stepper(model, **recipe), late_stepper(plain, **recipe)
    assert own.late
    first = start(own, 0)
    before = numbers_of(own)
    model.slope = math.nan
    second = start(own, 1)
    for value, kept in zip(numbers_of(own), before, strict=True):
        assert torch.equal(value, kept)
    model.slope = 3.0
    third = start(own, 2)
    assert own.result(first).loss == 3.0
    with pytest.raises(Diverged, match="the loss is nan"):
        own.result(second)
    assert own.result(third).norm == 3.0
    for number in (0, 2):
        other.result(start(other, number))
    for value, expected in zip(numbers_of(own), numbers_of(other), strict=True):
        assert torch.equal(value, expected)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_first_step_that_is_not_finite_leaves_no_momentum(recipe):
    model = Line(math.inf)
    own = late_stepper(model, **recipe)
    with pytest.raises(Diverged):
        own.result(start(own, 0))
    assert model.weight.item() == 1.0
    assert all(not value.any() for value in numbers_of(own)[1:])


def test_a_late_step_that_is_not_finite_in_a_lower_precision_is_repeated_when_it_is_looked_at():
    model = Overflows(3.0)
    own = late_stepper(model, "bfloat16", momentum=0.0, weight_decay=0.0)
    steps = [start(own, 0), start(own, 1)]
    assert model.weight.item() == 1.0
    assert model.norm.running_mean.item() == 0.0
    assert [own.result(step).norm for step in steps] == [3.0, 3.0]
    assert model.weight.item() == pytest.approx(1 - 2 * 0.1 * 3)
    assert own.repeats == 2


def test_a_late_repeat_has_the_rate_of_its_step_and_no_second_average():
    model = Overflows(3.0)
    own = late_stepper(model, "bfloat16", momentum=0.0, weight_decay=0.0, ema_decay=0.5)
    step = start(own, 0)
    own.optimisation.optimiser.param_groups[0]["lr"] = 0.0  # that of the next step
    own.result(step)
    assert model.weight.item() == pytest.approx(1 - 0.1 * 3)
    assert own.optimisation.optimiser.param_groups[0]["lr"] == 0.0
    assert int(own.optimisation.average.n_averaged) == 1
