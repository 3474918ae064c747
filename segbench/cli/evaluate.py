"""Predict and score the test cases of one job and record the outcome; cases done from the same inputs are kept."""

from __future__ import annotations

import argparse
import os

from segbench.cli._job import add_job_arguments, check_machine, computing_device, run_job
from segbench.core.paths import SCORES

EXAMPLE = "python -m segbench evaluate --config results/demo/config.json --job upstream.oracle.none.joint.f0.s0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_job_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Predict, score, and write outcome.json, record.json and scores.csv."""
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    check_machine(threads=(args.threads, 1))
    from segbench.core.memory import keep_freed_memory
    from segbench.evaluation.trained import evaluation_identity, trained_outcome
    from segbench.experiment.context import JobContext

    context = JobContext.of(args.config, args.job)
    trained = trained_outcome(context)

    def work() -> dict:
        keep_freed_memory()  # before PyTorch allocates
        from segbench.evaluation.evaluate import evaluate, write_unscored

        if trained and trained["status"] != "ok":
            reason = f"training failed: {trained['reason']}"
            return {"status": "failed_upstream", "reason": reason} | write_unscored(context, reason)
        untrained = context.job.control or context.job.external  # these never import torch
        return evaluate(context, device="cpu" if untrained else computing_device(args.threads))

    def on_failure(reason: str) -> None:
        from segbench.evaluation.evaluate import write_unscored

        write_unscored(context, reason)

    return run_job(
        context,
        "evaluate",
        context.evaluate_folder,
        evaluation_identity(context, trained),
        products=[SCORES],
        resumable=[context.paths.state("evaluate", context.job.id)],
        work=work,
        on_failure=on_failure,
    )
