"""What a process has used; standard library only, so that a peer's environment can import it from its folder."""

from __future__ import annotations

import resource
from pathlib import Path


def cpu_seconds() -> float:
    """Return processor seconds of this process and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in used)


def memory_mib() -> tuple[float, float]:
    """Return resident memory of this process, and the part of it that is not backed by files, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return tuple(int(found[key].split()[0]) / 1024 for key in ("VmRSS", "RssAnon"))
