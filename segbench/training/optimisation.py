"""Optimiser and learning-rate schedule of a training recipe."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import PolynomialLR

from segbench.experiment.config import Training


class Optimisation:
    """Moves the weights of one model by one recipe; its state holds all that a resumed training needs."""

    def __init__(self, model: nn.Module, recipe: Training, total: int):
        """Build optimiser and schedule for a training of `total` steps."""
        self.model = model
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.SGD(
            parameters,
            lr=recipe.initial_learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.momentum > 0,
            foreach=True,
        )
        self.schedule = PolynomialLR(self.optimiser, total_iters=total, power=recipe.poly_exponent)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self.optimiser.param_groups[0]["lr"])

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        self.optimiser.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Move the weights once."""
        self.optimiser.step()

    def advance(self) -> None:
        """Set the learning rate of the next step; called once per step."""
        self.schedule.step()

    def scored_weights(self) -> dict[str, Tensor]:
        """Return the state dict that is scored."""
        return self.model.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of optimiser and schedule."""
        return {"optimiser": self.optimiser.state_dict(), "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of the same recipe."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
