"""The recipe `tuned`: one short trial for each learning rate of a grid, then the training at the rate that does best.

A trial is a training of the same loop with the steps of `training.tuning`, without those training cases that score it
at its end as validation cases. The training that follows sees all training cases. Test cases are on neither side. What
trials cost is part of what the job costs. A finished trial is kept beside the resumable state, so that a killed job
goes on with the next one.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch

from segbench.core.errors import RunFailed, short
from segbench.core.files import write_json
from segbench.core.provenance import content_hash
from segbench.experiment.config import Training
from segbench.experiment.context import JobContext
from segbench.experiment.identity import Identity, part, training_part
from segbench.training.distributed import ALONE, Ranks
from segbench.training.guards import DivergedAgain
from segbench.training.loop import TrainingRun, Watch, train

FOLDER = "tuning"
"""Folder of the trials within the job's resumable state."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """What one learning rate of the grid reached.

    dice: task -> mean Dice (0 to 1) as `Validation` measures it, None where no structure counts; empty when it
    diverged. seconds, iterations: what it cost, its scores included. retries: how often it went on with half the rate.
    reason: why it diverged.
    """

    learning_rate: float
    dice: dict[str, float | None] = field(default_factory=dict)
    seconds: float = 0.0
    iterations: int = 0
    retries: int = 0
    reason: str = ""

    @property
    def mean_dice(self) -> float:
        """Mean over the tasks that have a value; -1 for a trial that diverged, which is worse than any other."""
        values = [value for value in self.dice.values() if value is not None]
        return math.fsum(values) / len(values) if values else -1.0


@dataclass(frozen=True)
class AtRate(JobContext):
    """A tuned job at the learning rate that was chosen; its resumable state is that of this rate alone.

    job_context: the job. charged: seconds of its trials.
    """

    job_context: JobContext
    learning_rate: float
    charged: float = 0.0

    @classmethod
    def of_job(cls, context: JobContext, learning_rate: float, charged: float = 0.0) -> Self:
        """Return a job at a learning rate."""
        return cls(context.config, context.job, context, learning_rate, charged)

    @cached_property
    def training(self) -> Training:
        """Settings of the job, with this rate."""
        return self.job_context.training.at_rate(self.learning_rate)

    @property
    def charged_seconds(self) -> float:
        """Seconds of the trials before."""
        return self.charged

    @cached_property
    def identity(self) -> Identity:
        """Identity of the job, and the rate."""
        return Identity({**self.job_context.identity.parts, "learning rate": repr(self.learning_rate)})


@dataclass(frozen=True)
class AsTrial(AtRate):
    """A trial of a tuned job: fewer steps, and the held-out cases left out."""

    @cached_property
    def training(self) -> Training:
        """Settings of the trial."""
        return self.job_context.training.trial(self.learning_rate)

    def training_cases(self, task: str) -> tuple[str, ...]:
        """Return the training cases of the job that do not score the trial."""
        scoring = set(self.validation_cases(task))
        return tuple(case for case in self.job_context.training_cases(task) if case not in scoring)

    def validation_cases(self, task: str) -> tuple[str, ...]:
        """Return the training cases of the job that score the trial."""
        return self.job_context.tuning_cases(task)

    def seen_cases(self, task: str) -> tuple[str, ...]:
        """Return none: what a trial has learnt is not shown."""
        return ()

    @cached_property
    def identity(self) -> Identity:
        """Identity of the trial: other rates of the grid are not part of it."""
        return Identity(
            {
                **self.job_context.identity.parts,
                "training": training_part(self.training),
                "training cases": part(self._addresses(self.training_cases)),
                "validation cases": part(self._addresses(self.validation_cases)),
            }
        )

    @property
    def train_state(self) -> Path:
        """Folder of the resumable state of the trial."""
        return self.job_context.train_state / FOLDER / f"rate_{self.learning_rate!r}"

    @property
    def result(self) -> Path:
        """File that a finished trial leaves."""
        return self.train_state.with_name(f"{self.train_state.name}.json")


def train_tuned(
    context: JobContext, *, device: torch.device, workers: int = 0, ranks: Ranks = ALONE, watch: Watch | None = None
) -> dict[str, Any]:
    """Choose the learning rate, train at it on all training cases, and write weights.pt and log.csv.

    Args:
        context: a job with the recipe `tuned`.
        device: where the network is.
        workers: processes that load and augment patches; 0 for this one.
        ranks: this process among those that train the job.
        watch: called with each row of the log of the training, not of the trials.

    Returns:
        Facts for the outcome as `train` gives them, with `tuning`: trials, chosen rate and the cases that scored them.
        Seconds and iterations are those of the trials and of the training together; speed and what was waited for are
        those of the training.

    Raises:
        MemoryError: a process that loads patches died.
        RunFailed: every trial diverged; no structure counts in the cases that score them; or as in `train`.
    """
    trials = run_trials(context, device=device, workers=workers, ranks=ranks)
    rate = best_rate(context, trials)
    log.info("%s: learning rate %s chosen", context.job.id, rate)
    charged = sum(trial.seconds for trial in trials)
    facts = train(AtRate.of_job(context, rate, charged), device=device, workers=workers, ranks=ranks, watch=watch)
    return facts | {
        "train_seconds": round(facts["train_seconds"] + charged, 3),
        "iterations": facts["iterations"] + sum(trial.iterations for trial in trials),
        "tuning": {
            "learning_rate": rate,
            "trials": [asdict(trial) for trial in trials],
            "cases": {task: list(context.tuning_cases(task)) for task in context.tasks.names},
        },
    }


def best_rate(context: JobContext, trials: Sequence[Trial]) -> float:
    """Return the learning rate of the largest mean Dice, of equal ones the smallest.

    Raises:
        RunFailed: every trial diverged.
    """
    if all(trial.reason for trial in trials):
        raise RunFailed(f"{context.job.id}: every trial of training.tuning diverged; the last one: {trials[-1].reason}")
    return max(trials, key=lambda trial: (trial.mean_dice, -trial.learning_rate)).learning_rate


def run_trials(context: JobContext, *, device: torch.device, workers: int, ranks: Ranks) -> list[Trial]:
    """Return the trials of a job in the order of the grid; those that are finished are not repeated."""
    assert context.training.tuning is not None, "only a tuned training has trials"
    trials: list[Trial] = []
    for rate in context.training.tuning.learning_rates:
        trial = AsTrial.of_job(context, rate, sum(trial.seconds for trial in trials))
        found = read_trial(trial)
        if found is None:
            log.info("%s: trial of the learning rate %s", context.job.id, rate)
            found = _run_trial(trial, device, workers, ranks)
        trials.append(found)
    return trials


def _run_trial(context: AsTrial, device: torch.device, workers: int, ranks: Ranks) -> Trial:
    training, reason = TrainingRun(context, device, ranks=ranks), ""
    try:
        training.run(workers)
    except DivergedAgain as error:
        reason = str(error)
    if not reason and all(value is None for value in training.progression.validation[training.progression.step]):
        raise RunFailed(f"{context.job.id}: no case has a structure to choose the learning rate by")  # in all processes
    return ranks.first_then_others(lambda: read_trial(context) or _finished(context, training, reason))


def _finished(context: AsTrial, training: TrainingRun, reason: str) -> Trial:
    """Keep the result of a trial and remove its resumable state."""
    progression, dice = training.progression, {}
    if not reason:
        dice = dict(zip(context.tasks.names, progression.validation[progression.step], strict=True))
    seconds = round(progression.seconds + progression.validation_seconds, 3)
    trial = Trial(context.learning_rate, dice, seconds, progression.step, len(progression.retries), reason)
    content = {"identity": context.identity.digest, "trial": asdict(trial)}
    write_json(context.result, content | {"sha256": content_hash(content)})
    shutil.rmtree(context.train_state, ignore_errors=True)
    return trial


def read_trial(context: AsTrial) -> Trial | None:
    """Return the result that a finished trial of this very identity left; None without one, or with a damaged one."""
    try:
        content = json.loads(context.result.read_text(encoding="utf-8"))
        own = {name: content[name] for name in ("identity", "trial")}
        if content["sha256"] != content_hash(own):
            raise ValueError("its content does not match its checksum")
        trial = Trial(**own["trial"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s: not used (%s); the trial is repeated", context.result, short(error))
        return None
    if own["identity"] != context.identity.digest:
        log.warning("%s: not used, made from other inputs; the trial is repeated", context.result)
        return None
    return trial
