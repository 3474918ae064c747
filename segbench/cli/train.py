"""Train one job of a run and record its outcome; a training that was done from the same inputs is not repeated."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from segbench.cli._job import add_job_arguments, check_machine, computing_device, run_job
from segbench.core.memory import keep_freed_memory

if TYPE_CHECKING:
    from segbench.experiment.context import JobContext

STATES = ("state.pt", "state.previous.pt")
EXAMPLE = "python -m segbench train --config results/demo/config.json --job upstream.uniseg.random.joint.f0.s0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_job_arguments(parser)
    parser.add_argument("--workers", type=int, default=0, help="processes that load and augment patches")


def run(args: argparse.Namespace) -> int:
    """Train and write outcome.json, record.json, weights.pt and log.csv; an external model trains by its command."""
    from segbench.experiment.context import JobContext

    check_machine(threads=(args.threads, 1), workers=(args.workers, 0))
    context = JobContext.of(args.config, args.job)
    products = [] if context.job.external else ["weights.pt"]  # a deleted log trains nothing again

    def work() -> dict[str, Any]:
        if context.job.external:
            from segbench.evaluation import external_commands

            return external_commands.train(context)
        return _train_here(context, args)

    return run_job(
        context,
        "train",
        context.train_folder,
        context.identity,
        products=products,
        resumable=[context.paths.state("train", context.job.id) / name for name in STATES],
        work=work,
    )


def _train_here(context: JobContext, args: argparse.Namespace) -> dict[str, Any]:
    keep_freed_memory()  # before PyTorch allocates
    import torch

    from segbench.training.loop import train

    return train(context, device=torch.device(computing_device(args.threads)), workers=args.workers)
