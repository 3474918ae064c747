"""Say what a run will take before it starts, hours, memory and disk per model, or compare that with what it took.

A small run of the same tasks is measured: its data jobs, each distinct network for some seconds of training and a few
predictions, the controls, and the start of each kind of job. As many measurements run at a time as jobs of the run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from segbench.core.paths import OUTCOME

if TYPE_CHECKING:
    from segbench.cli._forecast_jobs import ForecastJob
    from segbench.experiment.config import Config
    from segbench.experiment.jobs import Job

log = logging.getLogger(__name__)
EXAMPLE = "python -m segbench forecast --config config/config.yaml"
LEAST_SECONDS = 2.0
HEAD = (
    *("row", "jobs", "hours", "s a step", "training h", "s a case", "evaluation h"),
    *("memory MiB", "weights MB", "states MB"),
)
"""memory and states are those of one job; the others are sums, and means of seconds."""
IMPORTS = {"ingest": "segbench.data.checks", "preprocess": "segbench.data.preprocess"}
"""Data command -> what its start imports; `split` starts as `ingest` does, the synthetic world as `preprocess`."""
NOT_COUNTED = "not counted: external models, waiting for a device or disk, gathering the scores, rendering the report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--config", type=Path, required=True, help="config of the run")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long networks are measured in all, start-up apart (default 60)"
    )
    parser.add_argument(
        "--processes", type=int, help="jobs that run at the same time (default: leases of devices, else cores)"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of each job (default 1)")
    parser.add_argument("--cases", type=int, default=3, help="cases of each task that are measured (default 3)")
    parser.add_argument("--against", type=Path, metavar="RESULTS", help="compare with a run that is done: results/RUN")
    parser.add_argument("--measure", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Measure, print the table and keep the forecast in results/RUN/forecast.json; or compare it with the run."""
    from segbench.cli._counts import count_problems
    from segbench.core import devices
    from segbench.core.errors import raise_problems
    from segbench.experiment.config import load_config

    if args.processes is None:
        args.processes = devices.jobs_at_a_time() or devices.cores()
    counts = {"seconds": 1, "processes": 1, "threads": 1, "cases": 2}
    raise_problems(count_problems(**{name: (getattr(args, name), least) for name, least in counts.items()}))
    if args.against:
        return _compare(args.against)
    config = load_config(args.config)
    if args.measure:
        print(json.dumps(_measure(config, args)))
        return 0
    _tell(config, _Measured.of(config, args), args.processes)
    return 0


def _measure(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one piece in this process: the data, imports, the start of an evaluation, or a network."""
    from segbench.cli import _forecast_costs as costs

    what, _, job = args.measure.partition(" ")
    if what == "data":
        return costs.measured_data(config, cases=args.cases)
    if what == "import":
        importlib.import_module(job)
        return {"measured_seconds": 0.0}
    if what == "start":
        costs.started_evaluation(config, job)
        return {"measured_seconds": 0.0}
    return costs.measured_network(config, job, seconds=args.seconds, threads=args.threads)


class _Measured:
    """What the pieces of a run cost: the data, the networks of each group, the controls, the start of evaluations."""

    def __init__(self, data: dict[str, Any]):
        self.data = data
        self.networks: list[tuple[list[Job], dict[str, Any]]] = []
        self.controls: dict[str, dict[str, float]] = {}
        self.start_evaluation = 0.0

    @classmethod
    def of(cls, config: Config, args: argparse.Namespace) -> _Measured:
        """Measure a small run of the config, which is removed afterwards."""
        from segbench.cli._forecast_jobs import distinct_networks
        from segbench.core.files import write_json
        from segbench.core.paths import RunPaths
        from segbench.experiment.jobs import control_jobs

        small = _small_run(config)
        paths = RunPaths(small.run)
        groups, controls = distinct_networks(config), control_jobs(config)
        first = {f"{job.experiment} {job.model}": job for job in reversed(controls)}
        try:
            write_json(paths.config, small.model_dump(mode="json"))
            measure = _Measure(args, paths.config, max(LEAST_SECONDS, args.seconds / max(1, len(groups))))
            found = cls(measure("data"))
            starts = {name: measure(f"import {module}")["start_seconds"] for name, module in IMPORTS.items()}
            found.data["starts"] = starts | {"audit": found.data["start_seconds"]}
            with ThreadPoolExecutor(args.processes) as pool:
                networks = [pool.submit(measure, f"network {jobs[0].id}") for jobs in groups]
                predicting = [jobs[0] for jobs in groups if not jobs[0].self_supervised]
                starts = [pool.submit(measure, f"start {job.id}") for job in predicting[:1]]
                others = {name: pool.submit(_measured_control, paths, job) for name, job in first.items()}
                found.networks = [(jobs, item.result()) for jobs, item in zip(groups, networks, strict=True)]
                found.start_evaluation = sum(item.result()["start_seconds"] for item in starts)
                found.controls = {name: item.result() for name, item in others.items()}
        finally:
            shutil.rmtree(paths.root, ignore_errors=True)
        return found

    def jobs(self, config: Config) -> list[ForecastJob]:
        """Return the jobs of the run, each after those it waits for."""
        from segbench.cli import _forecast_jobs as jobs

        found = list(jobs.data_jobs(config, self.data))
        for group, costs in self.networks:
            found += jobs.network_jobs(config, group, costs, self.data, self.start_evaluation)
        found += jobs.control_jobs(config, self.controls, self.data)
        return found


class _Measure:
    """Measures a piece in a process of its own: memory is then its own, and the start is that of a job."""

    def __init__(self, args: argparse.Namespace, config: Path, seconds: float):
        self.command = [sys.executable, "-m", "segbench", "forecast", "--config", str(config)]
        self.command += ["--seconds", str(seconds), "--threads", str(args.threads), "--cases", str(args.cases)]

    def __call__(self, what: str) -> dict[str, Any]:
        began, said = time.monotonic(), _output([*self.command, "--measure", what], what)
        seconds, found = time.monotonic() - began, json.loads(said.splitlines()[-1])
        log.info("measured %s in %.0f s", what, seconds)
        return found | {"start_seconds": seconds - found["measured_seconds"]}


def _output(command: Sequence[str], what: str) -> str:
    from segbench.core.errors import RunFailed

    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise RunFailed(f"{what} could not be measured; the lines above say why")
    return done.stdout


def _small_run(config: Config) -> Config:
    """Return the config of the run that is measured: its files are its own, its synthetic world too."""
    from segbench.core.paths import RunPaths

    name = f"{config.run}_forecast_{os.getpid()}"
    data = config.data
    if data.phantom is not None:
        data = data.model_copy(update={"root": str(RunPaths(name).root.absolute() / "raw")})
    without = {"validation_fraction": 0.0, "tuning": None}  # its few cases are all trained on, at any learning rate
    training = config.training.model_copy(update=without)
    downstream = config.downstream
    if downstream is not None:
        changes = {key: value for key, value in downstream.training.items() if key not in without}
        downstream = downstream.model_copy(update={"training": changes})
    changed = {"run": name, "data": data, "training": training, "downstream": downstream}
    return config.model_copy(update=changed)


def _measured_control(paths: Any, job: Job) -> dict[str, float]:
    """Evaluate a control on the small run, as the workflow does, and return its start and the seconds of a case."""
    command = [sys.executable, "-m", "segbench", "evaluate", "--config", str(paths.config), "--job", job.id]
    began = time.monotonic()
    _output(command, job.id)
    wall = time.monotonic() - began
    outcome = json.loads((paths.evaluate(job.id) / OUTCOME).read_text())
    work = outcome["predict_seconds"] + outcome["score_seconds"]
    return {"start_seconds": max(0.0, wall - work), "case_seconds": work / max(1, outcome["scored"])}


def _tell(config: Config, measured: _Measured, processes: int) -> None:
    """Print the table and the sums, and keep the forecast beside the run."""
    from tabulate import tabulate

    from segbench.cli._forecast_against import FORECAST
    from segbench.cli._forecast_jobs import makespan, row_sums
    from segbench.core.files import write_json
    from segbench.core.paths import RunPaths

    jobs = measured.jobs(config)
    sums = row_sums(jobs)
    table = _table(measured, sums)
    print(tabulate([[row.get(name, "") for name in HEAD] for row in table], HEAD, tablefmt="pipe", floatfmt=".3f"))
    hours = sum(job.seconds for job in jobs) / 3600
    wall, memory = makespan(jobs, processes) / 3600, processes * max((row["memory MiB"] for row in table), default=0.0)
    data = sum(_data_mb(config, measured, task) for task in measured.data["tasks"])
    weights = sum(row["weights MB"] for row in table)
    states = processes * max((row["states MB"] for row in table), default=0.0)
    print(
        f"total: {hours:.2f} hours of jobs, {wall:.2f} hours with {processes} at a time; {memory:.0f} MiB of memory; "
        f"disk: {data:.0f} MB of preprocessed cases, {weights:.0f} MB of weights, "
        f"{states:.0f} MB of states while jobs run"
    )
    print(NOT_COUNTED)
    absent = [name for name, task in measured.data["tasks"].items() if not task["there"]]
    if absent:
        print(f"measured on noise, without data jobs and evaluation: {', '.join(absent)}, whose data are not there")
    content = {"processes": processes, "wall_hours": wall, "jobs": [job.to_dict() for job in jobs]}
    write_json(RunPaths(config.run).root / FORECAST, content)


def _data_mb(config: Config, measured: _Measured, task: str) -> float:
    from segbench.cli._forecast_jobs import counts_of

    facts = measured.data["tasks"][task]
    counts = counts_of(config, task, config.data.folds[0], facts["count"])
    return float(counts.total * facts["stored_mb"])


def _table(measured: _Measured, sums: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Return a row for each model, one for the controls and one for the data jobs; seconds are means over the jobs."""
    from segbench.cli._forecast_jobs import row_of

    groups: dict[str, list[tuple[list[Job], dict[str, Any]]]] = {}
    for group, costs in measured.networks:
        groups.setdefault(row_of(group[0]), []).append((group, costs))
    rows = []
    for name, hours in sums.items():
        row = {"row": name, "jobs": int(hours["jobs"]), "memory MiB": 0.0, "weights MB": 0.0, "states MB": 0.0}
        row["hours"] = hours["train"] + hours["evaluate"] + hours["data"]
        if name in groups:
            row |= {"training h": hours["train"], "evaluation h": hours["evaluate"]} | _network_columns(groups[name])
        rows.append(row)
    return rows


def _network_columns(groups: list[tuple[list[Job], dict[str, Any]]]) -> dict[str, Any]:
    steps = [costs["step_seconds"] for group, costs in groups for _ in group]
    cases = [task["predict_seconds"] for group, costs in groups for _ in group for task in costs["tasks"].values()]
    return {
        "s a step": fmean(steps),
        "s a case": fmean(cases) if cases else "",
        "memory MiB": max(costs["peak_memory_mib"] for _, costs in groups),
        "weights MB": sum(len(group) * costs["weights_mb"] for group, costs in groups),
        "states MB": max(costs["states_mb"] for _, costs in groups),
    }


def _compare(results: Path) -> int:
    """Print forecast, taken and their ratio for each row, and the ratio of the sums; status 1 when it is far from 1."""
    from tabulate import tabulate

    from segbench.cli import _forecast_against as against

    rows, untimed = against.compared(results)
    whole = against.total(rows)
    lines = [row.line(name) for name, row in [*rows.items(), ("total", whole)]]
    print(tabulate(lines, against.HEAD, tablefmt="pipe", floatfmt=".3f"))
    if untimed:
        print(f"without a time: {', '.join(untimed)}")
    lowest, highest = against.LOWEST_RATIO, against.HIGHEST_RATIO
    good = lowest <= whole.ratio <= highest
    print(f"result: forecast_ratio {whole.ratio:.3f} {lowest}..{highest} {'ok' if good else 'short'}")
    return 0 if good else 1
