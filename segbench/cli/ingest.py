"""Check the cases of one task, write its manifest and the notices; every problem is one line and nothing is written."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench ingest --config results/demo/config.json --task phantom_liver"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--config", type=Path, required=True, help="resolved config of the run")
    parser.add_argument("--task", required=True, help="name of the task")


def run(args: argparse.Namespace) -> int:
    """Check and write the manifest."""
    from segbench.core.case import write_manifest
    from segbench.core.errors import raise_problems
    from segbench.core.files import write_json
    from segbench.core.paths import RunPaths
    from segbench.data.checks import check_task
    from segbench.data.ingest import ingest
    from segbench.experiment.config import load_config
    from segbench.experiment.source_files import write_record

    config = load_config(args.config)
    card, task = config.dataset_cards[args.task], config.task(args.task)
    partial = args.task in config.data.accept_partial
    checked = check_task(task, card, config.data_root, accept_partial=partial)
    raise_problems(checked.problems)
    for notice in checked.notices:
        print(f"notice: {notice}")
    paths, cases = RunPaths(config.run), ingest(task, card, config.data_root)
    if config.data.phantom is None:
        write_record(config.data_root / card["folder"], paths.sources(args.task), cases)
    write_json(paths.notices(args.task), checked.notices)
    write_manifest(paths.manifest(args.task), cases)
    return 0
