"""Who works in a folder: one record per workflow process and per job process, with host, process and start time.

A record says enough to tell a living process from a dead one with the same number, and to leave alone what belongs to
another workflow or another host. A process of a SLURM job is known on every host that can ask SLURM.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from segbench.core.errors import RunFailed
from segbench.core.files import write_json
from segbench.core.paths import RunPaths

OWNERS = Path(".snakemake/segbench-owners")
OWNER_VARIABLE = "SEGBENCH_OWNER"
SLURM_VARIABLE = "SLURM_JOB_ID"
SLURM_ENDED = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PENDING",
        "PREEMPTED",
        "REQUEUED",
        "TIMEOUT",
    ]
)
"""States of a SLURM job, as `squeue` writes them, in which none of its processes works; a waiting job has none yet."""
START_TOLERANCE_SECONDS = 5.0
"""A correction of the clock shifts start times; a number is not given to another process within seconds."""


@dataclass(frozen=True)
class ProcessRecord:
    """One process; `about` is the run of a workflow, or the job; `owner` names the record of the job's workflow.

    slurm_job: number of the SLURM job whose process it is, if it is one's.
    """

    host: str
    pid: int
    created: float
    about: str
    owner: str | None = None
    slurm_job: str | None = None

    @classmethod
    def of(cls, pid: int, about: str) -> ProcessRecord:
        """Return the record of a living process of this host, owned by the workflow that started it, if any."""
        import psutil

        created = psutil.Process(pid).create_time()
        owner, slurm_job = os.environ.get(OWNER_VARIABLE), os.environ.get(SLURM_VARIABLE)
        return cls(platform.node(), pid, created, about, owner, slurm_job)

    @property
    def here(self) -> bool:
        """Whether the process is one of this host."""
        return self.host == platform.node()

    @property
    def alive(self) -> bool:
        """Whether the very process is running; where nothing is known of another host's process, it counts as alive."""
        import psutil

        if not self.here:
            return self.slurm_job is None or not _slurm_job_has_ended(self.slurm_job)
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < START_TOLERANCE_SECONDS
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def text(self) -> str:
        """Return who it is, in words."""
        return f"process {self.pid} on {self.host}" + (f", SLURM job {self.slurm_job}" if self.slurm_job else "")


def _slurm_job_has_ended(job: str) -> bool:
    """Tell whether SLURM knows that no process of a job works any more; False when it cannot be asked.

    A job that SLURM started again after its node failed has this process's own number: its former process is dead.
    """
    if job == os.environ.get(SLURM_VARIABLE):
        return True
    command = ["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    if asked.returncode:
        return "Invalid job id" in asked.stderr  # long ended
    return set(asked.stdout.split()) <= SLURM_ENDED


def read_record(path: Path) -> ProcessRecord | None:
    """Return a record, None when the file is gone or is none; a link is none, because others could set it."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as stream:
            return ProcessRecord(**json.load(stream))
    except (OSError, ValueError, TypeError):
        return None


def write_owner(run: str) -> None:
    """Record this process as the workflow of a run; the jobs that it starts learn of it by the environment."""
    record = ProcessRecord.of(os.getpid(), run)
    name = f"{record.host}-{record.pid}"
    os.environ[OWNER_VARIABLE] = name
    write_json(OWNERS / f"{name}.json", asdict(record))


def forget_owner() -> None:
    """Remove the record of this process, unless a process of its jobs still runs: `recover` then knows whose it is."""
    name = f"{platform.node()}-{os.getpid()}"
    path = OWNERS / f"{name}.json"
    own = read_record(path)
    jobs = [] if own is None else [read_record(job) for job in RunPaths(own.about).running.glob("*.json")]
    if not any(job is not None and job.owner == name and job.here and job.alive for job in jobs):
        path.unlink(missing_ok=True)


def owners() -> dict[str, ProcessRecord]:
    """Return name -> record of every workflow that was started in this folder and has not ended in order."""
    found = {path.stem: read_record(path) for path in sorted(OWNERS.glob("*.json"))}
    return {name: record for name, record in found.items() if record is not None}


@contextmanager
def running(folder: Path, name: str, *, pid: int | None = None) -> Iterator[None]:
    """Keep a record of a process while it works on a job.

    Args:
        folder: where records of the run are.
        name: command and job.
        pid: the process; default: this one.

    Raises:
        RunFailed: another living process works on the same job.
    """
    path = folder / f"{name}.json"
    other = read_record(path)
    own = ProcessRecord.of(pid or os.getpid(), name)
    if other is not None and other.alive and (other.host, other.pid) != (own.host, own.pid):
        gone = "" if other.here else f"; if that host is gone, delete {path}"
        raise RunFailed(f"{name} is being run by {other.text()}; wait for it, or end it there, then run again{gone}")
    write_json(path, asdict(own))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
