"""Gather all score rows of a run, check that they are exactly those expected, and describe the run."""

from __future__ import annotations

import argparse
from pathlib import Path

from segbench.core.paths import SCORES

EXAMPLE = "python -m segbench gather --config results/demo/config.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--config", type=Path, required=True, help="resolved config of the run")


def run(args: argparse.Namespace) -> int:
    """Write scores.csv, run.json with the hash of the rows that it describes, and the pictures of chosen cases."""
    from segbench.cli._job import check_result
    from segbench.core.case import read_manifest
    from segbench.core.paths import RunPaths
    from segbench.core.run_record import write_run_record
    from segbench.evaluation.record import run_record
    from segbench.evaluation.rows import check_complete, read_rows, skipped_rows, write_rows
    from segbench.experiment.config import load_config
    from segbench.experiment.jobs import evaluation_jobs
    from segbench.experiment.splits import read_splits
    from segbench.reporting.case_pictures import draw_pictures
    from segbench.reporting.run import ALPHA, Run
    from segbench.stats.scores import read_scores

    config = load_config(args.config)
    paths = RunPaths(config.run)
    splits = read_splits(paths.splits)
    patients = {
        task.name: {case.case_id: case.patient_id for case in read_manifest(paths.manifest(task.name))}
        for task in config.tasks
    }
    rows = skipped_rows(config, splits, patients)
    for job in evaluation_jobs(config):
        check_result(paths.evaluate(job.id))
        rows += read_rows(paths.evaluate(job.id) / SCORES)
    check_complete(config, splits, rows)
    write_rows(paths.scores, rows)
    record = run_record(config)
    scored = Run.of_table(read_scores(paths.scores), record, alpha=ALPHA, reference=None)
    pictures, notices = draw_pictures(config, scored)
    changes = {"pictures": tuple(pictures), "notices": (*record.notices, *notices)}
    write_run_record(paths.run_record, record.model_copy(update=changes))
    return 0
