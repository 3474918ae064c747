"""Train one job of a finished run anew, in a folder of its own, and say what differs from the run.

The workflow's own commands `train` and `evaluate` run in a temporary folder, where everything that they read is a link
to the run: config, splits, manifests, preprocessed cases, data, pre-trained weights. Nothing of the run is changed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.core.code import ROOT
from segbench.core.errors import InputError, Problem, RunFailed, input_error, raise_problems, suggestion
from segbench.core.paths import OUTCOME, RECORD, SCORES, WEIGHTS
from segbench.evaluation.rescore import job_key, key_of_job, row_differences
from segbench.evaluation.rows import Row, read_rows
from segbench.experiment import requests
from segbench.experiment.config import Config
from segbench.experiment.context import JobContext
from segbench.experiment.jobs import Job, training_jobs
from segbench.experiment.result_record import ResultRecord, read_result

COMPUTED_WITH = ("device", "mode", "precision", "threads", "torch")
"""Keys of an attempt in an outcome: where they are equal and the mode is `exact`, weights have the same bytes."""
COPY = "copy results/RUN from where the run was made, with its train folder"


@dataclass(frozen=True)
class Retrained:
    """What became of a training.

    weights: their SHA-256 in the run and now. promised: whether equal bytes are promised; other: what differs of the
    computation, in words, where they are not. differences: one line for each cell of the score table that differs.
    rows: how many rows were compared; 0 for a self-supervised objective, which predicts nothing.
    """

    weights: tuple[str, str]
    promised: bool
    other: str
    differences: Sequence[str]
    rows: int

    @property
    def equal(self) -> bool:
        """Whether weights and rows are those of the run."""
        return self.weights[0] == self.weights[1] and not self.differences


def named_job(config: Config, cell: str) -> Job:
    """Return the training job that a cell names.

    Args:
        config: config of the run.
        cell: the id of a job, with or without the command before it as `status` prints it; or
            METHOD/TASK/SEED, where METHOD is a row's permalink on the page, such as `upstream/dice/uniseg/random`, or
            MODEL/INITIALISATION, or MODEL.

    Raises:
        InputError: no job, or several, of that name; or its training is a command of an external model.
    """
    jobs = {job.id: job for job in training_jobs(config) if not job.external}
    name = cell.strip().removeprefix("#").removeprefix("train ").removeprefix("evaluate ")
    found = [job for job in jobs.values() if job.id == name or _fits(config, job, name.split("/"))]
    if not found:
        expected = "a job that is trained here, or METHOD/TASK/SEED"
        raise input_error("--retrain", found=repr(cell), expected=expected, fix=suggestion(name, jobs))
    if len(found) > 1:
        fix = "name one: " + ", ".join(job.id for job in found)
        raise input_error("--retrain", found=f"{len(found)} jobs named {cell}", expected="one job", fix=fix)
    return found[0]


def _fits(config: Config, job: Job, parts: Sequence[str]) -> bool:
    if parts[0] == job.experiment:  # experiment and metric of a permalink
        parts = parts[2:]
    if len(parts) < 3:
        return False
    *named, seed = parts
    tasks = {job.scope, *(item.name for item in job.tasks(config))}
    method = [part for part in named if part not in tasks]
    is_method = method in ([job.model], [job.model, job.initialisation])
    return is_method and len(method) < len(named) and seed.removeprefix("s") == str(job.seed)


@dataclass(frozen=True)
class _Former:
    """What the run has of a job: the record of its training, and the outcome of it and of its evaluation."""

    record: ResultRecord
    trained: Mapping[str, Any]
    evaluated: Mapping[str, Any]


class Retraining:
    """A training of a finished run that is to be made anew."""

    def __init__(self, context: JobContext):
        """Check that all is there.

        Raises:
            InputError: what the training or its evaluation reads is absent, or is not what the run was made from.
        """
        self.context = context
        self._former = _former(context)
        raise_problems(dict.fromkeys(_absent(context)))

    @property
    def seconds(self) -> float:
        """How long training, prediction and scoring took in the run."""
        former = self._former
        predicted = [former.evaluated.get(name, 0.0) for name in ("predict_seconds", "score_seconds")]
        return float(former.trained.get("train_seconds", 0.0)) + sum(map(float, predicted))

    @property
    def threads(self) -> int:
        """Threads of the run's training: others give other roundings."""
        return int(_computed_with(self._former.trained).get("threads", 1))

    def run(self, rows: Iterable[Row], *, threads: int) -> Retrained:
        """Train and evaluate in a temporary folder, and compare.

        Args:
            rows: the run's score table.
            threads: threads of the numerical libraries.

        Raises:
            RunFailed: the training or the evaluation failed, which it had not in the run.
        """
        context, job = self.context, self.context.job
        with tempfile.TemporaryDirectory(prefix="segbench-retrain-") as name:
            folder = Path(name)
            _link(folder, context)
            trained = self._command(folder, "train", threads)
            record = read_result(folder / context.train_folder)
            assert record is not None, "a training that went well leaves its record"
            own: list[Row] = []
            differences: list[str] = []
            if not job.self_supervised:
                self._command(folder, "evaluate", threads)
                own = [row for row in rows if key_of_job(row) == job_key(job) and row["status"] != "skipped"]
                differences = row_differences(own, read_rows(folder / context.evaluate_folder / SCORES))
        before, now = _computed_with(self._former.trained), _computed_with(trained)
        other = [f"{key} ({now[key]}, was {before.get(key)})" for key in COMPUTED_WITH if before.get(key) != now[key]]
        if not other and now["mode"] != "exact":
            other = [f"mode {now['mode']}"]
        digests = self._former.record.files[WEIGHTS][1], record.files[WEIGHTS][1]
        return Retrained(digests, not other, ", ".join(other), differences, len(own))

    def _command(self, folder: Path, command: str, threads: int) -> dict[str, Any]:
        """Run a command of the workflow in a folder; return the outcome that it wrote."""
        context = self.context
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        arguments = ["--config", str(context.paths.config), "--job", context.job.id, "--threads", str(threads)]
        done = subprocess.run(
            [sys.executable, "-m", "segbench", command, *arguments], cwd=folder, env=os.environ | {"PYTHONPATH": path}
        )
        of_command = context.train_folder if command == "train" else context.evaluate_folder
        outcome = requests.read(folder / of_command / OUTCOME)
        if done.returncode or outcome.get("status") != "ok":
            reason = outcome.get("reason") or f"{command} ended with status {done.returncode}"
            raise RunFailed(f"{context.job.id} could not be made anew: {reason}")
        return outcome


def _former(context: JobContext) -> _Former:
    """Return what the run has of a job.

    Raises:
        InputError: the job has no finished training, or the config or the code would make another now.
    """
    record, folder = read_result(context.train_folder), context.train_folder
    if record is None or WEIGHTS not in record.files:
        raise input_error(folder, found=f"no {RECORD}", expected="the record of a finished training", fix=COPY)
    different = record.identity.differences(context.identity, code_counts=not context.config.allow_mixed_training_code)
    if different:
        raise input_error(
            folder,
            found=f"a training from other inputs; what differs: {', '.join(different)}",
            expected="what the config and this version of the code make",
            fix="check out the commit that run.json names, and bring the data of the run",
        )
    evaluated = {} if context.job.self_supervised else requests.read(context.evaluate_folder / OUTCOME)
    return _Former(record, record.outcome, evaluated)


def _absent(context: JobContext) -> Iterator[Problem]:
    """Yield what training and evaluation read and what is not there."""
    if context.source is not None:
        yield from _problems_of(context.source.trained_weights)
    for task in context.tasks:
        sides = context.sides(task.name)
        test = () if context.job.self_supervised else sides.test
        for case in (*sides.train, *test):
            yield from _problems_of(context.folder, task.name, case)
        for case in test:
            path = Path(context.case(task.name, case).label_path)
            if not path.is_file():
                fix = "put the data set where data.root of the config says"
                yield Problem(str(path), "no file", f"the reference of {case}", fix)


def _problems_of(work: Any, *arguments: str) -> Iterator[Problem]:
    try:
        work(*arguments)
    except InputError as error:
        yield from error.problems


def _computed_with(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the last process of a training computed with."""
    attempts = outcome.get("attempts") or [{}]
    return {key: attempts[-1].get(key) for key in COMPUTED_WITH}


def _link(folder: Path, context: JobContext) -> None:
    """Fill a folder with links to all that a job of the run reads; what it writes has folders of its own."""
    paths, results = context.paths, context.paths.root.parent
    for path in Path().iterdir():
        if path != results:
            (folder / path).symlink_to(path.resolve())
    links = [path for path in results.iterdir() if path != paths.root]
    links += [paths.config, paths.splits, paths.manifest("any").parent, paths.preprocessed("any").parent]
    links += [context.source.train_folder] if context.source is not None else []
    for path in links:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(path.resolve())
