"""Start a downstream network from the weights that the config names, with a match report."""

from __future__ import annotations

import logging
from pathlib import Path

from models.interface import SegmentationModel
from segbench.core.cards import loaded_prefixes
from segbench.core.errors import RunFailed, input_error
from segbench.core.files import sha256_of
from segbench.core.paths import RunPaths
from segbench.experiment.config import Config
from segbench.experiment.jobs import Job
from segbench.training.checkpoint import load_weights

log = logging.getLogger(__name__)


def initialise(config: Config, job: Job, model: SegmentationModel) -> dict | None:
    """Load the job's pre-trained weights into `model` in place; return the match report, or None for random weights.

    Raises RunFailed when the source job has no weights, InputError when the file or what it holds is not as expected;
    then nothing was loaded.
    """
    if job.experiment != "downstream":
        return None
    from models.weights.transfer import transfer_weights

    item, source = job.weights(config), job.source(config)
    if item.file is not None:
        path, entry = Path(item.file), config.model_entry(job.model)
        prefixes = loaded_prefixes(config.format_cards[item.format], entry.name, config.model_cards[entry.name])
    elif source is not None:
        path, prefixes = _weights_of(config, job, source), config.card(source.model)["encoder_keys"]
    else:
        return None
    digest = checked_sha256(path, item.sha256)
    report = transfer_weights(
        load_weights(path),
        model,
        where=str(path),
        source_format=item.format,
        prefixes=prefixes,
        minimum_fraction=item.minimum_fraction,
        expected_probe=item.probe,
    )
    log.info("%s: %s", path, report.text())
    return report.to_dict() | {"source": path.name if item.file else source.id, "format": item.format, "sha256": digest}


def checked_sha256(path: Path, expected: str | None) -> str:
    """Return the SHA-256 of a file of weights; one that cannot be read, or is not the expected one, is a problem."""
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise input_error(path, found=error.strerror, expected="a file of weights", fix="put it there") from error
    if expected is not None and digest != expected.lower():
        raise input_error(path, found=f"SHA-256 {digest}", expected=expected, fix="get the file again, or fix sha256")
    return digest


def _weights_of(config: Config, job: Job, source: Job) -> Path:
    path = RunPaths(config.run).train(source.id) / "weights.pt"
    if not path.exists():
        raise RunFailed(f"{job.id} starts from {source.id}, which has no weights because it failed")
    return path
