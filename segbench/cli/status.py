"""Say how a run stands, job by job, and where its report is; status 1 unless all is done as the config asks."""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbench.experiment.status import RunStatus

EXAMPLE = "python -m segbench status --config config/config.yaml --watch 10"
TITLES = {
    "running": "running",
    "failed": "failed, tried again by the next run",
    "outdated": "outdated, made anew by the next run",
    "damaged": "damaged, left as it is by the next run",
}
BAR = 40
"""Characters of the bar."""
CLEAR = "\033[2J\033[H"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--config", type=Path, required=True, help="config of the run")
    parser.add_argument("--ledger", type=Path, help="CSV file to write: what each job cost (docs/performance.md)")
    parser.add_argument(
        "--watch", type=float, metavar="SECONDS", help="say it again every so many seconds, until all is done"
    )


def run(args: argparse.Namespace) -> int:
    """Print counts, how much is done, rates, a line for each job that runs or needs attention, and the report."""
    from segbench.cli._counts import count_problems
    from segbench.core.errors import raise_problems
    from segbench.experiment.config import load_config
    from segbench.experiment.status import ledger, run_status

    raise_problems(count_problems(watch=(args.watch, 0)))
    config = load_config(args.config)
    if args.ledger:
        _write(args.ledger, ledger(config))
    while True:
        status = run_status(config)
        if args.watch and sys.stdout.isatty():
            print(CLEAR, end="")
        print(*lines(config.run, status), sep="\n", flush=True)
        if not args.watch or status.complete:
            return 0 if status.complete else 1
        time.sleep(args.watch)


def lines(name: str, status: RunStatus) -> Iterator[str]:
    """Yield the lines that say how a run stands."""
    from segbench.core.paths import PAGE, RunPaths
    from segbench.experiment.status import STATES

    counts = {state: len(status.of(state)) for state in STATES}
    yield f"{name}: {counts['done']} jobs done, " + ", ".join(f"{counts[state]} {state}" for state in STATES[1:])
    if counts["running"]:
        yield _bar(counts["done"], len(status.jobs))
    if status.queued:
        yield "in SLURM's queue: " + ", ".join(f"{count} ({reason})" for reason, count in sorted(status.queued.items()))
    means = {command: status.mean_seconds(command) for command in ("train", "evaluate")}
    said = [f"{command} {_span(seconds)} a job" for command, seconds in means.items() if seconds is not None]
    left = status.remaining_seconds
    said += [f"about {_span(left)} left"] if left is not None else []
    if said and not status.complete:
        yield ", ".join(said)
    for state, title in TITLES.items():
        for item in status.of(state):
            yield f"{title}: {item.name}: {item.note}"
    yield f"report: {status.report or RunPaths(name).report / PAGE}"


def _bar(done: int, total: int) -> str:
    filled = BAR * done // max(1, total)
    return f"[{'#' * filled}{'-' * (BAR - filled)}] {done} of {total} jobs"


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    from segbench.core.files import write_text
    from segbench.experiment.status import LEDGER_COLUMNS

    stream = io.StringIO()
    writer = csv.DictWriter(stream, LEDGER_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())
