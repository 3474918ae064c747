"""Fetch data sets whose owners let anyone download them; for the others, say the step to take."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench fetch msd_spleen msd_lung --data-root /path/to/data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("names", nargs="+", metavar="DATASET", help="names as `list datasets` shows them")
    parser.add_argument("--data-root", type=Path, required=True, help="folder that receives one folder per data set")


def run(args: argparse.Namespace) -> int:
    """Print the state of each data set; those that a person must get exit with status 2, one line each."""
    from segbench.core import cards
    from segbench.core.errors import InputError, Problem, raise_problems, suggestion
    from segbench.data.fetch import fetch

    known = cards.dataset_cards()
    raise_problems(
        Problem("fetch", f"data set {name!r}", "a data set with a card", suggestion(name, known))
        for name in args.names
        if name not in known
    )
    problems: list[Problem] = []
    for name in args.names:
        try:
            print(f"{name}: {fetch(name, known[name], args.data_root)}", flush=True)
        except InputError as error:
            problems += error.problems
    raise_problems(problems)
    return 0
