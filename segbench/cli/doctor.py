"""Tell what this machine has and whether segbench can run here."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from importlib import metadata

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
    _say("processors", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()))
    _say("free disk", f"{shutil.disk_usage('.').free / 1e9:.1f} GB in this folder")
    _say("data folder", os.environ.get("SEGBENCH_DATA", "SEGBENCH_DATA is not set (only needed for real data)"))
    _say("device", _device())
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _say(what: str, finding: str) -> None:
    print(f"{what:<18} {finding}")


def _device() -> str:
    try:
        import torch
    except ImportError:
        return "unknown without torch"
    if not torch.cuda.is_available():
        return "CPU (no CUDA device)"
    return ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
