"""Convert a data set from the form in which its owners publish it to NIfTI, case by case; a broken run goes on."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench convert vs_seg --source manifest-1614264588831 --data-root /path/to/data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("name", metavar="DATASET", help="a data set whose step in `list datasets` names this command")
    parser.add_argument("--source", type=Path, required=True, help="folder as downloaded")
    parser.add_argument("--data-root", type=Path, required=True, help="folder that receives one folder per data set")


def run(args: argparse.Namespace) -> int:
    """Say how many cases were written; those that could not be read exit with status 2, one line each."""
    import importlib

    from segbench.core import cards
    from segbench.core.errors import input_error, suggestion

    known = {name: card for name, card in cards.dataset_cards().items() if f"segbench convert {name}" in card["obtain"]}
    if args.name not in known:
        raise input_error(
            "convert",
            found=f"data set {args.name!r}",
            expected="one that needs converting",
            fix=suggestion(args.name, known),
        )
    module = importlib.import_module(f"segbench.data.sources.{args.name}")
    folder = args.data_root / known[args.name]["folder"]
    print(f"{args.name}: {module.convert(args.source, folder)} case(s) written to {folder}")
    return 0
