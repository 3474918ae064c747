"""Starts many short jobs that lease a device each, kills some of them, and prints what happened as JSON.

Run as `python tests/faults/lease_job.py JOBS AT_A_TIME SEED`. A job appends a line when it has its lease and one when
it ends; a job that is to be killed waits for its SIGKILL while it holds the lease, or before.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from segbench.core import devices

assert "torch" not in sys.modules


def say(descriptor: int, *words: object) -> None:
    os.write(descriptor, (json.dumps([time.monotonic(), *words]) + "\n").encode())


def job(number: int, seconds: float, kill: str, descriptor: int) -> None:
    """Lease a device, compute, end; `kill` says whether this job kills itself: '', 'waiting' or 'computing'."""
    if kill == "waiting":
        signal.setitimer(signal.ITIMER_REAL, seconds / 4)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    device = devices.take_device()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert device is not None
    assert os.environ["CUDA_VISIBLE_DEVICES"] == device.uuid
    say(descriptor, "begin", number, device.uuid)
    time.sleep(seconds / 2 if kill == "computing" else seconds)
    say(descriptor, "end", number, device.uuid)
    if kill == "computing":
        os.kill(os.getpid(), signal.SIGKILL)


def main(count: int, at_a_time: int, seed: int) -> None:
    rng = random.Random(seed)
    kinds = [rng.choices(["", "computing", "waiting"], [0.7, 0.2, 0.1])[0] for _ in range(count)]
    plan = [(number, rng.uniform(0.05, 0.15), kind) for number, kind in enumerate(kinds)]
    path = Path(os.environ["SEGBENCH_LEASES"]) / "events"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    alive: set[int] = set()
    killed = 0

    def wait_for_one() -> None:
        nonlocal killed
        pid, status = os.wait()
        alive.discard(pid)
        killed += os.WIFSIGNALED(status)

    for number, seconds, kind in plan:
        if len(alive) >= at_a_time:
            wait_for_one()
        pid = os.fork()
        if pid == 0:
            try:
                job(number, seconds, kind, descriptor)
            finally:
                os._exit(0)
        alive.add(pid)
    while alive:
        wait_for_one()
    events = [json.loads(line) for line in path.read_text().splitlines()]
    held = devices.holders()
    print(json.dumps({"events": events, "killed": killed, "kinds": kinds, "held": held}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
