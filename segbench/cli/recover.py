"""Make an interrupted run ready to continue: end orphaned jobs and clear a stale workflow lock.

The lock is cleared only when the process that owned it is dead; a living owner is left alone and named.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
from pathlib import Path

from segbench.experiment.graph import OWNER

EXAMPLE = "python -m segbench recover"
LOCKS = Path(".snakemake/locks")
log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no options: it looks at the current folder."""


def run(args: argparse.Namespace) -> int:
    """End orphans and clear the lock; status 1 when the workflow is still running."""
    from segbench.core.errors import RunFailed

    locks = list(LOCKS.glob("*")) if LOCKS.exists() else []
    owner = _read(OWNER)
    if owner is not None and _alive(owner):
        if locks:
            raise RunFailed(f"a workflow is running here (process {owner['pid']}); wait for it or end it")
        return 0
    for path in sorted(Path("results").glob("*/state/running/*.json")):
        _end_orphan(path)
    if locks and owner is None:
        raise RunFailed("the folder is locked by a workflow whose owner is unknown; if none runs: snakemake --unlock")
    for path in locks:
        path.unlink()
        log.info("cleared the stale lock %s of the dead process %s", path, owner["pid"])
    return 0


def _read(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _alive(record: dict) -> bool:
    """Tell whether the very process of the record lives; a reused process number has another creation time."""
    import psutil

    try:
        process = psutil.Process(record["pid"])
        return abs(process.create_time() - record["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end_orphan(path: Path) -> None:
    import psutil

    record = _read(path)
    if record is not None and _alive(record):
        process = psutil.Process(record["pid"])
        log.info("ending the orphaned job %s (process %d)", path.stem, record["pid"])
        family = [process, *process.children(recursive=True)]  # a command of an external model has children
        process.terminate()
        psutil.wait_procs([process], timeout=10)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=10)
    path.unlink(missing_ok=True)
