"""Predict and score the test cases of one job and record the outcome."""

from __future__ import annotations

import argparse
import os

from segbench.cli._job import add_job_arguments, computing_device, run_job

EXAMPLE = "python -m segbench evaluate --config results/demo/config.json --job upstream.oracle.none.joint.f0.s0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_job_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Predict, score, and write outcome.json and scores.csv."""
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))

    def work(config, job) -> dict:
        from segbench.evaluation.evaluate import evaluate

        untrained = job.control or job.external  # these never import torch
        return evaluate(config, job, device="cpu" if untrained else computing_device(args.threads))

    return run_job(args, "evaluate", work, lambda paths, job: paths.evaluate(job.id))
