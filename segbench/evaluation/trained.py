"""What an evaluation finds of its training: the outcome, weights of the identity that is asked for, or why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segbench.core.errors import input_error
from segbench.core.files import sha256_of
from segbench.experiment.context import JobContext
from segbench.experiment.identity import Identity, evaluation_settings_identity, part, read_identity

RETRAIN = "train the job again (the workflow does), or name the config that the weights were trained with"


def trained_outcome(context: JobContext) -> dict[str, Any] | None:
    """Return the outcome of the job's training, None for a job without one.

    Raises:
        InputError: there is no outcome, or the weights were made from other inputs than the config asks for.
    """
    if not context.is_trained:
        return None
    path = context.train_folder / "outcome.json"
    try:
        outcome: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        status = outcome["status"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise input_error(path, found="no outcome", expected="a finished training", fix=RETRAIN) from error
    if status == "ok":
        check_identity(context)
    return outcome


def check_identity(context: JobContext) -> Path:
    """Return the path of the job's weights.

    Raises:
        InputError: there are none, they were made from other inputs than the config asks for (which are named), or the
            file is not the one that the training wrote.
    """
    record = context.train_folder / "record.json"
    found = read_identity(record)
    if found is None:
        raise input_error(record, found="no record of a training", expected="a finished training job", fix=RETRAIN)
    different = found.differences(context.identity, code_counts=not context.config.allow_mixed_training_code)
    if different:
        raise input_error(
            context.train_folder,
            found=f"weights of another identity; what differs: {', '.join(different)}",
            expected=f"identity {context.identity.digest}",
            fix=RETRAIN,
        )
    path = context.train_folder / "weights.pt"
    if context.job.external:
        return path
    if not path.exists():
        raise input_error(path, found="no weights", expected="a finished training job", fix=RETRAIN)
    size, digest = json.loads(record.read_text(encoding="utf-8"))["files"]["weights.pt"]
    if path.stat().st_size != size or sha256_of(path) != digest:
        raise input_error(path, found="a file that was changed", expected="the weights of its record", fix=RETRAIN)
    return path


def weights_digest(context: JobContext) -> str:
    """Return the SHA-256 of the job's weights as its record states it; empty for a job that has none of its own."""
    if not context.is_trained or context.job.external:
        return ""
    record = json.loads((context.train_folder / "record.json").read_text(encoding="utf-8"))
    return str(record["files"]["weights.pt"][1])


def evaluation_identity(context: JobContext, trained: dict[str, Any] | None) -> Identity:
    """Return the identity of all scores of a job: settings, code, weights, and test cases in order."""
    parts = dict(evaluation_settings_identity(context.config, context.job).parts)
    failed = trained is not None and trained["status"] != "ok"
    parts["weights"] = "none, the training failed" if failed else weights_digest(context)
    cases = {
        task.name: [[case.case_id, case.image_sha256, case.label_sha256] for case in context.test_cases(task.name)]
        for task in context.tasks
    }
    parts["test cases"] = part(cases)
    if not context.job.external:
        addresses = {
            task.name: [index.address(name) for name in (*sides.test, *(sides.train if context.job.control else ()))]
            for task in context.tasks
            for sides, index in [(context.sides(task.name), context.preprocessed[task.name])]
        }
        parts["preprocessed cases"] = part(addresses)
    return Identity(parts)
