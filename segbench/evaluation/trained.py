"""What an evaluation finds of its training: the outcome, weights of the identity that is asked for, or why not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from segbench.core.errors import input_error
from segbench.core.files import sha256_of
from segbench.core.paths import OUTCOME
from segbench.experiment.context import JobContext
from segbench.experiment.identity import Identity, evaluation_settings_identity, part
from segbench.experiment.jobs import mask_folders

MAKE_ANEW = "run the workflow: it makes the outcome anew, from the record of the weights where that is there"


def trained_outcome(context: JobContext) -> dict[str, Any] | None:
    """Return the outcome of the job's training, None for a job without one.

    Raises:
        InputError: there is no outcome, or the weights were made from other inputs than the config asks for.
    """
    if not context.is_trained:
        return None
    path = context.train_folder / OUTCOME
    try:
        outcome: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        status = outcome["status"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = "no outcome" if isinstance(error, FileNotFoundError) else f"a damaged one ({type(error).__name__})"
        raise input_error(path, found=found, expected="the outcome of a training", fix=MAKE_ANEW) from error
    if status == "ok":
        context.trained_weights()
    return outcome


def weights_digest(context: JobContext) -> str:
    """Return what the record of the job's training says of its weights, nothing for a job without a training."""
    return context.training_record().weights_digest if context.is_trained else ""


def evaluation_identity(context: JobContext, trained: Mapping[str, Any] | None) -> Identity:
    """Return the identity of all scores of a job: settings, code, weights, and test cases in order.

    Args:
        context: the job.
        trained: what `trained_outcome` returned.
    """
    parts = dict(evaluation_settings_identity(context.config, context.job).parts)
    failed = trained is not None and trained["status"] != "ok"
    parts["weights"] = "none, the training failed" if failed else weights_digest(context)
    parts["test cases"] = context.test_case_part()
    if context.job.external:
        if "masks" in parts:
            parts["masks"] = part(_mask_digests(context))
        return Identity(parts)
    addresses = {}
    for task in context.tasks:
        fitted = context.training_cases(task.name) if context.job.control else ()
        index = context.preprocessed[task.name]
        addresses[task.name] = [index.address(name) for name in context.sides(task.name).test + fitted]
    return Identity(parts | {"preprocessed cases": part(addresses)})


def _mask_digests(context: JobContext) -> dict[str, dict[str, str]]:
    """Return task -> file name -> SHA-256 of masks that were given, so that touched ones are not scored again."""
    folders = mask_folders(context.config, context.job)
    return {
        task: {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}
        for task, folder in folders.items()
        if folder.is_dir()
    }
