"""Propose spacings, patch and poolings from the training cases and write them as a piece of config to edit."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench plan --config config/real_small.yaml --task task04_hippocampus --out plan.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, help="config of a run: the training cases of its split are looked at")
    what.add_argument("--data", type=Path, help="folder in Decathlon or nnU-Net layout: all its cases are looked at")
    parser.add_argument("--task", action="append", help="with --config: a task to plan; repeatable (default: all)")
    parser.add_argument(
        "--entry",
        metavar="ID",
        help="with --config: a network of downstream.models that keeps its poolings; each of its tasks gets a recipe "
        "and a patch of its own",
    )
    parser.add_argument("--fold", type=int, help="with --config: the fold to plan (default: the first of data.folds)")
    parser.add_argument("--patch-voxels", type=int, default=128**3, help="most voxels of a patch (default 128^3)")
    parser.add_argument("--out", type=Path, required=True, help="the YAML file to write")
    parser.add_argument("--force", action="store_true", help="write over an existing file")
    parser.add_argument("--workers", type=int, default=1, help="processes that read images (default 1)")


def run(args: argparse.Namespace) -> int:
    """Measure, plan, write; nothing is written when a case cannot be read."""
    from segbench.core.errors import raise_problems
    from segbench.core.files import write_text
    from segbench.data.planning.entry import as_entry_yaml, entry_problems
    from segbench.data.planning.inputs import planned_of_config, planned_of_folder
    from segbench.data.planning.plan import as_yaml, measure, plan_task
    from segbench.experiment.config import load_config

    _refuse(args)
    names, config = args.task, load_config(args.config) if args.entry else None
    if config is not None:
        names = args.task or [task.name for task in config.tasks_of("downstream")]
        raise_problems(entry_problems(config, args.entry, names))
    planned = planned_of_config(args.config, names, args.fold) if args.config else planned_of_folder(args.data)
    plans = {
        name: plan_task(measure(item.cases, title=name, ignored=item.ignored, workers=args.workers), item.modalities)
        for name, item in planned.items()
    }
    about = [f"looked at {item.looked_at}" for item in planned.values()]
    head = ["A proposal to edit; merge it into your config (docs/preprocessing.md).", *about]
    if config is not None:
        text = as_entry_yaml(plans, config, args.entry, head=head, patch_voxels=args.patch_voxels)
    else:
        text = as_yaml(plans, head=head, tasks=bool(args.config), patch_voxels=args.patch_voxels)
    write_text(args.out, text)
    print(*about, f"wrote {args.out}", sep="\n")
    return 0


def _refuse(args: argparse.Namespace) -> None:
    from segbench.cli._counts import count_problems
    from segbench.core.errors import Problem, raise_problems

    problems = []
    if args.out.exists() and not args.force:
        problems.append(Problem(str(args.out), "a file", "a new file", "name another --out, or add --force"))
    if args.data and (args.task or args.entry or args.fold is not None):
        problems.append(Problem("--task, --entry, --fold", "given with --data", "--config", "leave them out"))
    raise_problems(problems + count_problems(workers=(args.workers, 1), patch_voxels=(args.patch_voxels, 8**3)))
