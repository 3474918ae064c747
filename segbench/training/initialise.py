"""Start a downstream network from the weights that the config names, with a match report."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from models.interface import SegmentationModel
from segbench.core.cards import loaded_prefixes
from segbench.core.errors import RunFailed, input_error
from segbench.core.files import sha256_of
from segbench.core.paths import WEIGHTS
from segbench.experiment.context import JobContext
from segbench.experiment.result_record import read_result
from segbench.training.checkpoint import load_weights

log = logging.getLogger(__name__)


def initialise(context: JobContext, model: SegmentationModel) -> dict[str, Any] | None:
    """Load the pre-trained weights that the config names into `model` in place.

    Returns:
        The match report, or None for random weights.

    Raises:
        RunFailed: the source job has no weights.
        InputError: the source's weights are of another identity or were changed, or the file or what it holds is not as
            expected; then nothing was loaded.
    """
    job, config = context.job, context.config
    if job.experiment != "downstream":
        return None
    from models.weights.conventions import holder_of_weights
    from models.weights.transfer import transfer_weights

    item = job.weights(config)
    if item.file is not None:
        path, entry, source = Path(item.file), config.model_entry(job.model), Path(item.file).name
        known = loaded_prefixes(config.format_cards[item.format], entry.name, config.model_cards[entry.name])
        assert known is not None, "the config is refused when a format fits another network"
        prefixes = known
    elif context.source is not None:
        path, source = _weights_of(context, context.source), context.source.job.id
        prefixes = context.source.card["encoder_keys"]
    else:
        return None
    digest = checked_sha256(path, item.sha256)
    report = transfer_weights(
        load_weights(path),
        holder_of_weights(model),
        where=str(path),
        source_format=item.format,
        prefixes=prefixes,
        minimum_fraction=item.minimum_fraction,
        expected_probe=item.probe,
    )
    log.info("%s: %s", path, report.text())
    return report.to_dict() | {"source": source, "format": item.format, "sha256": digest}


def checked_sha256(path: Path, expected: str | None) -> str:
    """Return the SHA-256 of a file of weights; one that cannot be read, or is not the expected one, is a problem."""
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise input_error(path, found=error.strerror, expected="a file of weights", fix="put it there") from error
    if expected is not None and digest != expected.lower():
        raise input_error(path, found=f"SHA-256 {digest}", expected=expected, fix="get the file again, or fix sha256")
    return digest


def _weights_of(context: JobContext, source: JobContext) -> Path:
    if not (source.train_folder / WEIGHTS).exists() or read_result(source.train_folder) is None:
        raise RunFailed(f"{context.job.id} starts from {source.job.id}, which has no weights because it failed")
    return source.trained_weights()
