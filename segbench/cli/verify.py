"""Rebuild a report, or that of a bundle, from its own scores.csv and run.json; status 1 names files that differ.

Needs neither images nor a GPU nor torch. Equal bytes are expected for the versions of envs/lock.txt; figures drawn by
another matplotlib differ in bytes, tables do not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench verify reports/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("report", type=Path, help="folder of a rendered report, or a bundle (zip file)")


def run(args: argparse.Namespace) -> int:
    """Rebuild, compare, and say what differs."""
    from segbench.core.errors import RunFailed

    if args.report.is_dir():
        from segbench.reporting.verify import differing_files

        differing = differing_files(args.report)
    else:
        from segbench.reporting.bundle import differences

        differing = differences(args.report)
    if differing:
        raise RunFailed(f"{args.report} is not what its score rows give: {'; '.join(differing)}")
    print(f"{args.report}: every file is rebuilt byte for byte from scores.csv and run.json")
    return 0
