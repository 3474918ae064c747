"""Render the tables, figures and page of a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench report --results results/demo --out reports/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--results", type=Path, required=True, help="folder with scores.csv and run.json")
    parser.add_argument("--out", type=Path, required=True, help="folder that receives index.html, tables/ and figures/")


def run(args: argparse.Namespace) -> int:
    """Render and say where the page is."""
    from segbench.reporting.page import render

    render(args.results, args.out)
    print(args.out / "index.html")
    return 0
