"""The training loop: one job, one model, one device; the final weights are what is scored.

The recipe says how the weights move (`training.optimisation`). No case selects anything: there is no early stopping,
and the Dice of held-out training cases, where it is measured (`training.validation`), is only reported; but that of a
trial (`training.tuning`) chooses a learning rate. A state is kept
beside the declared outputs, so that a killed job continues and ends with the same weights. Self-supervised objectives
go through the same loop, without labels and with losses of their own.
"""

from __future__ import annotations

import copy
import csv
import io
import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from models.flops import forward_flops
from models.interface import NetworkSpec, SegmentationModel
from models.loader import build_model
from models.weights.conventions import InConvention
from segbench.core.errors import RunFailed
from segbench.core.files import remove_abandoned_parts, sha256_of, write_text
from segbench.core.paths import TRAINING_LOG, WEIGHTS
from segbench.core.progress import Progress
from segbench.core.seeds import seed_for
from segbench.core.signals import SaveSignals
from segbench.core.task import IGNORED
from segbench.experiment.config import Network
from segbench.experiment.context import JobContext
from segbench.experiment.identity import Identity
from segbench.experiment.result_record import forget_result
from segbench.training import checkpoint
from segbench.training.compilation import compile_regions, pays, why_not
from segbench.training.conventions import convention_of
from segbench.training.data import BatchStream
from segbench.training.diagnostics import diagnostic_steps, record_diagnostics
from segbench.training.distributed import ALONE, Ranks
from segbench.training.guards import DeadOutput, Diverged, DivergedAgain
from segbench.training.initialise import initialise
from segbench.training.objective import Objective, build_objective
from segbench.training.optimisation import Optimisation
from segbench.training.precision import chosen_arithmetic
from segbench.training.step import Step, Stepper

if TYPE_CHECKING:
    from segbench.training.validation import Validation

LOG_ROWS = 200
GOOD_EVERY = 50
"""Steps between the states to which a training that diverges goes back. They do not depend on when a state is saved."""
RETRIES = 1
LOWER_RATE = 0.5
Watch = Callable[[int, str, float, float], object]
"""Is called with step, task, mean loss since the row before, and learning rate."""
log = logging.getLogger(__name__)


@dataclass
class Progression:
    """What changes from step to step, beside weights and optimiser, and is stored to resume.

    seconds: of training; waiting_seconds: those of them in which the next batch was not ready yet. rows, window: of the
    log. rate_factor: multiplies the learning rate. dead: see `DeadOutput`. retries: each divergence with its cases.
    attempts: device, precision, threads and versions of each process that trained, with its first step. diagnostics:
    see `record_diagnostics`. validation: step -> mean Dice of each task on held-out cases; seen_dice: that on cases
    that were trained on, at the end; validation_seconds: what both took, beside `seconds`.
    """

    step: int = 0
    seconds: float = 0.0
    waiting_seconds: float = 0.0
    rows: list[list[Any]] = field(default_factory=list)
    window: list[float] = field(default_factory=list)
    rate_factor: float = 1.0
    dead: dict[str, int] = field(default_factory=dict)
    retries: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    diagnostics: dict[str, dict[str, Any]] = field(default_factory=dict)
    validation: dict[int, list[float | None]] = field(default_factory=dict)
    seen_dice: list[float | None] = field(default_factory=list)
    validation_seconds: float = 0.0


def network_spec(network: Network) -> NetworkSpec:
    """Return a size of the config as a network is built with it."""
    return NetworkSpec(**network.model_dump())


def new_model(context: JobContext, *, scaled: bool = True) -> SegmentationModel | Objective:
    """Build the job's network, or objective, with random weights from the repetition's named axis.

    Args:
        context: the job. Where its pre-trained weights expect other axes or intensities, images are converted.
        scaled: whether intensities are converted, for which preprocessed cases may be needed.
    """
    entry, spec = context.config.model_entry(context.job.model), network_spec(context.network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", context.job.seed))
        if context.job.self_supervised:
            return build_objective(entry.name, context.tasks, spec, **context.options)
        convention = convention_of(context, scaled=scaled)
        if convention is None:
            return build_model(entry.name, context.tasks, spec, **context.options)
        network = build_model(entry.name, context.tasks, convention.spec(spec), **context.options)
        return InConvention(network, spec, convention)


def train(
    context: JobContext, *, device: torch.device, workers: int = 0, ranks: Ranks = ALONE, watch: Watch | None = None
) -> dict[str, Any]:
    """Train one job to its end and write weights.pt and log.csv, which the first of several processes does.

    The resumable state stays where it is: whoever writes the outcome removes it afterwards.

    Args:
        context: the job.
        device: where the network is.
        workers: processes that load and augment patches; 0 for this one.
        ranks: this process among those that train the job.
        watch: called with each row of the log.

    Returns:
        Facts for the outcome.

    Raises:
        MemoryError: a process that loads patches died.
        RunFailed: the loss, or the norm of its gradient, is not finite, from the last good state with half the rate as
            well; the message names the step and the cases. Or the job has trained for longer than its time limit.
    """
    training = TrainingRun(context, device, ranks=ranks, watch=watch)
    training.run(workers)
    if ranks.rank > 0:
        return training.facts()
    folder = context.train_folder
    forget_result(folder)
    weights = {name: tensor.cpu().contiguous() for name, tensor in training.optimisation.scored_weights().items()}
    checkpoint.save(folder / WEIGHTS, weights)
    _write_log(folder / TRAINING_LOG, training.progression.rows)
    return training.facts() | {"weights_sha256": sha256_of(folder / WEIGHTS)}


class TrainingRun:
    """The training of one job in this process, from its newest state if there is one.

    Args:
        context: the job.
        device: where the network is.
        initialised: whether it starts from the job's pre-trained weights; a measurement of speed does not need them.
        ranks: this process among those that train the job.
        watch: called with each row of the log.
    """

    def __init__(
        self,
        context: JobContext,
        device: torch.device,
        *,
        initialised: bool = True,
        ranks: Ranks = ALONE,
        watch: Watch | None = None,
    ):
        self.context, self.settings, self.ranks, self.watch = context, context.training, ranks, watch
        self.arithmetic = chosen_arithmetic(self.settings, device)
        self.model = new_model(context)
        self.match, self.forward_flops = None, 0  # those of an objective differ from step to step
        if isinstance(self.model, SegmentationModel):
            self.match = initialise(context, self.model) if initialised else None
            self.forward_flops = forward_flops(self.model, context.network.patch_size_zyx)
        self.model.to(device=device, memory_format=self.arithmetic.memory_format).train()  # type: ignore[call-overload]
        self.stream = BatchStream(context, ranks.samples(self.settings.batch_size))
        self.diagnostic_steps = diagnostic_steps(len(self.stream))
        self.optimisation = Optimisation(self.model, self.settings, len(self.stream), fused=self.arithmetic.late)
        ranks.share_statistics(self.model, device)  # the optimisation's average is a copy, which is not shared
        self._compile_if_it_pays()
        self.stepper = Stepper(
            self.model, self.optimisation, self.arithmetic, self.settings, seed=context.job.seed, ranks=ranks
        )
        self.validation = self._validation()
        self.state_path = context.train_state / "state.pt"
        self.progression = Progression()
        self.good: dict[str, Any] = {}
        self.started: deque[_Started] = deque()
        self.loss: float | None = None
        state = ranks.first_then_others(self._newest_state)
        if state is not None:
            self._restore(state)
            self.good = state["good"]
            log.info("continue at step %d", self.progression.step)
        self._note_attempt()
        self.dead = DeadOutput(self.progression.dead)

    def _validation(self) -> Validation | None:
        """Return what measures Dice on held-out cases, None for a job without any."""
        if self.context.job.self_supervised or not self.settings.validation_fraction:
            return None
        from segbench.training.validation import Validation  # and scipy with it, which a training does without

        arithmetic = self.arithmetic
        return Validation(self.context, len(self.stream), precision=arithmetic.precision, compiled=arithmetic.compiled)

    def _compile_if_it_pays(self) -> None:
        samples = len(self.ranks.samples(self.settings.batch_size))
        voxels, steps = samples * prod(self.context.network.patch_size_zyx), len(self.stream)
        if pays(self.arithmetic.device, self.arithmetic.mode, voxels=voxels, steps=steps):
            if reason := why_not():
                log.warning("the network is not compiled: %s", reason)
                return
            self.arithmetic = replace(self.arithmetic, compiled=compile_regions(self.model) > 0)

    def _newest_state(self) -> dict[str, Any] | None:
        remove_abandoned_parts(self.state_path.parent)
        return checkpoint.load_state(self.state_path, self.context.identity)

    def run(self, workers: int) -> None:
        """Take the steps that are left; see `train` for what is raised."""
        title = f"train {self.context.job.id}"
        with (
            SaveSignals() as signals,
            self.arithmetic.switched_on(),
            Progress(total=len(self.stream), start=self.progression.step, title=title, unit="step") as progress,
        ):
            while self.progression.step < len(self.stream):
                try:
                    self._run_to_end(workers, progress, signals)
                except _Retry as retry:
                    self._go_back(retry)
                    progress.go_back_to(self.progression.step)
                except RuntimeError as error:
                    if "DataLoader worker" not in str(error):
                        raise
                    signals.raise_if_ended()  # the signal reached the workers as well
                    raise MemoryError("a process that loads patches died, perhaps for lack of memory") from error

    def facts(self) -> dict[str, Any]:
        """Return what the outcome says of this training."""
        progression, identity = self.progression, self.context.identity
        trained = (value.numel() for value in self.model.parameters() if value.requires_grad)
        patches = progression.step * self.settings.batch_size
        validation = {}
        if self.validation is not None:
            measured = self.validation.record(progression.validation, progression.seen_dice)
            validation = {"validation": measured | {"seconds": round(progression.validation_seconds, 3)}}
        return {
            "train_seconds": round(progression.seconds, 3),
            "waiting_fraction": round(progression.waiting_seconds / max(progression.seconds, 1e-9), 4),
            "patches_per_second": round(patches / max(progression.seconds, 1e-9), 3),
            "iterations": len(self.stream),
            "parameters": sum(trained),
            "forward_flops": self.forward_flops,
            "training_code": identity.parts["training code"],
            "model_code": identity.parts["model code"],
            "match": self.match,
            "device": str(self.arithmetic.device),
            "mode": self.arithmetic.mode,
            "precision": self.arithmetic.precision,
            "float32_repeats": self.stepper.repeats,
            "retries": progression.retries,
            "dead_output": self.dead.report(),
            "attempts": progression.attempts,
        } | {**progression.diagnostics, **validation}

    def _run_to_end(self, workers: int, progress: Progress, signals: SaveSignals) -> None:
        total, tasks = len(self.stream), list(self.model.tasks)
        self._observe()
        last_time = last_save = time.monotonic()
        for waited, (position, images_BCZYX, labels_BZYX, case_ids) in _timed(
            self.stream.loader(self.progression.step, workers, pinned=self.arithmetic.device.type == "cuda")
        ):
            step = self.progression.step
            if step % GOOD_EVERY == 0:
                self._settle()
                self.good = self._snapshot()
            (ignored,) = self.ranks.agreed(bool((labels_BZYX == IGNORED).any()))  # before the device has them
            images_BCZYX = self.arithmetic.to_device(images_BCZYX, self.arithmetic.memory_format)
            labels_BZYX, task = self.arithmetic.to_device(labels_BZYX), tasks[position]
            taken = self.stepper.step(
                images_BCZYX,
                labels_BZYX,
                task,
                number=step,
                rate_factor=self.progression.rate_factor,
                annotated=self.stream.annotated(position, case_ids),
                ignored=ignored,
            )
            self.started.append(_Started(taken, task.name, case_ids))
            self._settle(but=1 if self.stepper.late and not self._is_looked_at(step + 1) else 0)
            now = time.monotonic()
            self.progression.seconds += now - last_time
            self.progression.waiting_seconds += waited
            last_time = now
            self._count(task.name)
            self._observe()
            if self._validate():
                last_time = time.monotonic()
            progress.advance("" if self.loss is None else f"loss {self.loss:.3f}")
            asked = signals.asked_to_save or now - last_save > self.settings.save_every_seconds
            late, ended, asked = self.ranks.agreed(self._over_time(), signals.ended_by is not None, asked)
            if late or ended or asked:
                self._settle()
                self.save()
                signals.asked_to_save = False
                last_save = last_time = time.monotonic()
            if ended:
                signals.raise_if_ended()
                raise SystemExit(128 + signal.SIGTERM)  # another process of this job got it
            if late and self.progression.step < total:
                raise RunFailed(
                    f"{self.context.job.id} has trained for {self._counted_seconds() / 3600:.2f} hours, more than "
                    f"training.time_limit_hours; its state is kept at step {self.progression.step} of {total}"
                )

    def _is_looked_at(self, step: int) -> bool:
        """Return whether a row is logged, or weights are looked at, after so many steps."""
        validated = self.validation is not None and step in self.validation.steps
        return self._has_row(step) or step in self.diagnostic_steps or validated

    def _has_row(self, step: int) -> bool:
        total = len(self.stream)
        return step % max(1, total // LOG_ROWS) == 0 or step == total

    def _settle(self, *, but: int = 0) -> None:
        """Look at what the steps found that were started, but for the latest ones."""
        while len(self.started) > but:
            taken, task, case_ids = self.started.popleft()
            try:
                result = self.stepper.result(taken)
            except Diverged as error:
                raise self._retry_or_fail(error, taken.batch.number, case_ids) from error
            self.dead.see(task, result.missed)
            self.progression.window.append(result.loss)
            self.loss = result.loss

    def _count(self, task: str) -> None:
        """Note a step that was taken, and set the rate of the next one."""
        progression, rate = self.progression, self.optimisation.learning_rate * self.progression.rate_factor
        self.optimisation.advance()
        progression.step += 1
        if self._has_row(progression.step):
            mean = sum(progression.window) / len(progression.window)
            progression.rows.append([progression.step, task, mean, rate, round(progression.seconds, 3)])
            progression.window.clear()
            if self.watch is not None:
                self.watch(progression.step, task, mean, rate)

    def _observe(self) -> None:
        """Record what is due after the steps so far; what was recorded before stays as it is."""
        model, progression = self.optimisation.scored_model, self.progression
        if isinstance(model, SegmentationModel) and progression.step in self.diagnostic_steps:
            record_diagnostics(progression.diagnostics, model, progression.step)

    def _validate(self) -> bool:
        """Measure the Dice of held-out cases where it is due after the steps so far; return whether it was."""
        progression, model = self.progression, self.optimisation.scored_model
        if self.validation is None or progression.step not in self.validation.steps:
            return False
        assert isinstance(model, SegmentationModel), "an objective measures no Dice"
        began = time.monotonic()
        progression.validation[progression.step] = self.validation.measure(model)
        if progression.step == len(self.stream):
            progression.seen_dice = self.validation.measure_seen(model)
        progression.validation_seconds += time.monotonic() - began
        return True

    def _over_time(self) -> bool:
        limit = self.settings.time_limit_hours
        return limit is not None and self._counted_seconds() > 3600 * limit

    def _counted_seconds(self) -> float:
        return self.context.charged_seconds + self.progression.seconds

    def _retry_or_fail(self, error: Diverged, step: int, case_ids: Sequence[str]) -> Exception:
        text = f"{error} at step {step} of {self.context.job.id}, cases {', '.join(case_ids)}"
        if len(self.progression.retries) >= RETRIES:
            return DivergedAgain(text)
        return _Retry({"step": step, "reason": str(error), "cases": list(case_ids)}, text)

    def _go_back(self, retry: _Retry) -> None:
        """Continue from the last good state with a lower rate; time and history of this process stay counted."""
        now = self.progression
        self.started.clear()
        self._restore(self.good)
        for name in ("seconds", "waiting_seconds", "validation_seconds", "attempts"):
            setattr(self.progression, name, getattr(now, name))
        self.progression.retries = [*now.retries, retry.facts]
        self.progression.rate_factor = now.rate_factor * LOWER_RATE
        self.dead = DeadOutput(self.progression.dead)
        self.good = self._snapshot()
        text = "%s; tried again from step %d with %g of the learning rate"
        log.warning(text, retry, self.progression.step, self.progression.rate_factor)

    def _snapshot(self) -> dict[str, Any]:
        return copy.deepcopy({"trained": self.stepper.state_dict(), "progression": asdict(self.progression)})

    def _restore(self, state: dict[str, Any]) -> None:
        self.stepper.load_state_dict(copy.deepcopy(state["trained"]))
        self.progression = Progression(**copy.deepcopy(state["progression"]))

    def save(self) -> bool:
        """Write the resumable state, which the first of several processes does; return whether there was room."""
        if self.ranks.rank > 0:
            return True
        current = {"trained": self.stepper.state_dict(), "progression": asdict(self.progression)}
        identity: Identity = self.context.identity
        return checkpoint.save_state(self.state_path, current | {"identity": identity.to_dict(), "good": self.good})

    def _note_attempt(self) -> None:
        """Record what this process computes with, and warn when the bytes may differ from those of one process."""
        attempts = self.progression.attempts
        own = {
            "device": _device_name(self.arithmetic.device),
            "mode": self.arithmetic.mode,
            "precision": self.arithmetic.precision,
            "compiled": self.arithmetic.compiled,
            "threads": torch.get_num_threads(),
            "torch": metadata.version("torch"),
            "processes": self.ranks.size,
        }
        different = [name for name, value in own.items() if attempts and attempts[-1].get(name, value) != value]
        if different and self.arithmetic.mode == "exact":
            log.warning("continued with other %s: not the bytes of one process", ", ".join(different))
        attempts.append({"first_step": self.progression.step} | own)


class _Started(NamedTuple):
    """A step that was started, of a task, with cases, whose result nobody has looked at yet."""

    step: Step
    task: str
    case_ids: Sequence[str]


class _Retry(Exception):
    """Loss or gradient is not finite, and the training may go back once."""

    def __init__(self, facts: dict[str, Any], text: str):
        super().__init__(text)
        self.facts = facts


def _timed(batches: Iterable[Any]) -> Iterator[tuple[float, Any]]:
    """Yield the seconds that each batch was waited for, and the batch."""
    began = time.monotonic()
    for batch in batches:
        yield time.monotonic() - began, batch
        began = time.monotonic()


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def _write_log(path: Path, rows: list[list[Any]]) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["iteration", "task", "loss", "learning_rate", "seconds"])
    writer.writerows([step, task, f"{loss:.6f}", f"{rate:.8f}", seconds] for step, task, loss, rate, seconds in rows)
    write_text(path, stream.getvalue())
