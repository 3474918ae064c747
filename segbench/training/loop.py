"""The training loop: one job, one model, one device; the final weights are what is scored.

SGD with Nesterov momentum, polynomial decay and gradient clipping, as in the released UniSeg trainer. Test cases never
select anything: there is no validation and no early stopping. A state is kept beside the declared outputs, so that a
killed job continues and ends with the same weights. Self-supervised objectives walk the same loop, without labels and
with losses of their own.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from models.interface import NetworkSpec, SegmentationModel
from models.loader import build_model
from segbench.core.cards import code_of
from segbench.core.errors import RunFailed
from segbench.core.files import sha256_of, write_text
from segbench.core.paths import RunPaths
from segbench.core.progress import Progress
from segbench.core.provenance import TRAINING_CODE, code_fingerprint
from segbench.core.seeds import seed_for
from segbench.experiment.config import Config
from segbench.experiment.jobs import Job, settings_hash
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
    rows: list[list] = field(default_factory=list)
    window: list[float] = field(default_factory=list)


def network_spec(config: Config) -> NetworkSpec:
    """Return the network size that the config states."""
    return NetworkSpec(**config.network.model_dump())


def new_model(config: Config, job: Job) -> SegmentationModel | Objective:
    """Build the job's network, or objective, with random weights from the repetition's named axis."""
    entry = config.model_entry(job.model)
    build = build_objective if job.self_supervised else build_model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", job.seed))
        return build(entry.name, job.tasks(config), network_spec(config), **entry.options)


def learning_rate(initial: float, step: int, total: int, exponent: float) -> float:
    """Return the polynomial decay initial * (1 - step / total) ** exponent."""
    return initial * (1 - step / total) ** exponent


def train(config: Config, job: Job, *, device: torch.device, workers: int = 0) -> dict:
    """Train one job to its end and return facts for its outcome; weights.pt and log.csv are written on success.

    Raises RunFailed when the loss is not finite, naming the step and the cases.
    """
    paths = RunPaths(config.run)
    codes = _codes(config, job)
    identity = "-".join([settings_hash(config, job, scoring=False), *codes.values()])
    model = new_model(config, job)
    match = initialise(config, job, model)
    model.to(device=device, memory_format=MEMORY_FORMAT).train()
    recipe = config.training_of(job.experiment)
    optimiser = torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=recipe.initial_learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )
    state_path = paths.state("train", job.id) / "state.pt"
    progression = _resume(state_path, identity, model, optimiser)
    stream = BatchStream(config, job, model.tasks)
    _run_steps(config, job, model, optimiser, stream, progression, state_path, identity, device, workers)
    folder = paths.train(job.id)
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    checkpoint.save(folder / "weights.pt", weights)
    _write_log(folder / "log.csv", progression.rows)
    state_path.unlink(missing_ok=True)
    return {
        "train_seconds": round(progression.seconds, 3),
        "iterations": len(stream),
        "parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        **codes,
        "weights_sha256": sha256_of(folder / "weights.pt"),
        "match": match,
        "device": str(device),
    }


def _codes(config: Config, job: Job) -> dict[str, str]:
    """Return fingerprints of the code that trains every job, and of the files of this model or objective."""
    own = code_of(config.model_entry(job.model).name, objective=job.self_supervised)
    return {"training_code": code_fingerprint(TRAINING_CODE), "method_code": code_fingerprint([own])}


def _resume(path: Path, identity: str, model: SegmentationModel, optimiser) -> Progression:
    state = checkpoint.load_state(path, identity)
    if state is None:
        return Progression()
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    log.info("continue at step %d", state["step"])
    return Progression(state["step"], state["seconds"], state["rows"], state["window"])


def _run_steps(
    config, job, model, optimiser, stream, progression, state_path, identity, device, workers
) -> None:  # one flat loop, so that every quantity of a step is seen in one place
    recipe = config.training_of(job.experiment)
    total = len(stream)
    row_every = max(1, total // LOG_ROWS)
    last_time = last_save = time.monotonic()
    with Progress(total=total, start=progression.step, title=f"train {job.id}", unit="step") as progress:
        for position, images_BCZYX, labels_BZYX, case_ids in stream.loader(progression.step, workers):
            step, task = progression.step, list(model.tasks)[position]
            rate = learning_rate(recipe.initial_learning_rate, step, total, recipe.poly_exponent)
            for group in optimiser.param_groups:
                group["lr"] = rate
            images_BCZYX = images_BCZYX.to(device, memory_format=MEMORY_FORMAT)
            loss = _step(model, optimiser, images_BCZYX, labels_BZYX.to(device), task, recipe, job, step)
            if not math.isfinite(loss):
                raise RunFailed(f"the loss is {loss} at step {step} of {job.id}, cases {', '.join(case_ids)}")
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
            if now - last_save > recipe.save_every_seconds:
                _save_state(state_path, identity, model, optimiser, progression)
                last_save = last_time = time.monotonic()


def _step(model, optimiser, images_BCZYX, labels_BZYX, task, recipe, job, step: int) -> float:
    optimiser.zero_grad(set_to_none=True)
    autocast = torch.autocast(images_BCZYX.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("step", job.seed, step))
        if job.self_supervised:
            with autocast:
                loss = model(images_BCZYX, np.random.default_rng(seed_for("views", job.seed, step)))
        else:
            with autocast:
                outputs = model(images_BCZYX, task)
            loss = training_loss(model, outputs, labels_BZYX, task)
        value = loss.item()
        if math.isfinite(value):
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
            optimiser.step()
            if job.self_supervised:
                model.after_step()
    return value


def _save_state(path: Path, identity: str, model, optimiser, progression: Progression) -> None:
    checkpoint.save(
        path,
        {
            "identity": identity,
            "model": model.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": progression.step,
            "seconds": progression.seconds,
            "rows": progression.rows,
            "window": progression.window,
        },
    )


def _write_log(path: Path, rows: list[list]) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["iteration", "task", "loss", "learning_rate", "seconds"])
    writer.writerows([step, task, f"{loss:.6f}", f"{rate:.8f}", seconds] for step, task, loss, rate, seconds in rows)
    write_text(path, stream.getvalue())
