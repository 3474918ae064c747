"""One training step: loss, gradient, and a move of the weights that only finite numbers make.

In mode 'exact' the numbers are looked at before the weights move. In mode 'fast' the device decides whether they move,
and the numbers are looked at when the next step has been started, so that the device seldom waits for the processor
(`Arithmetic.late`).

Axis legend: B batch, C channel, Z Y X space.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.interface import SegmentationModel
from segbench.core.seeds import seed_for
from segbench.core.task import Task
from segbench.experiment.config import Training
from segbench.training.compilation import compiled_scale_loss
from segbench.training.distributed import ALONE, Ranks
from segbench.training.guards import Diverged, foreground_counts
from segbench.training.losses import scale_loss, training_loss
from segbench.training.objective import Objective
from segbench.training.optimisation import Optimisation
from segbench.training.precision import Arithmetic

REPEATS_LOGGED = 5
Annotated = Sequence[Sequence[int] | None]
log = logging.getLogger(__name__)


class _Batch(NamedTuple):
    """What a step is taken on; see `Stepper.step`."""

    images_BCZYX: Tensor
    labels_BZYX: Tensor
    task: Task
    annotated: Annotated
    ignored: bool | None
    number: int


class _LossOfBatch(torch.nn.Module):
    """Batch -> its loss and, for a segmentation, whether labels and prediction hold foreground.

    A module, so that the parameters that the loss depends on are found from the loss: the coarsest of several outputs
    has no part in it.
    """

    def __init__(
        self, model: SegmentationModel | Objective, settings: Training, ranks: Ranks, *, seed: int, compiled: bool
    ):
        super().__init__()
        self.model, self.settings, self.ranks, self.seed = model, settings, ranks, seed
        self.one_scale = compiled_scale_loss() if compiled else scale_loss

    def forward(self, arithmetic: Arithmetic, batch: _Batch) -> tuple[Tensor, Tensor]:
        if isinstance(self.model, Objective):
            with arithmetic.autocast():
                loss = self.model(batch.images_BCZYX, np.random.default_rng(seed_for("views", self.seed, batch.number)))
            return loss, loss.new_empty(0, dtype=torch.float32)
        with arithmetic.autocast():
            outputs = self.model(batch.images_BCZYX, batch.task)
        if self.ranks.size > 1:
            outputs = [self.ranks.whole(logits_BKZYX.float()) for logits_BKZYX in outputs]
        labels_BZYX = self.ranks.whole(batch.labels_BZYX)
        loss = training_loss(
            self.model,
            outputs,
            labels_BZYX,
            batch.task,
            batch_dice=self.settings.batch_dice,
            annotated=batch.annotated,
            ignored=batch.ignored,
            one_scale=self.one_scale,
        )
        return loss, foreground_counts(outputs[0], labels_BZYX, activation=self.model.activation)


@dataclass(frozen=True)
class StepResult:
    """Loss and norm of its gradient before clipping; `missed`: no foreground predicted, None without any to predict."""

    loss: float
    norm: float
    missed: bool | None


class _Numbers:
    """A few numbers on the device that another step may be started before somebody asks for."""

    def __init__(self, values: Tensor):
        self.values, self.copied = values.to("cpu", non_blocking=True), None
        if values.device.type == "cuda":
            self.copied = torch.cuda.Event()
            self.copied.record()

    def wait(self) -> list[float]:
        """Return the numbers once the device has them."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.values.tolist()


@dataclass(frozen=True)
class Step:
    """A step that was started, with the learning rate of each group; `Stepper.result` says what it found."""

    batch: _Batch
    rates: list[float]
    numbers: _Numbers


class Stepper:
    """Moves a model step by step; a step that is not finite in a lower precision is repeated in float32.

    late: whether a result is best asked for after the next step was started.

    Args:
        model: the network, or the objective, on its device, its regions compiled where the arithmetic says so.
        optimisation: moves its weights.
        arithmetic: how it computes.
        settings: of the training.
        seed: of the job; seeds what a step draws.
        ranks: this process among those that train the model.
    """

    def __init__(
        self,
        model: SegmentationModel | Objective,
        optimisation: Optimisation,
        arithmetic: Arithmetic,
        settings: Training,
        *,
        seed: int,
        ranks: Ranks = ALONE,
    ):
        loss = _LossOfBatch(model, settings, ranks, seed=seed, compiled=arithmetic.compiled)
        self.ranks, self.loss = ranks, ranks.in_parallel(loss)
        self.model, self.optimisation, self.arithmetic = model, optimisation, arithmetic
        self.settings, self.seed = settings, seed
        self.scaler = torch.amp.GradScaler(arithmetic.device.type, enabled=arithmetic.precision == "float16")
        self.late = arithmetic.late
        self.repeats = 0
        norms = (module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._NormBase))
        self._statistics = [buffer for module in norms for buffer in module.buffers(recurse=False)]

    def step(
        self,
        images_BCZYX: Tensor,
        labels_BZYX: Tensor,
        task: Task,
        *,
        number: int,
        rate_factor: float = 1.0,
        annotated: Annotated = (),
        ignored: bool | None = None,
    ) -> Step:
        """Move the weights by one batch, unless its loss or gradient is not finite.

        Args:
            images_BCZYX: patches of this process's own samples of the batch, on the device.
            labels_BZYX: their labels, on the device.
            task: the batch's task.
            number: of the step; seeds what the step draws.
            rate_factor: multiplies the learning rate of this step.
            annotated: per sample of the whole batch the class values that were looked for in its case, None for all;
                empty for all of all.
            ignored: whether any label of the whole batch is `IGNORED`; None looks, for which a GPU is waited for.

        Returns:
            What `result` needs, which is to be called for every step, in their order.
        """
        batch = _Batch(images_BCZYX, labels_BZYX, task, annotated, ignored, number)
        values, finite = self._attempt(self.arithmetic, batch)
        rates = [group["lr"] * rate_factor for group in self.optimisation.optimiser.param_groups]
        step = Step(batch, rates, _Numbers(values))
        if self.late:
            self._move(rates, where=finite)
        elif _finite(_result(step.numbers)):
            if self.scaler.is_enabled():
                self.scaler.update()
            self._move(rates)
        return step

    def result(self, step: Step) -> StepResult:
        """Return what a step found, always finite; one that was not in a lower precision is repeated in float32 now.

        In float16 it is first repeated with half the scale of the loss, which grows until the gradient overflows.

        Raises:
            Diverged: loss or gradient is not finite in float32; no weight was moved.
        """
        result = _result(step.numbers)
        if not _finite(result) and self.scaler.is_enabled():
            self.scaler.update()
            result = self._again(self.arithmetic, step)
            self.scaler.update()
        if not _finite(result) and self.arithmetic.precision != "float32":
            self.repeats += 1
            if self.repeats <= REPEATS_LOGGED:
                log.warning(
                    "step %d of %s is not finite in %s: repeated in float32",
                    step.batch.number,
                    step.batch.task.name,
                    self.arithmetic.precision,
                )
            result = self._again(self.arithmetic.in_float32(), step)
        if _finite(result):
            return result
        self.optimisation.zero_grad()
        what = "loss" if not math.isfinite(result.loss) else "norm of the gradient"
        raise Diverged(what, result.loss if what == "loss" else result.norm)

    def _again(self, arithmetic: Arithmetic, step: Step) -> StepResult:
        """Take a step again; the weights move where it is finite now."""
        values, _ = self._attempt(arithmetic, step.batch)
        result = _result(_Numbers(values))
        if _finite(result):
            self._move(step.rates, again=self.late)
        return result

    def _attempt(self, arithmetic: Arithmetic, batch: _Batch) -> tuple[Tensor, Tensor]:
        """Return loss, norm and counts, and whether the first two are finite, without a wait for the device.

        The clipped gradient is left in the parameters; statistics of norms are what they were where it is not finite.
        """
        scaled = arithmetic.precision == "float16"
        before = [buffer.clone() for buffer in self._statistics]
        self.optimisation.zero_grad()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for("step", self.seed, batch.number))
            loss, counts = self.loss(arithmetic, batch)
            summed = loss * self.ranks.size if self.ranks.size > 1 else loss  # gradients are averaged over processes
            (self.scaler.scale(summed) if scaled else summed).backward()
        if scaled:
            self.scaler.unscale_(self.optimisation.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip or math.inf)
        values = torch.stack([loss.detach().float(), norm.float()])
        finite = values.isfinite().all()
        for buffer, value in zip(self._statistics, before, strict=True):
            buffer.copy_(torch.where(finite, buffer, value))
        return torch.cat([values, counts]), finite

    def _move(self, rates: Sequence[float], *, where: Tensor | None = None, again: bool = False) -> None:
        """Move the weights with these rates; averages and teachers follow once a step, not when it is taken again."""
        groups = self.optimisation.optimiser.param_groups
        kept = [group["lr"] for group in groups]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        self.optimisation.step(where=where, again=again)
        for group, rate in zip(groups, kept, strict=True):
            group["lr"] = rate
        if isinstance(self.model, Objective) and not again:
            self.model.after_step()

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimiser, scale of the loss and count of repeats."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimisation.state_dict(),
            "scaler": self.scaler.state_dict(),
            "repeats": self.repeats,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of the same job."""
        self.model.load_state_dict(state["model"])
        self.optimisation.load_state_dict(state["optimiser"])
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.repeats = state["repeats"]


def _result(numbers: _Numbers) -> StepResult:
    loss, norm, *counts = numbers.wait()
    return StepResult(loss, norm, None if not counts or not counts[0] else not counts[1])


def _finite(result: StepResult) -> bool:
    return math.isfinite(result.loss) and math.isfinite(result.norm)
