"""How a run stands: which jobs are done as the config asks, failed, running, made from other settings, or not there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segbench.core.errors import InputError
from segbench.core.files import sha256_of
from segbench.core.paths import RunPaths
from segbench.experiment import requests
from segbench.experiment.config import Config
from segbench.experiment.identity import (
    Identity,
    evaluation_settings_identity,
    training_settings_identity,
)
from segbench.experiment.jobs import evaluation_jobs, training_jobs
from segbench.experiment.ownership import read_record
from segbench.experiment.result_record import read_result


@dataclass
class RunStatus:
    """Jobs by state, each as 'command job'; failed and outdated ones with their reason."""

    done: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    outdated: dict[str, str] = field(default_factory=dict)
    report: str = ""

    @property
    def complete(self) -> bool:
        """Whether every job is done as the config asks and the report shows it."""
        return not (self.running or self.waiting or self.failed or self.outdated or self.report)


def run_status(config: Config) -> RunStatus:
    """Return how the jobs and the report of a run stand; only small files are read."""
    paths, status = RunPaths(config.run), RunStatus()
    jobs = [
        *(("train", job, paths.train(job.id), training_settings_identity) for job in training_jobs(config)),
        *(("evaluate", job, paths.evaluate(job.id), evaluation_settings_identity) for job in evaluation_jobs(config)),
    ]
    for command, job, folder, asked in jobs:
        name = f"{command} {job.id}"
        outcome = requests.read(folder / "outcome.json")
        process = read_record(paths.running / f"{command}.{job.id}.json")
        if process is not None and process.alive:
            status.running.append(f"{name} ({process.text()})")
        elif not outcome:
            status.waiting.append(name)
        elif outcome.get("status") != "ok":
            status.failed[name] = str(outcome.get("reason", "no reason given"))
        else:
            different = _differences(folder, asked(config, job), code_counts=not config.allow_mixed_training_code)
            if different:
                status.outdated[name] = f"made from other {different}"
            else:
                status.done.append(name)
    status.report = _report(paths)
    return status


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
    "peak_device_memory_mib",
    "patches_per_second",
    "waiting_fraction",
    "float32_repeats",
)
"""Columns of the ledger. wall_seconds, cpu_seconds and peak_memory_mib are those of the process that ended the job;
train_seconds, patches_per_second and waiting_fraction count all its processes."""


def ledger(config: Config) -> list[dict[str, Any]]:
    """Return what each job that has an outcome cost: `LEDGER_COLUMNS`, empty where a job has no such value."""
    paths = RunPaths(config.run)
    folders = [paths.train(job.id) for job in training_jobs(config)]
    folders += [paths.evaluate(job.id) for job in evaluation_jobs(config)]
    rows = []
    for outcome in filter(None, (requests.read(folder / "outcome.json") for folder in folders)):
        wall = outcome.get("finished", 0.0) - outcome.get("started", 0.0)
        rows.append({name: outcome.get(name, "") for name in LEDGER_COLUMNS} | {"wall_seconds": round(wall, 3)})
    return rows


def _differences(folder: Path, asked: Identity, *, code_counts: bool) -> str:
    try:
        record = read_result(folder)
    except InputError as error:
        return str(error)
    if record is None:
        return "inputs (no record of them)"
    known = Identity({name: value for name, value in record.identity.parts.items() if name in asked.parts})
    return ", ".join(known.differences(asked, code_counts=code_counts))


def _report(paths: RunPaths) -> str:
    """Return what is wrong with the report, nothing when it shows the score table as it is."""
    rendered: dict[str, Any] = requests.read(paths.rendered)
    if not rendered:
        return "not rendered"
    parts = rendered.get("identity", {}).get("parts", {})
    for name, path in (("scores.csv", paths.scores), ("run.json", paths.run_record)):
        if not path.is_file() or sha256_of(path) != parts.get(name):
            return f"rendered from another {name}"
    missing = [name for name in rendered.get("files", {}) if not (paths.report / name).is_file()]
    return f"{missing[0]} is missing" if missing else ""
