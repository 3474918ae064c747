"""Short-lived processes and records of processes that are not here."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from segbench.core.files import write_json
from segbench.experiment.ownership import OWNER_VARIABLE, OWNERS, ProcessRecord
from tests.paths import ROOT

ELSEWHERE = "another-host"


@contextmanager
def living(code: str = "import time; time.sleep(60)", *, owner: str | None = None) -> Iterator[subprocess.Popen]:
    """Run Python code in a process that is ended at the end."""
    environment = {name: value for name, value in os.environ.items() if name != OWNER_VARIABLE}
    environment |= {"PYTHONPATH": str(ROOT)} | ({OWNER_VARIABLE: owner} if owner else {})
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def dead_pid() -> int:
    """Return the number of a process that has just ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def dead(about: str, owner: str | None = None) -> ProcessRecord:
    """Return the record of a process of this host that has ended."""
    return ProcessRecord(platform.node(), dead_pid(), 1.0, about, owner)


def elsewhere(about: str, owner: str | None = None, slurm_job: str | None = None) -> ProcessRecord:
    """Return the record of a process of another host."""
    return ProcessRecord(ELSEWHERE, os.getpid(), 1.0, about, owner, slurm_job)


def write_command(folder: Path, name: str, script: str) -> None:
    """Write a shell script as a command, such as one of SLURM's."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def of(process: subprocess.Popen, about: str, owner: str | None = None) -> ProcessRecord:
    """Return the record of a living process."""
    found = ProcessRecord.of(process.pid, about)
    return ProcessRecord(found.host, found.pid, found.created, about, owner)


def write_workflow(record: ProcessRecord) -> str:
    """Write the record of a workflow and return its name."""
    name = f"{record.host}-{record.pid}"
    write_json(OWNERS / f"{name}.json", asdict(record))
    return name


def write_job(run: str, record: ProcessRecord) -> Path:
    """Write the record of a job of a run and return its path."""
    path = Path("results") / run / "state" / "running" / f"{record.about}.json"
    write_json(path, asdict(record))
    return path
