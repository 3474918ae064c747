"""Draft the CLAIM and MICCAI reproducibility checklists from the record of a run; blanks are marked."""

from __future__ import annotations

import argparse
from pathlib import Path

from segbench.core.paths import RUN_RECORD

EXAMPLE = "python -m segbench checklist reports/demo --out checklists.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("folder", type=Path, help="folder with run.json: results/RUN, or a rendered report")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")


def run(args: argparse.Namespace) -> int:
    """Write the drafts, and say where they are."""
    from segbench.core.files import write_text
    from segbench.core.run_record import read_run_record
    from segbench.reporting.checklists import checklists

    write_text(args.out, checklists(read_run_record(args.folder / RUN_RECORD)))
    print(args.out)
    return 0
