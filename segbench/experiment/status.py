"""How a run stands: which jobs are done as the config asks, failed, running, made from other settings, or not there.

Only small files are read, so that a run on a cluster is seen from any host that shares its folder.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from segbench.core.errors import InputError
from segbench.core.files import sha256_of
from segbench.core.paths import MADE_FROM, OUTCOME, RunPaths
from segbench.core.progress import seen
from segbench.core.provenance import content_hash
from segbench.experiment import requests
from segbench.experiment.config import Config
from segbench.experiment.identity import (
    Identity,
    evaluation_settings_identity,
    training_settings_identity,
)
from segbench.experiment.jobs import Job, evaluation_jobs, is_trained, made_identities, training_jobs
from segbench.experiment.ownership import ProcessRecord, read_record
from segbench.experiment.result_record import ResultRecord, read_result

STATES = ("done", "running", "waiting", "failed", "outdated", "damaged")
"""outdated: made from other settings or weights, or a file of the result is missing. damaged: a file is not as it was
written."""
LOG_TAIL_BYTES = 4096


@dataclass(frozen=True)
class JobStatus:
    """One job: its state, a note (reason, process and last line of the log), and its seconds, done or running.

    left: seconds until a running job ends, by its log; None where that does not say it.
    """

    command: str
    job: Job
    state: str
    note: str = ""
    seconds: float | None = None
    left: float | None = None

    @property
    def name(self) -> str:
        """Command and id."""
        return f"{self.command} {self.job.id}"


@dataclass
class RunStatus:
    """All jobs of a run, and its report.

    queued: reason that SLURM gives -> number of jobs of this run that wait in its queue. report: what is wrong with the
    report, empty when it shows the results as they are.
    """

    jobs: list[JobStatus]
    report: str
    queued: dict[str, int] = field(default_factory=dict)

    def of(self, state: str) -> list[JobStatus]:
        """Return the jobs of a state."""
        return [item for item in self.jobs if item.state == state]

    @property
    def complete(self) -> bool:
        """Whether every job is done as the config asks and the report shows it."""
        return len(self.of("done")) == len(self.jobs) and not self.report

    def mean_seconds(self, command: str, model: str | None = None) -> float | None:
        """Return the mean duration of the done jobs of a command, and of a model if it is named; None when none is."""
        found = [
            item.seconds
            for item in self.of("done")
            if item.command == command and model in (None, item.job.model) and item.seconds is not None
        ]
        return fmean(found) if found else None

    @property
    def remaining_seconds(self) -> float | None:
        """How long the rest takes with as many jobs at a time as now; None without a running or a finished job.

        A running job takes as long as its log says. Any other takes as long as the done jobs of its command and model,
        else as the running ones will, else as those of its command.
        """
        rest = [item for item in self.jobs if item.state != "done"]
        left = [self._left(item) for item in rest]
        running = len(self.of("running"))
        known = [seconds for seconds in left if seconds is not None]
        if not running or len(known) < len(left):
            return None
        return max(sum(known) / running, *known)

    def _left(self, item: JobStatus) -> float | None:
        if item.left is not None:
            return item.left
        expected = self.expected_seconds(item.command, item.job.model)
        if expected is None:
            return None
        return max(0.0, expected - ((item.seconds or 0.0) if item.state == "running" else 0.0))

    def expected_seconds(self, command: str, model: str) -> float | None:
        """Return how long a job of a command and a model takes by what is done or runs; None when nothing tells."""
        for name in (model, None):
            found = self.mean_seconds(command, name) or self._mean_of_running(command, name)
            if found is not None:
                return found
        return None

    def _mean_of_running(self, command: str, model: str | None) -> float | None:
        found = [
            item.seconds + item.left
            for item in self.of("running")
            if item.command == command
            and model in (None, item.job.model)
            and item.seconds is not None
            and item.left is not None
        ]
        return fmean(found) if found else None


def run_status(config: Config) -> RunStatus:
    """Return how the jobs and the report of a run stand."""
    jobs = [_train(config, job) for job in training_jobs(config)]
    jobs += [_evaluate(config, job) for job in evaluation_jobs(config)]
    return RunStatus(jobs, _report(config), _queued(jobs))


def _train(config: Config, job: Job) -> JobStatus:
    folder = RunPaths(config.run).train(job.id)
    source = job.source(config)
    read = {}
    if source is not None:
        read["weights it starts from"] = _made(config, source, lambda made: made.identity.digest)
    return _job_status(config, "train", job, folder, training_settings_identity(config, job), read)


def _evaluate(config: Config, job: Job) -> JobStatus:
    folder = RunPaths(config.run).evaluate(job.id)
    read = {"weights": _made(config, job, lambda made: made.weights_digest)} if is_trained(config, job) else {}
    return _job_status(config, "evaluate", job, folder, evaluation_settings_identity(config, job), read)


def _made(config: Config, job: Job, fact: Callable[[ResultRecord], str]) -> str | None:
    """Return a fact of a training that another job reads as it is now, None where it has not ended well."""
    folder = RunPaths(config.run).train(job.id)
    if requests.read(folder / OUTCOME).get("status") != "ok":
        return None
    try:
        record = read_result(folder)
    except InputError:  # said of the training itself
        return None
    return None if record is None else fact(record)


def _job_status(
    config: Config, command: str, job: Job, folder: Path, settings: Identity, read: Mapping[str, str | None]
) -> JobStatus:
    """Return how a job stands; `read` is what it reads of other jobs, which counts where it is known."""
    asked = Identity({**settings.parts, **{name: value for name, value in read.items() if value is not None}})
    outcome = requests.read(folder / OUTCOME)
    paths = RunPaths(config.run)
    process = read_record(paths.running / f"{command}.{job.id}.json")
    if process is not None and process.alive:
        log = paths.log(command, job.id)
        return JobStatus(command, job, "running", _note(process, log), _age(process), _seconds_left(log))
    if not outcome:
        return JobStatus(command, job, "waiting")
    if outcome.get("status") != "ok":
        return JobStatus(command, job, "failed", str(outcome.get("reason", "no reason given")))
    try:
        outdated = _outdated(folder, asked, code_counts=not config.allow_mixed_training_code)
    except InputError as error:
        return JobStatus(command, job, "damaged", str(error))
    if outdated:
        return JobStatus(command, job, "outdated", outdated)
    return JobStatus(command, job, "done", seconds=_duration(outcome))


def _note(process: ProcessRecord, log: Path) -> str:
    line = last_line(log)
    return process.text() + (f": {line}" if line else "")


def _seconds_left(log: Path) -> float | None:
    """Return when the work that a log shows ends, by its last line and the time of that; None when it does not say."""
    progress = seen(last_line(log))
    return None if progress is None else max(0.0, progress.seconds_left - (time.time() - log.stat().st_mtime))


def _age(process: ProcessRecord) -> float:
    return max(0.0, time.time() - process.created)


def _duration(outcome: dict[str, Any]) -> float | None:
    began, ended = outcome.get("started"), outcome.get("finished")
    return ended - began if isinstance(began, int | float) and isinstance(ended, int | float) else None


def last_line(log: Path) -> str:
    """Return the last line of a log that holds a word, empty when there is none."""
    try:
        with open(log, "rb") as stream:
            stream.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
            lines = stream.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _queued(jobs: Iterable[JobStatus]) -> dict[str, int]:
    """Return SLURM's reason -> number of this user's waiting SLURM jobs that are these jobs; empty without SLURM.

    The comment of a SLURM job is 'rule_RULE_wildcards_JOB', as the executor of Snakemake writes it.
    """
    comments = {f"rule_{item.command}_wildcards_{item.job.id}" for item in jobs if item.state != "done"}
    command = ["squeue", "--me", "--noheader", "--states=PENDING", "--format=%r|%k"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (line.partition("|") for line in text.splitlines())
    return dict(Counter(reason for reason, _, comment in pairs if comment in comments))


LEDGER_COLUMNS = (
    "job",
    "command",
    "status",
    "device",
    "mode",
    "precision",
    "wall_seconds",
    "train_seconds",
    "cpu_seconds",
    "peak_memory_mib",
    "device_seconds",
    "energy_joules",
    "peak_device_memory_mib",
    "patches_per_second",
    "waiting_fraction",
    "float32_repeats",
)
"""Columns of the ledger. train_seconds, patches_per_second and waiting_fraction count all processes of the job; the
others are those of the process that ended it."""


def ledger(config: Config) -> list[dict[str, Any]]:
    """Return what each job that has an outcome cost: `LEDGER_COLUMNS`, empty where a job has no such value."""
    paths = RunPaths(config.run)
    folders = [paths.train(job.id) for job in training_jobs(config)]
    folders += [paths.evaluate(job.id) for job in evaluation_jobs(config)]
    rows = []
    for outcome in filter(None, (requests.read(folder / OUTCOME) for folder in folders)):
        wall = _duration(outcome)
        seconds = {} if wall is None else {"wall_seconds": round(wall, 3)}
        rows.append({name: outcome.get(name, "") for name in LEDGER_COLUMNS} | seconds)
    return rows


def _outdated(folder: Path, asked: Identity, *, code_counts: bool) -> str:
    """Return why a result is made anew, empty when it is not; raises `InputError` when it is damaged."""
    record = read_result(folder)
    if record is None:
        return "made from other inputs (no record of them)"
    known = Identity({name: value for name, value in record.identity.parts.items() if name in asked.parts})
    different = ", ".join(known.differences(asked, code_counts=code_counts))
    if different:
        return f"made from other {different}"
    missing = [name for name in record.files if not (folder / name).is_file()]
    if missing:
        return f"{', '.join(missing)} is missing"
    for name in record.files:
        record.check_size(folder, name)
    return ""


def _report(config: Config) -> str:
    """Return what is wrong with the report, nothing when it shows the results of the config as they are."""
    paths = RunPaths(config.run)
    rendered: dict[str, Any] = requests.read(paths.rendered)
    try:
        parts, files = rendered["identity"]["parts"], dict(rendered["files"])
    except (KeyError, TypeError, ValueError):
        return "not rendered"
    for name in MADE_FROM:
        path = paths.root / name
        if not path.is_file() or sha256_of(path) != parts.get(name):
            return f"rendered from another {name}"
    record = requests.read(paths.run_record)
    if record.get("config_sha256") != content_hash(config.model_dump(mode="json")):
        return "rendered for another config"
    if record.get("identities") != made_identities(config):
        return "rendered from former results of jobs"
    missing = [name for name in files if not (paths.report / name).is_file()]
    return f"{missing[0]} is missing" if missing else ""
