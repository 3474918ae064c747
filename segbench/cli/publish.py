"""Publish the report of a finished run: verify results/RUN/report and copy it to reports/RUN, where git keeps it."""

from __future__ import annotations

import argparse

from segbench.core.paths import PAGE

EXAMPLE = "python -m segbench publish demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("name", metavar="RUN", help="name of the run; its report is in results/RUN/report")


def run(args: argparse.Namespace) -> int:
    """Publish, and say where the report is."""
    from segbench.reporting.publish import publish

    print(publish(args.name) / PAGE)
    return 0
