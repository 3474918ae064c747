"""A forecast beside what its run took, job by job."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.core.errors import input_error
from segbench.core.paths import OUTCOME
from segbench.experiment import requests

LOWEST_RATIO, HIGHEST_RATIO = 0.85, 1.15
"""Of the forecast to what the run took."""
FORECAST = "forecast.json"
HEAD = ("row", "jobs", "forecast h", "taken h", "forecast / taken")


@dataclass
class Sums:
    """Jobs that are done, with their hours by the forecast and as taken."""

    jobs: int = 0
    forecast: float = 0.0
    taken: float = 0.0

    def add(self, forecast_seconds: float, taken_seconds: float) -> None:
        """Count a job."""
        self.jobs += 1
        self.forecast += forecast_seconds / 3600
        self.taken += taken_seconds / 3600

    @property
    def ratio(self) -> float:
        """Forecast over taken."""
        return self.forecast / self.taken

    def line(self, name: str) -> list[Any]:
        """Return the row of the table."""
        return [name, self.jobs, self.forecast, self.taken, self.ratio]


def compared(results: Path) -> tuple[dict[str, Sums], list[str]]:
    """Return row -> sums over its jobs that are done, and the names of the jobs without a time.

    Args:
        results: folder of the run, which holds the forecast.

    Raises:
        InputError: there is no forecast, or no job of it is done.
    """
    content = requests.read(results / FORECAST)
    if not content.get("jobs"):
        fix = "run `python -m segbench forecast --config FILE` before the run starts"
        raise input_error(results / FORECAST, found="no forecast", expected="what `forecast` wrote", fix=fix)
    rows: dict[str, Sums] = {}
    untimed = []
    for job in content["jobs"]:
        taken = taken_seconds(results, job["name"])
        if taken is None:
            untimed.append(job["name"])
        else:
            rows.setdefault(job["row"], Sums()).add(job["seconds"], taken)
    if not rows:
        raise input_error(results, found="no job that is done", expected="a run that ended", fix="run it first")
    return rows, untimed


def taken_seconds(results: Path, name: str) -> float | None:
    """Return how long a job took, None when it is not done or no time of it is known.

    That is the time of its command by Snakemake's benchmark file, or, where the command was called again and found the
    job done, that of the job by its outcome. A training that was interrupted took at least all its training seconds.
    """
    rule, _, key = name.partition(" ")
    times = []
    if rule in ("train", "evaluate"):
        outcome = requests.read(results / rule / key / OUTCOME)
        if outcome.get("status") != "ok":
            return None
        times = [outcome["finished"] - outcome["started"], outcome.get("train_seconds", 0.0)]
    benchmark = _benchmark(results / "benchmarks" / rule / f"{key}.tsv")
    times += [] if benchmark is None else [float(benchmark["s"])]
    return max(times, default=None)


def _benchmark(path: Path) -> Mapping[str, str] | None:
    if not path.is_file():
        return None
    with open(path, newline="", encoding="utf-8") as stream:
        return next(csv.DictReader(stream, delimiter="\t"), None)


def total(rows: Mapping[str, Sums]) -> Sums:
    """Return the sums over all rows."""
    found = rows.values()
    return Sums(sum(row.jobs for row in found), sum(row.forecast for row in found), sum(row.taken for row in found))
