"""What train and evaluate share: nothing is done twice, a failure is data, and states are removed last."""

from __future__ import annotations

import argparse
import collections
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segbench.core.errors import RunFailed, input_error, is_machine_failure, short
from segbench.core.files import sha256_of, write_json
from segbench.core.provenance import portable
from segbench.experiment import requests
from segbench.experiment.context import JobContext
from segbench.experiment.identity import Identity, read_identity
from segbench.experiment.ownership import running

log = logging.getLogger(__name__)


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
    parser.add_argument("--threads", type=int, default=1, help="threads of the numerical libraries")


def computing_device(threads: int) -> str:
    """Return 'cuda' where there is a GPU, else 'cpu', with so many threads for it."""
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
        products: names of the files in `folder` that a finished job leaves.
        resumable: files and folders from which a killed job continues; removed when the outcome is on disk.
        work: does the job and returns facts for the outcome; its `status` other than 'ok' is a failure.
        on_failure: called with the reason when `work` raised, to leave what the workflow expects of a failed job.

    Raises:
        InputError: a product was edited or damaged since it was made.
        RunFailed: the machine failed (memory, disk, device), so that the workflow tries again; nothing is recorded.
    """
    paths = context.paths
    attempt = requests.attempt_of(paths.request(command, context.job.id))
    record = folder / "record.json"
    kept = kept_outcome(record, identity, products, code_counts=not context.config.allow_mixed_training_code)
    if kept is not None:
        write_json(folder / "outcome.json", kept | {"attempt": attempt})
        log.info("%s of %s: done before, from the same inputs (identity %s)", command, context.job.id, identity.digest)
        return 0
    lines = _LastLines()
    logging.getLogger().addHandler(lines)
    began = time.time()
    outcome: dict[str, Any] = {"job": context.job.id, "command": command, "attempt": attempt, "status": "ok"}
    outcome |= {"reason": "", "identity": identity.digest}
    with running(paths.running, f"{command}.{context.job.id}"):
        try:
            outcome |= work()
        except Exception as error:  # a failure is data: it is recorded and the graph goes on
            if is_machine_failure(error):
                raise RunFailed(f"{command} of {context.job.id}: {type(error).__name__}, {short(error)}") from error
            log.exception("%s of %s failed", command, context.job.id)
            reason = portable(f"{type(error).__name__}: {' '.join(str(error).split())}", context.config.data_root)
            on_failure(reason)
            outcome |= {"status": "failed", "reason": reason}
        if outcome["status"] != "ok":
            outcome["log_tail"] = list(lines.lines)
        outcome |= {"started": round(began, 3), "finished": round(time.time(), 3)}
        if outcome["status"] == "ok":
            files = {name: _file_facts(folder / name) for name in products}
            write_json(record, {"identity": identity.to_dict(), "outcome": outcome, "files": files})
        write_json(folder / "outcome.json", outcome)
        if outcome["status"] == "ok":  # only now: a job that is killed before continues from its state
            for part in resumable:
                shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
    return 0


def kept_outcome(
    record: Path, identity: Identity, products: Sequence[str], *, code_counts: bool = True
) -> dict[str, Any] | None:
    """Return the outcome of a job that was done from the same inputs and whose products are there, else None.

    Raises:
        InputError: a product is not the file that the record names.
    """
    found = read_identity(record)
    if found is None:
        return None
    different = found.differences(identity, code_counts=code_counts)
    if different:
        log.info("%s: made from other inputs (%s); made anew", record.parent, ", ".join(different))
        return None
    content = json.loads(record.read_text(encoding="utf-8"))
    if not all((record.parent / name).is_file() for name in products):
        return None
    check_files(record.parent, content.get("files", {}))
    return content["outcome"]


def check_result(folder: Path) -> None:
    """Raise `InputError` when a product of a job that went well is not the file that its record names."""
    outcome = requests.read(folder / "outcome.json")
    if outcome.get("status") == "ok":
        check_files(folder, requests.read(folder / "record.json").get("files", {}))


def check_files(folder: Path, files: Mapping[str, Sequence[Any]]) -> None:
    """Raise `InputError` when a file is not the one of its record; size first, as it costs nothing."""
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            raise input_error(path, found="no file", expected="what its record names", fix="run again")
        if path.stat().st_size != size or sha256_of(path) != digest:
            found = f"{path.stat().st_size} bytes of other content"
            expected = f"the {size} bytes that segbench wrote (SHA-256 {digest[:12]}...)"
            raise input_error(path, found=found, expected=expected, fix="delete it: it is then made anew")


def _file_facts(path: Path) -> list[Any]:
    return [path.stat().st_size, sha256_of(path)]
