"""Split the cases of a run by patient and write splits.json."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench split --config results/demo/config.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--config", type=Path, required=True, help="resolved config of the run")


def run(args: argparse.Namespace) -> int:
    """Read the manifests and write the split."""
    from segbench.core.case import read_manifest
    from segbench.core.files import write_json
    from segbench.core.paths import RunPaths
    from segbench.data.splitting.folds import make_splits
    from segbench.data.splitting.protocols import check_organs
    from segbench.experiment.config import load_config
    from segbench.experiment.jobs import folds_to_split

    config = load_config(args.config)
    check_organs(config.tasks, config.data)
    paths = RunPaths(config.run)
    cases = {task.name: read_manifest(paths.manifest(task.name)) for task in config.tasks}
    namespaces = {task.name: config.dataset_cards[task.name]["patient_namespace"] for task in config.tasks}
    data = config.data.model_copy(update={"folds": folds_to_split(config.data)})
    write_json(paths.splits, make_splits(cases, namespaces, data, lists=config.split_paths))
    return 0
