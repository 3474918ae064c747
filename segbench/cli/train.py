"""Train one job of a run and record its outcome; a training that was done from the same inputs is not repeated.

Under `torchrun` several processes train the job together, each on a device of its own; the first one records it.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from segbench.cli import _tensorboard as tensorboard
from segbench.cli._job import add_job_arguments, check_machine, computing_device, kept_outcome, run_job
from segbench.core import devices
from segbench.core.errors import Problem, RunFailed, raise_problems
from segbench.core.memory import keep_freed_memory
from segbench.core.paths import WEIGHTS

if TYPE_CHECKING:
    from segbench.experiment.context import JobContext

STATES = ("state.pt", "state.previous.pt", "tuning")
EXAMPLE = "python -m segbench train --config results/demo/config.json --job upstream.uniseg.random.joint.f0.s0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_job_arguments(parser)
    parser.add_argument(
        "--workers",
        type=int,
        help="processes that load and augment patches; default: beside a GPU the job's threads but one, else none",
    )


def run(args: argparse.Namespace) -> int:
    """Train and write outcome.json, record.json, weights.pt and log.csv; an external model trains by its command."""
    from segbench.experiment.context import JobContext

    check_machine(threads=(args.threads, 1), workers=(args.workers, 0))
    keep_freed_memory()  # before PyTorch allocates
    context = JobContext.of(args.config, args.job)
    launched = devices.launched()
    raise_problems(_launch_problems(context, launched))
    watched = tensorboard.asked_for()
    products = [] if context.job.external else [WEIGHTS]  # a deleted log trains nothing again
    if launched.rank > 0:
        return _follow(context, args, products)

    def work() -> dict[str, Any]:
        if context.job.external:
            from segbench.evaluation import external_commands

            return external_commands.train(context)
        watch = tensorboard.Events(context.paths.events(context.job.id)) if watched else None
        return _train_here(context, args, watch)

    return run_job(
        context,
        "train",
        context.train_folder,
        context.identity,
        products=products,
        resumable=[context.train_state / name for name in STATES],
        work=work,
    )


def _launch_problems(context: JobContext, launched: devices.Launched) -> Iterator[Problem]:
    """Yield why this job cannot be trained by so many processes."""
    if launched.size == 1:
        return
    where, found = "torchrun", f"{launched.size} processes"
    if context.job.external or context.job.self_supervised:
        yield Problem(where, found, f"one process for {context.job.id}: only networks take several", "leave it out")
    batch, known = context.training.batch_size, devices.devices()
    if batch % launched.size:
        expected = f"as many as divide the batch: training.batch_size is {batch}"
        yield Problem(where, found, expected, "start fewer processes, or make the batch larger")
    if known and not devices.scheduler() and launched.local_size > len(known):
        found = f"{launched.local_size} processes on this machine"
        yield Problem(where, found, f"at most {len(known)}, a GPU for each", "start fewer processes")
    if not (context.job.external or context.job.self_supervised):
        from segbench.training.distributed import batch_norm_problem
        from segbench.training.loop import new_model

        on_gpus = bool(known or devices.scheduler())
        if problem := batch_norm_problem(new_model(context), launched.size, on_gpus=on_gpus):
            yield problem


def _follow(context: JobContext, args: argparse.Namespace, products: list[str]) -> int:
    """Train beside the first process, which records what comes of it."""
    logging.getLogger().setLevel(logging.ERROR)
    code_counts = not context.config.allow_mixed_training_code
    if kept_outcome(context.train_folder, context.identity, products, code_counts=code_counts) is not None:
        return 0
    try:
        _train_here(context, args)
    except RunFailed as error:  # all processes find it at the same step
        logging.getLogger(__name__).error("%s", error)
    return 0


def _train_here(
    context: JobContext, args: argparse.Namespace, watch: tensorboard.Events | None = None
) -> dict[str, Any]:
    from segbench.training.distributed import Ranks
    from segbench.training.loop import train
    from segbench.training.tuning import train_tuned

    ranks = Ranks.joined()
    with ranks.leasing():
        kind = computing_device(args.threads)
    ranks, device = ranks.with_device(kind)
    workers = loading_workers(kind) if args.workers is None else args.workers
    work = train if context.training.tuning is None else train_tuned
    facts = work(context, device=device, workers=workers, ranks=ranks, watch=watch)
    ranks.leave()
    return facts


def loading_workers(kind: str) -> int:
    """Return how many processes load patches: beside a GPU the threads of this process but one, at least one."""
    import torch

    return max(1, torch.get_num_threads() - 1) if kind == "cuda" else 0
