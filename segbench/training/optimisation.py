"""Optimiser, learning-rate schedule and averaged weights of a training recipe, all of them PyTorch's own.

`torch.optim` moves the weights, `torch.optim.lr_scheduler` moves the learning rate once per step, and
`torch.optim.swa_utils.AveragedModel` keeps the exponential moving average when the recipe asks for one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, PolynomialLR, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segbench.experiment.config import Recipe


class Optimisation:
    """Moves the weights of one model by one recipe; its state holds all that a resumed training needs."""

    def __init__(self, model: nn.Module, recipe: Recipe, total: int, *, fused: bool = False):
        """Build optimiser and schedule.

        Args:
            model: its parameters that require a gradient are trained; on its device.
            recipe: the training recipe.
            total: steps of the whole training.
            fused: whether a step can be told by the device not to move the weights.
        """
        self.model = model
        self.optimiser = build_optimiser(model, recipe, fused=fused)
        self.schedule = build_schedule(self.optimiser, recipe, total)
        self.average = None
        if recipe.ema_decay is not None:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self.optimiser.param_groups[0]["lr"])

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        self.optimiser.zero_grad(set_to_none=set_to_none)

    def step(self, *, where: Tensor | None = None, again: bool = False) -> None:
        """Move the weights once, then their average.

        Args:
            where: one truth value on the device; where it is false, weights and momenta stay. None for true. A fused
                optimiser is needed, which reads it the way `torch.amp.GradScaler` passes it.
            again: whether the step has been counted before, when nothing moved: the average is left as it is.
        """
        if where is None:
            self.optimiser.step()
        else:
            self.optimiser.found_inf = (~where).to(torch.float32)  # type: ignore[attr-defined]
            try:
                self.optimiser.step()
            finally:
                del self.optimiser.found_inf  # type: ignore[attr-defined]
        if self.average is not None and not again:
            self.average.update_parameters(self.model)

    def advance(self) -> None:
        """Set the learning rate of the next step; called once per step, whether or not the weights moved."""
        self.schedule.step()

    @property
    def scored_model(self) -> nn.Module:
        """The network that is scored: the one with averaged weights when the recipe asks for them."""
        return self.model if self.average is None else self.average.module

    def scored_weights(self) -> dict[str, Tensor]:
        """Return the state dict of the network that is scored."""
        return self.scored_model.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of optimiser, schedule and average."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of the same recipe, which another kind of device may have written."""
        own = [{name: group[name] for name in ("fused", "foreach")} for group in self.optimiser.param_groups]
        self.optimiser.load_state_dict(state["optimiser"])
        for group, kernels in zip(self.optimiser.param_groups, own, strict=True):
            group.update(kernels)
        _fit(self.optimiser)
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def build_optimiser(model: nn.Module, recipe: Recipe, *, fused: bool = False) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over all parameters that require a gradient, one kernel for many of them."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate, decay = recipe.initial_learning_rate, recipe.weight_decay
    kernels = {"fused": True} if fused else {"foreach": True}
    if recipe.optimiser == "sgd":
        momentum = recipe.effective_momentum
        sgd = torch.optim.SGD(
            parameters, lr=rate, momentum=momentum, weight_decay=decay, nesterov=momentum > 0, **kernels
        )
        _fit(sgd)
        return sgd
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimiser]
    return kind(
        parameters,
        lr=rate,
        betas=recipe.effective_betas,
        eps=recipe.effective_epsilon,
        weight_decay=decay,
        **kernels,
    )


def _fit(optimiser: torch.optim.Optimizer) -> None:
    """Give what an optimiser remembers the place and the layout that its kernels take for granted.

    A fused SGD cannot make its momenta at different steps, as stems of other channel counts need, so all are there.
    """
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            kept = optimiser.state.get(parameter, {})
            for name, value in kept.items():
                if name == "step":
                    kept[name] = value.to(parameter.device if group["fused"] else "cpu")
                elif isinstance(value, Tensor):
                    kept[name] = torch.empty_like(parameter).copy_(value)
            if group["fused"] and group.get("momentum") and kept.get("momentum_buffer") is None:
                optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def build_schedule(optimiser: torch.optim.Optimizer, recipe: Recipe, total: int) -> LRScheduler:
    """Return the recipe's schedule of the learning rate, one value per step.

    With W steps of warm-up the rate of step i < W is initial * (i + 1) / (W + 1); step W has the initial rate, and the
    decay spans the steps from W to `total`.

    Args:
        optimiser: its learning rate is the initial one.
        recipe: the training recipe.
        total: steps of the whole training.
    """
    warmup = recipe.warmup_steps(total)
    rest = total - warmup
    main: LRScheduler
    if recipe.learning_rate_schedule == "poly":
        main = PolynomialLR(optimiser, total_iters=rest, power=recipe.effective_poly_exponent)
    elif recipe.learning_rate_schedule == "cosine":
        main = CosineAnnealingLR(optimiser, T_max=rest)
    else:
        main = ConstantLR(optimiser, factor=1.0)
    if warmup == 0:
        return main
    rise = LinearLR(optimiser, start_factor=1 / (warmup + 1), total_iters=warmup)
    return SequentialLR(optimiser, [rise, main], milestones=[warmup])
