"""Say how a run stands, job by job, and where its report is; status 1 unless all is done as the config asks."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path
from typing import Any

EXAMPLE = "python -m segbench status --config config/config.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--config", type=Path, required=True, help="config of the run")
    parser.add_argument("--ledger", type=Path, help="CSV file to write: what each job cost (docs/performance.md)")


def run(args: argparse.Namespace) -> int:
    """Print a line of counts, a line for each job that needs attention, and where the report is."""
    from segbench.core.paths import RunPaths
    from segbench.experiment.config import load_config
    from segbench.experiment.status import ledger, run_status

    config = load_config(args.config)
    if args.ledger:
        _write(args.ledger, ledger(config))
    status = run_status(config)
    print(
        f"{config.run}: {len(status.done)} jobs done, {len(status.running)} running, {len(status.waiting)} waiting, "
        f"{len(status.failed)} failed, {len(status.outdated)} outdated"
    )
    for name in status.running:
        print(f"running: {name}")
    for name, reason in status.failed.items():
        print(f"failed, tried again by the next run: {name}: {reason}")
    for name, reason in status.outdated.items():
        print(f"outdated, made anew by the next run: {name}: {reason}")
    if status.report:
        print(f"report: {status.report}")
    else:
        print(f"report: {RunPaths(config.run).report / 'index.html'}")
    return 0 if status.complete else 1


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    from segbench.core.files import write_text
    from segbench.experiment.status import LEDGER_COLUMNS

    stream = io.StringIO()
    writer = csv.DictWriter(stream, LEDGER_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())
