"""Start a downstream network from the weights that the config names, with a match report."""

from __future__ import annotations

import logging
from pathlib import Path

from models.interface import SegmentationModel
from segbench.core.config import Config, Initialisation
from segbench.core.errors import RunFailed, fault
from segbench.core.jobs import Job
from segbench.core.paths import RunPaths
from segbench.training.checkpoint import file_sha256, load_weights

log = logging.getLogger(__name__)


def initialise(config: Config, job: Job, model: SegmentationModel) -> dict | None:
    """Load the job's starting weights into `model` in place; return the match report, or None for random weights.

    Raises RunFailed when the source job has no weights, InputFaults when too few parameters match.
    """
    if job.experiment != "downstream":
        return None
    item = job.weights(config)
    path = _weights_path(config, job, item)
    if path is None:
        return None
    from models.transfer import transfer_weights

    report = transfer_weights(load_weights(path), model, source_format=item.format, minimum_share=item.minimum_share)
    log.info("%s", report.text())
    return report.to_dict()


def _weights_path(config: Config, job: Job, item: Initialisation) -> Path | None:
    if item.file is not None:
        path = Path(item.file)
        if not path.exists():
            raise fault(path, found="no file", expected=f"weights for {item.name}", mend="put the file there")
        if item.sha256 and file_sha256(path) != item.sha256:
            raise fault(path, found=f"SHA-256 {file_sha256(path)}", expected=item.sha256, mend="get the file again")
        return path
    source = job.source(config)
    if source is None:
        return None
    path = RunPaths(config.run).train(source.id) / "weights.pt"
    if not path.exists():
        raise RunFailed(f"{job.id} starts from {source.id}, which has no weights because it failed")
    return path
