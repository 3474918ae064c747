"""Train one job of a run and record its outcome."""

from __future__ import annotations

import argparse

from segbench.cli._job import add_job_arguments, computing_device, run_job

EXAMPLE = "python -m segbench train --config results/demo/config.json --job upstream.uniseg.random.joint.f0.s0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_job_arguments(parser)
    parser.add_argument("--workers", type=int, default=0, help="processes that load and augment patches")


def run(args: argparse.Namespace) -> int:
    """Train and write outcome.json, weights.pt and log.csv; an external model trains by its command."""

    def work(config, job) -> dict:
        if job.external:
            from segbench.evaluation import external_commands as external_model

            return external_model.train(config, job)
        return _train_here(config, job, args)

    return run_job(args, "train", work, lambda paths, job: paths.train(job.id))


def _train_here(config, job, args: argparse.Namespace) -> dict:
    import torch

    from segbench.training.loop import train

    torch.use_deterministic_algorithms(True, warn_only=True)
    device = torch.device(computing_device(args.threads))
    return train(config, job, device=device, workers=args.workers)
