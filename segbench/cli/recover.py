"""Make an interrupted run ready to continue: end orphaned jobs, clear a stale workflow lock and half-written files.

A job is ended only when the workflow that started it was one of this host and is dead; a SLURM job of such a workflow
is cancelled wherever it runs. What belongs to a living workflow, to another host, to another user, or to a person who
started it by hand is left alone and named.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import subprocess
from pathlib import Path

from segbench.experiment.ownership import OWNERS, ProcessRecord, owners, read_record

EXAMPLE = "python -m segbench recover --config config/config.yaml"
LOCKS = Path(".snakemake/locks")
log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--config", type=Path, help="config of the run that is to continue: refused while a workflow of it is running"
    )


def run(args: argparse.Namespace) -> int:
    """End orphans, clear locks; status 1 when a workflow of the run is running or the owner of a lock is not known.

    Raises:
        RunFailed: a workflow of the run is running, here or on another host, or nothing is known of a lock's owner.
    """
    from segbench.core.errors import RunFailed
    from segbench.core.files import remove_abandoned_parts
    from segbench.experiment.config import load_config

    name = load_config(args.config).run if args.config else None
    known = owners()
    living = {key: record for key, record in known.items() if record.alive}
    locks = list(LOCKS.glob("*")) if LOCKS.exists() else []
    same = [record for record in living.values() if name in (None, record.about)]
    if same:  # its lock may be gone: Snakemake removes all locks of the folder when another workflow there ends
        raise RunFailed(_refusal(same[0]))
    for path in sorted(Path("results").glob("*/state/running/*.json")):
        _end_orphan(path, known, living)
    dead = {key: record for key, record in known.items() if key not in living}
    unknown = []
    for path in locks:
        if _is_of(path, living):
            continue
        if not _is_of(path, dead):
            unknown.append(path)
            continue
        path.unlink()
        log.info("cleared the stale lock %s", path)
    for key in dead:
        (OWNERS / f"{key}.json").unlink(missing_ok=True)
    for folder in (Path("results"), Path("reports"), Path("data/preprocessed")):
        for path in remove_abandoned_parts(folder):
            log.info("removed the half-written %s of a dead process", path)
    if unknown:
        raise RunFailed("the folder is locked by a workflow whose owner is unknown; if none runs: snakemake --unlock")
    return 0


def _refusal(record: ProcessRecord) -> str:
    if record.here:
        return f"the workflow of run {record.about} is running here ({record.text()}); wait for it or end it"
    return (
        f"the workflow of run {record.about} was started by {record.text()}, and whether it runs is only known there; "
        f"run recover on {record.host}, or, if that host is gone, delete {OWNERS}/{record.host}-{record.pid}.json"
    )


def _is_of(lock: Path, workflows: dict[str, ProcessRecord]) -> bool:
    """Tell whether a lock, which lists files, lists one of the run of any of these workflows."""
    text = lock.read_text(encoding="utf-8", errors="replace")
    return any(f"results/{record.about}/" in text for record in workflows.values())


def _end_orphan(path: Path, known: dict[str, ProcessRecord], living: dict[str, ProcessRecord]) -> None:
    record = read_record(path)
    if record is not None and record.alive:
        reason = _reason_to_leave(path, record, known, living)
        if reason:
            log.info("left alone: %s of %s%s", path.stem, record.text(), reason)
            return
        log.info("ending the orphaned job %s (%s)", path.stem, record.text())
        if record.slurm_job:
            subprocess.run(["scancel", record.slurm_job], check=True)
        else:
            _end(record.pid)
    path.unlink(missing_ok=True)


def _reason_to_leave(
    path: Path, record: ProcessRecord, known: dict[str, ProcessRecord], living: dict[str, ProcessRecord]
) -> str:
    if path.stat().st_uid != os.getuid():
        return ", which belongs to another user"
    if not record.here and not record.slurm_job:
        return f"; if that host is gone, delete {path}"
    if record.owner not in known or record.owner in living:
        return ", whose workflow is not known to be dead"
    return ""


def _end(pid: int) -> None:
    """End a process gently, then it and its children, such as those of a command of an external model, for good."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        process.terminate()
        psutil.wait_procs([process], timeout=10)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=10)
