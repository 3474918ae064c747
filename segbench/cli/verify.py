"""Rebuild a report from its own scores.csv and run.json and compare every file; status 1 names those that differ.

Needs neither images nor a GPU. Equal bytes are expected for the versions of envs/lock.txt; figures drawn by another
matplotlib differ in bytes, tables do not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench verify reports/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("report", type=Path, help="folder of a rendered report")


def run(args: argparse.Namespace) -> int:
    """Rebuild, compare, and say what differs."""
    from segbench.core.errors import RunFailed
    from segbench.reporting.verify import differing_files

    differing = differing_files(args.report)
    if differing:
        raise RunFailed(f"{args.report} is not what its score rows give: {'; '.join(differing)}")
    print(f"{args.report}: every file is rebuilt byte for byte from scores.csv and run.json")
    return 0
