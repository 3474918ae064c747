"""What train and evaluate have in common: nothing is done twice, a failure is data, and states are removed last."""

from __future__ import annotations

import argparse
import collections
import logging
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from segbench.cli import LOG_FORMAT
from segbench.cli._counts import count_problems
from segbench.core import devices
from segbench.core.devices import device_problems
from segbench.core.errors import InputError, RunFailed, input_error, is_machine_failure, raise_problems, short
from segbench.core.files import write_json
from segbench.core.paths import OUTCOME, RECORD
from segbench.core.provenance import portable
from segbench.experiment import requests
from segbench.experiment.context import JobContext
from segbench.experiment.identity import Identity
from segbench.experiment.ownership import running
from segbench.experiment.result_record import ResultRecord, read_result

log = logging.getLogger(__name__)


class _LastLines(logging.Handler):
    """Keeps the last log lines for the outcome of a failed job."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: collections.deque[str] = collections.deque(maxlen=20)
        self.setFormatter(logging.Formatter(LOG_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.extend(self.format(record).splitlines())


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that runs one job."""
    parser.add_argument("--config", type=Path, required=True, help="resolved config of the run")
    parser.add_argument("--job", required=True, help="id of the job, as in the workflow")
    parser.add_argument("--threads", type=int, default=1, help="threads of the numerical libraries")


def check_machine(**counts: tuple[float | None, int]) -> None:
    """Raise `InputError` with every setting that the machine cannot meet, before any work.

    Args:
        counts: option -> (its value, the least that it can be), such as workers=(args.workers, 0).
    """
    raise_problems([*count_problems(**counts), *device_problems(os.environ)])


def computing_device(threads: int) -> str:
    """Return 'cuda' where there is a GPU, which this process then leases, else 'cpu', and set the threads beside it.

    Args:
        threads: threads of the numerical libraries; with a leased GPU at least its equal part of the processors.
    """
    if devices.take_device() is not None:  # before CUDA starts
        jobs = devices.machine_devices() * devices.jobs_per_device()
        threads = max(threads, devices.threads_per_job(devices.cores(), jobs))
    import torch

    torch.set_num_threads(threads)
    return "cuda" if torch.cuda.is_available() else "cpu"


def run_job(
    context: JobContext,
    command: str,
    folder: Path,
    identity: Identity,
    *,
    products: Sequence[str],
    resumable: Sequence[Path],
    work: Callable[[], dict[str, Any]],
    on_failure: Callable[[str], object] = lambda reason: None,
) -> int:
    """Do a job unless its result is there, and write outcome.json whatever happens; a failure is data: status 0.

    Args:
        context: the job.
        command: 'train' or 'evaluate'.
        folder: where outcome.json, record.json and the products are.
        identity: what the result is made from; a record of the same identity means that the job is done.
        products: names of the files in `folder` that a finished job leaves and that are worth doing it again for.
        resumable: files and folders from which a killed job continues; removed when the outcome is on disk.
        work: does the job and returns facts for the outcome; its `status` other than 'ok' is a failure.
        on_failure: called with the reason when `work` raised, to leave what the workflow expects of a failed job.

    Returns:
        The exit status, 0.

    Raises:
        InputError: a product was edited or damaged since it was made.
        RunFailed: the machine failed (memory, disk, device), so that the workflow tries again; nothing is recorded. Or
            another process works on the same job.
    """
    attempt = requests.attempt_of(context.paths.request(command, context.job.id))
    kept = kept_outcome(folder, identity, products, code_counts=not context.config.allow_mixed_training_code)
    try:
        if kept is not None:
            write_json(folder / OUTCOME, kept | {"attempt": attempt})
            log.info("%s of %s: done before, from the same inputs (%s)", command, context.job.id, identity.digest)
            return 0
        with running(context.paths.running, f"{command}.{context.job.id}"):
            outcome: dict[str, Any] = {"job": context.job.id, "command": command, "attempt": attempt}
            outcome |= {"identity": identity.digest} | _facts(context, command, work, on_failure)
            if outcome["status"] == "ok":
                ResultRecord.of(folder, identity, outcome, products).write(folder)
            write_json(folder / OUTCOME, outcome)
            if outcome["status"] == "ok":  # only now: a job that is killed before continues from its state
                _remove(resumable)
    except Exception as error:
        if is_machine_failure(error):
            raise RunFailed(f"{command} of {context.job.id}: {type(error).__name__}, {short(error)}") from error
        raise
    return 0


def _facts(
    context: JobContext, command: str, work: Callable[[], dict[str, Any]], on_failure: Callable[[str], object]
) -> dict[str, Any]:
    """Do the work and return its facts, with times, or with the reason and the last lines of the log of a failure."""
    began, lines = time.time(), _LastLines()
    facts: dict[str, Any] = {"status": "ok", "reason": ""}
    logging.getLogger().addHandler(lines)
    try:
        facts |= work()
    except Exception as error:  # a failure is data: it is recorded and the graph goes on
        if is_machine_failure(error):
            raise
        expected = isinstance(error, InputError)  # it says what is wrong; lines of Python would only hide it
        log.error("%s of %s failed: %s", command, context.job.id, error, exc_info=not expected)
        reason = portable(f"{type(error).__name__}: {' '.join(str(error).split())}", context.config.data_root)
        on_failure(reason)
        facts |= {"status": "failed", "reason": reason}
    finally:
        logging.getLogger().removeHandler(lines)
    if facts["status"] != "ok":
        facts["log_tail"] = list(lines.lines)
    times = {"started": round(began, 3), "finished": round(time.time(), 3)}
    return facts | times | process_costs() | device_costs()


def process_costs() -> dict[str, float]:
    """Return CPU seconds and peak memory of this process since its start, and of its children that have ended.

    Keys: cpu_seconds (user and system, children included), peak_memory_mib (resident, of the largest process).
    """
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of one ru_maxrss
    return {
        "cpu_seconds": round(sum(item.ru_utime + item.ru_stime for item in (own, children)), 3),
        "peak_memory_mib": round(max(own.ru_maxrss, children.ru_maxrss) * unit / 2**20, 1),
    }


def device_costs() -> dict[str, float]:
    """Return what this process used of its device; nothing without one.

    Keys: device_seconds, energy_joules where NVML tells it, peak_device_memory_mib (allocated by PyTorch).
    """
    costs, torch = devices.device_costs(), sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        costs["peak_device_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return costs


def _remove(resumable: Sequence[Path]) -> None:
    for path in resumable:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def kept_outcome(
    folder: Path, identity: Identity, products: Sequence[str], *, code_counts: bool = True
) -> dict[str, Any] | None:
    """Return the outcome of a job that was done from the same inputs and whose products are there, else None.

    Args:
        folder: where record.json and the products are.
        identity: what the result would be made from now.
        products: names of the files that must be there.
        code_counts: whether other training code is a reason to do the job again.

    Raises:
        InputError: a product is not the file that the record names, or the record is damaged.
    """
    record = read_result(folder)
    if record is None:
        return None
    different = record.identity.differences(identity, code_counts=code_counts)
    if different:
        log.info("%s: made from other inputs (%s); made anew", folder, ", ".join(different))
        return None
    if not all((folder / name).is_file() for name in products):
        return None
    for name in products:
        record.check_file(folder, name)
    return dict(record.outcome)


def check_result(folder: Path) -> None:
    """Raise `InputError` when a product of a job that went well is not the file that its record names."""
    if requests.read(folder / OUTCOME).get("status") != "ok":
        return
    record = read_result(folder)
    if record is None:
        raise input_error(folder, found=f"no {RECORD}", expected="the record of a finished job", fix="run again")
    for name in record.files:
        record.check_file(folder, name)
