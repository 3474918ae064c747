"""Pack a finished run for a reviewer: scores, record, report, config, splits and environment; no image, no weights."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench bundle demo --out demo.zip"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("name", metavar="RUN", help="name of the run; its results are in results/RUN")
    parser.add_argument("--out", type=Path, required=True, help="zip file to write")
    parser.add_argument("--pseudonymise", action="store_true", help="replace ids of patients and cases by numbers")


def run(args: argparse.Namespace) -> int:
    """Write the bundle, and say how to check it."""
    from segbench.reporting.bundle import write_bundle

    write_bundle(args.name, args.out, pseudonymise=args.pseudonymise)
    print(f"{args.out}: check it with `python -m segbench verify {args.out}`")
    return 0
