"""Leases of devices survive the death of their holders: no device is used twice, none is idle while a job waits."""

import collections
import json
import os
import statistics
import subprocess
import sys

from segbench.core.devices import FAKE, FOLDER, SCHEDULER_VARIABLES
from tests.paths import ROOT

JOBS, DEVICES, AT_A_TIME = 200, ["GPU-a", "GPU-b", "GPU-c", "GPU-d"], 8


def run_jobs(folder, seed: int) -> dict:
    environment = {name: value for name, value in os.environ.items() if name not in SCHEDULER_VARIABLES}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    environment |= {FAKE: ",".join(DEVICES), FOLDER: str(folder)}
    command = [sys.executable, str(ROOT / "tests" / "faults" / "lease_job.py"), str(JOBS), str(AT_A_TIME), str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_leases(found: dict) -> float:
    """Check that no device was used twice at a time and that every job got one.

    Returns:
        How many jobs ended on other devices, on average, between two jobs of a device.
    """
    kinds = collections.Counter(found["kinds"])
    assert kinds["computing"] >= 20
    assert kinds["waiting"] >= 10
    assert found["killed"] > kinds["computing"], "jobs died with a lease, and at least one while it waited"
    begun = {job for _, kind, job, _ in found["events"] if kind == "begin"}
    survivors = {number for number, kind in enumerate(found["kinds"]) if kind != "waiting"}
    assert survivors <= begun, "a job that was not killed got a device"
    assert not any(found["held"].values()), "all leases are given back"
    computing: set[str] = set()
    overtaken: dict[str, int] = {}  # of devices that are free: jobs that ended since on others
    counts = []
    for _, kind, _, device in found["events"]:
        if kind == "begin":
            assert device not in computing, f"{device} was used twice at a time"
            computing.add(device)
            if device in overtaken:
                counts.append(overtaken.pop(device))
        else:
            computing.remove(device)
            overtaken = {free: count + 1 for free, count in overtaken.items()} | {device: 0}
    assert sorted(overtaken) == DEVICES
    return statistics.mean(counts)


def test_two_hundred_jobs_on_four_devices_with_random_kills(tmp_path):
    """Twice as many jobs as devices are alive, so that a freed device is the next to be taken, on average.

    One that lay idle would be overtaken by the three others. `python -m benchmarks.leases` shows how busy they are.
    """
    assert check_leases(run_jobs(tmp_path, seed=0)) < 1
