"""Sides of a comparison on one GPU: all get ready at the same time, then each is measured alone.

Compiling and choosing algorithms takes a minute and no turn of the measurement. A side writes READY beside its job
file, waits for GO, measures, and prints one line of JSON.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

READY, GO = "ready", "go"
LOOK_SECONDS = 0.05


def timed_steps(step: Callable[[int], float], job: Mapping[str, Any]) -> dict[str, Any]:
    """Take the steps that do not count, wait for this side's turn, and return the times of the others.

    Args:
        step: takes the step of a number as a training does, which may leave the device at work, and returns a loss.
        job: `warm_up` and `steps`: how many; `folder`: where this side says that it is ready.
    """
    import torch

    began = time.perf_counter()
    for number in range(job["warm_up"]):
        step(number)
    warm = time.perf_counter() - began
    torch.cuda.empty_cache()
    wait_for_turn(job)
    seconds = []
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    for number in range(job["warm_up"], job["warm_up"] + job["steps"]):
        began = time.perf_counter()
        loss = step(number)
        seconds.append(time.perf_counter() - began)
    torch.cuda.synchronize()
    counted = seconds[2:]  # memory is taken anew in the first
    return {
        "seconds": statistics.median(counted),
        "smallest": min(counted),
        "largest": max(counted),
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20,
        "warm_up_seconds": warm,
        "loss": loss,
    }


def wait_for_turn(job: Mapping[str, Any]) -> None:
    """Say that this side is ready, and wait until nothing else is measured."""
    folder = Path(job["folder"])
    (folder / READY).touch()
    while not (folder / GO).exists():
        time.sleep(LOOK_SECONDS)


def measured_in_turn(sides: Mapping[str, tuple[Sequence[str], Mapping[str, Any]]], folder: Path) -> dict[str, Any]:
    """Start all sides, let each measure when all are ready, and return the JSON of each.

    Args:
        sides: name -> command without its last argument, which is the file of the job, and the job.
        folder: for their jobs and logs.
    """
    processes = {}
    for number, (name, (command, job)) in enumerate(sides.items()):
        own = folder / str(number)
        own.mkdir()
        (own / "job.json").write_text(json.dumps({**job, "folder": str(own)}), encoding="utf-8")
        with open(own / "stderr", "wb") as log:
            process = subprocess.Popen([*command, str(own / "job.json")], stdout=subprocess.PIPE, stderr=log)
        processes[name] = (process, own)
    for process, own in processes.values():
        while not (own / READY).exists() and process.poll() is None:
            time.sleep(LOOK_SECONDS)
    found = {}
    for name, (process, own) in processes.items():
        (own / GO).touch()
        output, _ = process.communicate()
        if process.returncode:
            print(f"{name} failed:\n{(own / 'stderr').read_text(errors='replace')[-2000:]}", file=sys.stderr)
            continue
        found[name] = json.loads(output.decode().strip().splitlines()[-1])
        print(f"measured {name}: {found[name]['seconds']:.4f} s a step", file=sys.stderr, flush=True)
    return found
