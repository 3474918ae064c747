"""Preprocess the cases of one task into the shared store and write the index of the run."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

EXAMPLE = "python -m segbench preprocess --config results/demo/config.json --task phantom_liver --workers 2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--config", type=Path, required=True, help="resolved config of the run")
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument("--recipe", help="recipe that a downstream model names instead of the task's own")
    parser.add_argument("--workers", type=int, default=1, help="cases preprocessed at once")


def run(args: argparse.Namespace) -> int:
    """Preprocess every case that is not in the store yet."""
    from segbench.cli._counts import count_problems
    from segbench.core.case import read_manifest
    from segbench.core.errors import raise_problems
    from segbench.core.paths import PREPROCESSED_ROOT, RunPaths
    from segbench.data.preprocess import preprocess_folds
    from segbench.data.preprocessing_recipes import preprocessing_recipe
    from segbench.experiment.config import load_config
    from segbench.experiment.splits import read_splits

    raise_problems(count_problems(workers=(args.workers, 1)))
    config = load_config(args.config)
    paths, task = RunPaths(config.run), config.task(args.task)
    if args.recipe:
        task = replace(task, preprocessing=args.recipe)
    splits = read_splits(paths.splits)
    index = preprocess_folds(
        read_manifest(paths.manifest(task.name)),
        task,
        config.dataset_cards[task.name],
        preprocessing_recipe(task, config.preprocessing_recipes),
        sides={fold: splits.of(fold, task.name).train for fold in splits.folds},
        store_root=PREPROCESSED_ROOT,
        workers=args.workers,
    )
    index.write(paths.preprocessed(task.name, config.own_preprocessing(task)))
    return 0
