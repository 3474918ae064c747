"""How busy leased devices are while jobs wait for them: 200 short jobs on 4 fake devices, some of them killed.

    python -m benchmarks.leases

For each of five seeds, the fraction of time for which the idlest device computed, from when all devices have had a job
until the first has had its last. Ends with `result: NAME VALUE TARGET ok|short` of the median, and status 1 when short.
"""

from __future__ import annotations

import collections
import statistics
import sys
import tempfile
from pathlib import Path

from tests.faults.test_leases import run_jobs

SEEDS, TARGET = range(5), 0.9


def least_busy(events: list[tuple[float, str, int, str]]) -> float:
    """Return the busy fraction of the idlest device from begins and ends (seconds, "begin" or "end", job, device)."""
    begun: dict[int, float] = {}
    jobs: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)
    for moment, kind, job, device in events:
        if kind == "begin":
            begun[job] = moment
        else:
            jobs[device].append((begun[job], moment))
    first = max(intervals[0][0] for intervals in jobs.values())
    last = min(intervals[-1][1] for intervals in jobs.values())
    return min(
        sum(max(0.0, min(end, last) - max(begin, first)) for begin, end in intervals) / (last - first)
        for intervals in jobs.values()
    )


def main() -> None:
    """Run the jobs once for each seed and print how busy the idlest device was."""
    found = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            found.append(least_busy(run_jobs(Path(folder), seed)["events"]))
        print(f"seed {seed}: {found[-1]:.3f}", flush=True)
    value = statistics.median(found)
    print(f"result: leases {value:.3f} {TARGET} {'ok' if value >= TARGET else 'short'}")
    sys.exit(value < TARGET)


if __name__ == "__main__":
    main()
