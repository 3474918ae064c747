"""Say whether every job of a run ended well; status 1 names the failed ones."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench status --config config/config.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--config", type=Path, required=True, help="config of the run")


def run(args: argparse.Namespace) -> int:
    """Print failed jobs, or where the report is."""
    from segbench.core.errors import RunFailed
    from segbench.core.paths import RunPaths
    from segbench.experiment.config import load_config
    from segbench.experiment.jobs import failed_outcomes

    config = load_config(args.config)
    failed = failed_outcomes(config)
    if failed:
        named = "; ".join(f"{record['command']} {record['job']} ({record['reason']})" for record in failed)
        raise RunFailed(f"{len(failed)} job(s) failed and will be tried again by the next run: {named}")
    print(f"report: {RunPaths(config.run).report / 'index.html'}")
    return 0
