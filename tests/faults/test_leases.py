"""Leases of devices survive the death of their holders: no device is used twice, none is idle while a job waits."""

import collections
import itertools
import json
import os
import subprocess
import sys

from segbench.core.devices import FAKE, FOLDER, SCHEDULER_VARIABLES
from tests.paths import ROOT

JOBS, DEVICES, AT_A_TIME = 200, ["GPU-a", "GPU-b", "GPU-c", "GPU-d"], 8
LEAST_BUSY = 0.9


def run_jobs(folder, seed: int) -> dict:
    environment = {name: value for name, value in os.environ.items() if name not in SCHEDULER_VARIABLES}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    environment |= {FAKE: ",".join(DEVICES), FOLDER: str(folder)}
    command = [sys.executable, str(ROOT / "tests" / "faults" / "lease_job.py"), str(JOBS), str(AT_A_TIME), str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def least_busy_fraction(found: dict) -> float:
    """Check that no device was used twice at a time and that every job got one; return how busy the idlest was."""
    begun, of_device = {}, collections.defaultdict(list)
    for moment, kind, job, device in found["events"]:
        if kind == "begin":
            begun[job] = moment
        else:
            of_device[device].append((begun[job], moment))
    kinds = collections.Counter(found["kinds"])
    assert kinds["computing"] >= 20
    assert kinds["waiting"] >= 10
    assert found["killed"] > kinds["computing"], "jobs died with a lease, and at least one while it waited"
    survivors = [number for number, kind in enumerate(found["kinds"]) if kind != "waiting"]
    assert set(survivors) <= set(begun), "a job that was not killed got a device"
    assert sorted(of_device) == DEVICES
    for device, intervals in of_device.items():
        intervals.sort()
        for (_, end), (begin, _) in itertools.pairwise(intervals):
            assert end <= begin, f"{device} was used twice at a time"
    assert not any(found["held"].values()), "all leases are given back"
    first = max(intervals[0][0] for intervals in of_device.values())
    last = min(intervals[-1][1] for intervals in of_device.values())
    return min(
        sum(min(end, last) - max(begin, first) for begin, end in intervals if end > first and begin < last)
        / (last - first)
        for intervals in of_device.values()
    )


def test_two_hundred_jobs_on_four_devices_with_random_kills(tmp_path):
    """Jobs take 10 to 50 ms, so that other load of the machine shows as idle time: the best of five runs counts."""
    busy = []
    for seed in range(5):
        busy.append(least_busy_fraction(run_jobs(tmp_path / str(seed), seed)))
        if busy[-1] >= LEAST_BUSY:
            break
    assert max(busy) >= LEAST_BUSY, busy
