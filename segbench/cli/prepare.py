"""Prepare the cases of one task into the shared store and write the index of the run."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench prepare --config results/demo/config.json --task phantom_liver --workers 2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("--config", type=Path, required=True, help="resolved config of the run")
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument("--workers", type=int, default=1, help="cases prepared at once")


def run(args: argparse.Namespace) -> int:
    """Prepare every case that is not in the store yet."""
    from segbench.core.case import read_manifest
    from segbench.core.config import load_config
    from segbench.core.files import write_json
    from segbench.core.paths import PREPARED_ROOT, RunPaths
    from segbench.data.preprocess import prepare_task
    from segbench.data.recipes import recipe_for

    config = load_config(args.config)
    paths, task = RunPaths(config.run), config.task(args.task)
    recipe = recipe_for(task, config.recipes)
    folders = prepare_task(
        read_manifest(paths.manifest(task.name)),
        task,
        config.dataset_cards[task.name],
        recipe,
        store_root=PREPARED_ROOT,
        workers=args.workers,
    )
    cases = {case: folder.as_posix() for case, folder in folders.items()}
    write_json(paths.prepared(task.name), {"task": task.name, "recipe": recipe.name, "cases": cases})
    return 0
