"""Tell what this machine has and whether segbench can run here."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from importlib import metadata

from segbench.core import devices

EXAMPLE = "python -m segbench doctor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no options."""


def run(args: argparse.Namespace) -> int:
    """Print one line per finding; status 1 when something that is needed is missing."""
    problems = []
    _say("Python", sys.version.split()[0])
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        problems.append("Python 3.11 or 3.12 is expected")
    for package in ("torch", "monai", "nibabel", "pandas", "snakemake", "batchgeneratorsv2", "edt", "medpy"):
        try:
            _say(package, metadata.version(package))
        except metadata.PackageNotFoundError:
            _say(package, "missing")
            problems.append(f"{package} is not installed: run `make run`, which builds .venv from the lock")
    _say("processors", str(devices.cores()))
    _say("free disk", f"{shutil.disk_usage('.').free / 1e9:.1f} GB in this folder")
    _say("data folder", os.environ.get("SEGBENCH_DATA", "SEGBENCH_DATA is not set (only needed for real data)"))
    for line in _device_lines():
        _say("device", line)
    _say("leases", _leases())
    _say("precision", _precision())
    _say("workers", _workers())
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _say(what: str, finding: str) -> None:
    print(f"{what:<18} {finding}")


def _device_lines() -> list[str]:
    found, holders = devices.devices(), devices.holders()
    if not found:
        return ["CPU (no CUDA device)"]
    return [f"{device.number}: {device.name}, {device.uuid}, {_holder(holders[device.uuid])}" for device in found]


def _holder(pids: list[int]) -> str:
    return "leased by process " + " and ".join(map(str, pids)) if pids else "free"


def _leases() -> str:
    variable = devices.scheduler()
    if variable:
        return f"none: the scheduler gives devices to jobs ({variable} is set)"
    if not devices.devices():
        return "none: there is no device"
    jobs = devices.jobs_per_device()
    return "one device for one job" if jobs == 1 else f"one device for {jobs} jobs ({devices.PER_DEVICE})"


def _precision() -> str:
    """Return what `precision: auto` is here; a device is looked at and not leased."""
    try:
        import torch
    except ImportError:
        return "unknown without torch"
    from segbench.inference.precision import choose

    kinds = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return "auto is " + ", ".join(f"{choose(torch.device(kind), 'auto')} on {kind}" for kind in kinds)


def _workers() -> str:
    jobs = devices.jobs_at_a_time()
    if jobs is None:
        return "as many jobs at a time as --cores allows, each with the threads of its rule"
    threads = devices.threads_per_job(devices.cores(), devices.machine_devices() * devices.jobs_per_device())
    return f"{jobs} jobs at a time on devices, {threads} threads each"
