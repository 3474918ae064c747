"""Predict and score the test cases of one job and record the outcome."""

from __future__ import annotations

import argparse
import os

from segbench.cli._job import add_job_arguments, run_job

EXAMPLE = "python -m segbench evaluate --config results/demo/config.json --job upstream.oracle.none.joint.f0.s0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add_job_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Predict, score, and write outcome.json and scores.csv."""
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))

    def work(config, job) -> dict:
        from segbench.evaluation.evaluate import evaluate

        return evaluate(config, job, device=_device(job, args.threads))

    return run_job(args, "evaluate", work, lambda paths, job: paths.evaluate(job.id))


def _device(job, threads: int) -> str:
    if job.control or job.external:
        return "cpu"  # these never import torch
    import torch

    torch.set_num_threads(threads)
    return "cuda" if torch.cuda.is_available() else "cpu"
