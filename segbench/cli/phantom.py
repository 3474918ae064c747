"""Write the synthetic phantom world: labelled NIfTI volumes in Medical Segmentation Decathlon layout."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m segbench phantom --out data/raw/phantom --seed 2023 --train 10 --test 4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--out", type=Path, required=True, help="folder that receives one folder per task")
    parser.add_argument("--seed", type=int, default=2023, help="same seed, same bytes (default: %(default)s)")
    parser.add_argument("--train", type=int, default=10, help="training cases per task (default: %(default)s)")
    parser.add_argument(
        "--test",
        type=int,
        default=4,
        help="test cases per task (default: %(default)s); all cases carry labels, the splits say which is which",
    )
    parser.add_argument("--workers", type=int, default=1, help="tasks written at once (default: %(default)s)")
    parser.add_argument("--tasks", help="comma-separated task names (default: all phantom tasks)")


def run(args: argparse.Namespace) -> int:
    """Write the world and say where it is."""
    from segbench.cli._counts import count_problems
    from segbench.core.errors import raise_problems
    from segbench.data.phantoms.world import write_world

    raise_problems(
        count_problems(seed=(args.seed, 0), train=(args.train, 1), test=(args.test, 1), workers=(args.workers, 1))
    )
    tasks = None if args.tasks is None else [name.strip() for name in args.tasks.split(",") if name.strip()]
    write_world(args.out, seed=args.seed, cases_per_task=args.train + args.test, tasks=tasks, workers=args.workers)
    print(f"synthetic world of seed {args.seed} written to {args.out}")
    return 0
