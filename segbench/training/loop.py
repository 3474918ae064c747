"""The training loop: one job, one model, one device; the final weights are what is scored.

SGD with Nesterov momentum, polynomial decay and gradient clipping, as in the released UniSeg trainer. Test cases never
select anything: there is no validation and no early stopping. A state is kept beside the declared outputs, so that a
killed job continues and ends with the same weights. Self-supervised objectives go through the same loop, without labels
and with losses of their own.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.interface import NetworkSpec, SegmentationModel
from models.loader import build_model
from segbench.core.errors import RunFailed
from segbench.core.files import sha256_of, write_text
from segbench.core.progress import Progress
from segbench.core.seeds import seed_for
from segbench.core.task import Task
from segbench.experiment.config import Config, Training
from segbench.experiment.context import JobContext
from segbench.experiment.identity import Identity
from segbench.experiment.jobs import Job
from segbench.experiment.result_record import forget_result
from segbench.training import checkpoint
from segbench.training.data import BatchStream
from segbench.training.initialise import initialise
from segbench.training.losses import training_loss
from segbench.training.objective import Objective, build_objective

LOG_ROWS = 200
MEMORY_FORMAT = torch.channels_last_3d  # a fifth faster here on a processor, the same arithmetic
log = logging.getLogger(__name__)


@dataclass
class Progression:
    """What changes from step to step, and is stored to resume."""

    step: int = 0
    seconds: float = 0.0
    rows: list[list[Any]] = field(default_factory=list)
    window: list[float] = field(default_factory=list)


def network_spec(config: Config) -> NetworkSpec:
    """Return the network size that the config states."""
    return NetworkSpec(**config.network.model_dump())


def new_model(context: JobContext) -> SegmentationModel | Objective:
    """Build the job's network, or objective, with random weights from the repetition's named axis."""
    entry = context.config.model_entry(context.job.model)
    build = build_objective if context.job.self_supervised else build_model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", context.job.seed))
        return build(entry.name, context.tasks, network_spec(context.config), **entry.options)


def learning_rate(initial: float, step: int, total: int, exponent: float) -> float:
    """Return the polynomial decay initial * (1 - step / total) ** exponent; the first step has the initial rate."""
    return initial * (1 - step / total) ** exponent


def train(context: JobContext, *, device: torch.device, workers: int = 0) -> dict[str, Any]:
    """Train one job to its end and write weights.pt and log.csv.

    The resumable state stays where it is: whoever writes the outcome removes it afterwards.

    Args:
        context: the job.
        device: where the network is.
        workers: processes that load and augment patches; 0 for this one.

    Returns:
        Facts for the outcome.

    Raises:
        RunFailed: the loss, or the norm of its gradient, is not finite; the message names the step and the cases.
    """
    model = new_model(context)
    match = initialise(context, model) if isinstance(model, SegmentationModel) else None
    model.to(device=device, memory_format=MEMORY_FORMAT).train()  # type: ignore[call-overload]
    settings = context.training
    optimiser = torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=settings.initial_learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )
    state_path = context.paths.state("train", context.job.id) / "state.pt"
    progression = _resume(state_path, context.identity, model, optimiser)
    stream = BatchStream(context)
    _run_steps(context, model, optimiser, stream, progression, state_path, device, workers)
    folder = context.train_folder
    forget_result(folder)
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    checkpoint.save(folder / "weights.pt", weights)
    _write_log(folder / "log.csv", progression.rows)
    return {
        "train_seconds": round(progression.seconds, 3),
        "iterations": len(stream),
        "parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "training_code": context.identity.parts["training code"],
        "model_code": context.identity.parts["model code"],
        "weights_sha256": sha256_of(folder / "weights.pt"),
        "match": match,
        "device": str(device),
    }


def _resume(
    path: Path, identity: Identity, model: SegmentationModel | Objective, optimiser: torch.optim.Optimizer
) -> Progression:
    state = checkpoint.load_state(path, identity)
    if state is None:
        return Progression()
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    log.info("continue at step %d", state["step"])
    return Progression(state["step"], state["seconds"], state["rows"], state["window"])


def _run_steps(
    context: JobContext,
    model: SegmentationModel | Objective,
    optimiser: torch.optim.Optimizer,
    stream: BatchStream,
    progression: Progression,
    state_path: Path,
    device: torch.device,
    workers: int,
) -> None:  # one flat loop, so that every quantity of a step is seen in one place
    settings, job = context.training, context.job
    total = len(stream)
    row_every = max(1, total // LOG_ROWS)
    last_time = last_save = time.monotonic()
    with Progress(total=total, start=progression.step, title=f"train {job.id}", unit="step") as progress:
        for position, images_BCZYX, labels_BZYX, case_ids in stream.loader(progression.step, workers):
            step, task = progression.step, list(model.tasks)[position]
            rate = learning_rate(settings.initial_learning_rate, step, total, settings.poly_exponent)
            for group in optimiser.param_groups:
                group["lr"] = rate
            images_BCZYX = images_BCZYX.to(device, memory_format=MEMORY_FORMAT)
            loss, norm = _step(model, optimiser, images_BCZYX, labels_BZYX.to(device), task, settings, job, step)
            for name, value in {"loss": loss, "norm of the gradient": norm}.items():
                if not math.isfinite(value):
                    raise RunFailed(f"the {name} is {value} at step {step} of {job.id}, cases {', '.join(case_ids)}")
            now = time.monotonic()
            progression.seconds += now - last_time
            last_time = now
            progression.step += 1
            progression.window.append(loss)
            if progression.step % row_every == 0 or progression.step == total:
                mean = sum(progression.window) / len(progression.window)
                progression.rows.append([progression.step, task.name, mean, rate, round(progression.seconds, 3)])
                progression.window.clear()
            progress.advance(f"loss {loss:.3f}")
            if now - last_save > settings.save_every_seconds:
                _save_state(state_path, context.identity, model, optimiser, progression)
                last_save = last_time = time.monotonic()


def _step(
    model: SegmentationModel | Objective,
    optimiser: torch.optim.Optimizer,
    images_BCZYX: Tensor,
    labels_BZYX: Tensor,
    task: Task,
    settings: Training,
    job: Job,
    step: int,
) -> tuple[float, float]:
    """Return the loss and the norm of its gradient before clipping; the weights move only when both are finite."""
    optimiser.zero_grad(set_to_none=True)
    autocast = torch.autocast(images_BCZYX.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("step", job.seed, step))
        if isinstance(model, Objective):
            with autocast:
                loss = model(images_BCZYX, np.random.default_rng(seed_for("views", job.seed, step)))
        else:
            with autocast:
                outputs = model(images_BCZYX, task)
            loss = training_loss(model, outputs, labels_BZYX, task, batch_dice=settings.batch_dice)
        value = loss.item()
        if not math.isfinite(value):
            return value, 0.0
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip).item()
        if math.isfinite(norm):
            optimiser.step()
            if isinstance(model, Objective):
                model.after_step()
    return value, norm


def _save_state(
    path: Path,
    identity: Identity,
    model: SegmentationModel | Objective,
    optimiser: torch.optim.Optimizer,
    progression: Progression,
) -> None:
    checkpoint.save(
        path,
        {
            "identity": identity.to_dict(),
            "model": model.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": progression.step,
            "seconds": progression.seconds,
            "rows": progression.rows,
            "window": progression.window,
        },
    )


def _write_log(path: Path, rows: list[list[Any]]) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["iteration", "task", "loss", "learning_rate", "seconds"])
    writer.writerows([step, task, f"{loss:.6f}", f"{rate:.8f}", seconds] for step, task, loss, rate, seconds in rows)
    write_text(path, stream.getvalue())
