"""What train and evaluate share: the outcome file, the record of the running process, the device."""

from __future__ import annotations

import argparse
import collections
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from segbench.core.files import write_json
from segbench.core.paths import RunPaths
from segbench.core.provenance import portable
from segbench.experiment.config import load_config
from segbench.experiment.jobs import Job, find_job


class _LastLines(logging.Handler):
    """Keeps the last log lines for the outcome of a failed job."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: collections.deque[str] = collections.deque(maxlen=20)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.extend(self.format(record).splitlines())


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that runs one job."""
    parser.add_argument("--config", type=Path, required=True, help="resolved config of the run")
    parser.add_argument("--job", required=True, help="id of the job, as in the workflow")
    parser.add_argument("--attempt", type=int, default=1, help="number of this attempt, stored in the outcome")
    parser.add_argument("--threads", type=int, default=1, help="threads of the numerical libraries")


def computing_device(threads: int) -> str:
    """Return 'cuda' where there is a GPU, else 'cpu', with so many threads for it."""
    import torch

    torch.set_num_threads(threads)
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def running_record(folder: Path, name: str) -> Iterator[None]:
    """Keep a file that names this process while it runs, so that an interrupted run can end its orphans."""
    import psutil

    path = folder / f"{name}.json"
    write_json(path, {"pid": os.getpid(), "created": psutil.Process().create_time()})
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def run_job(args: argparse.Namespace, command: str, work: Callable, folder_of: Callable[[RunPaths, Job], Path]) -> int:
    """Run `work(config, job)` and write outcome.json whatever happens; a failure is data, so the status is 0."""
    config = load_config(args.config)
    job = find_job(config, args.job)
    paths = RunPaths(config.run)
    lines = _LastLines()
    logging.getLogger().addHandler(lines)
    began = time.time()
    outcome = {"job": job.id, "command": command, "attempt": args.attempt, "status": "ok", "reason": ""}
    with running_record(paths.root / "state" / "running", f"{command}.{job.id}"):
        try:
            outcome |= work(config, job)
        except Exception as error:  # a failure is data: it is recorded and the graph goes on
            logging.getLogger(__name__).exception("%s of %s failed", command, job.id)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            outcome |= {"status": "failed", "reason": portable(reason, config.data_root)}
    if outcome["status"] != "ok":
        outcome["log_tail"] = list(lines.lines)
    outcome |= {"started": round(began, 3), "finished": round(time.time(), 3)}
    write_json(folder_of(paths, job) / "outcome.json", outcome)
    return 0
