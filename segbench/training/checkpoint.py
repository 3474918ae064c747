"""Weights and resumable state, written whole or not at all and loaded without executing code."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from models.weights.reading import read_state_dict
from segbench.core.errors import is_machine_failure, short
from segbench.core.files import atomic_path
from segbench.experiment.identity import Identity

STATE_KEYS = ("identity", "model", "optimiser", "step", "seconds", "rows", "window")
log = logging.getLogger(__name__)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values atomically; equal content gives equal bytes."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        torch.save(content, stream)  # given a path instead, torch writes the temporary file's name into the archive


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict; a damaged or foreign file raises `InputError`."""
    return read_state_dict(path)


def load_state(path: Path, identity: Identity) -> dict[str, Any] | None:
    """Return the resumable state of this very identity.

    A state of another identity, or one that cannot be read, is kept aside under another name, and the log says why.
    When settings go back to what they were, the state that was kept aside then is used again.

    Args:
        path: where the state is.
        identity: what the job is made from now.

    Returns:
        The state, or None when there is none to continue from.
    """
    if not path.exists() and _aside(path, identity.digest).exists():
        _aside(path, identity.digest).replace(path)  # settings went back to what they were
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = Identity.from_dict(state["identity"], path)
        _refuse_incomplete(state)
    except Exception as error:  # torch raises many kinds here; all mean that there is nothing to continue from
        if is_machine_failure(error):
            raise
        aside = path.replace(_aside(path, "unreadable"))
        log.warning("%s: not used, it cannot be read (%s); kept as %s", path, short(error), aside.name)
        return None
    different = found.differences(identity)
    if not different:
        return state
    own = _aside(path, identity.digest)
    aside = path.replace(_aside(path, found.digest))
    log.warning("%s: not used, made from other inputs (%s); kept as %s", path, ", ".join(different), aside.name)
    return load_state(own.replace(path), identity) if own.exists() else None


def _refuse_incomplete(state: dict[str, Any]) -> None:
    missing = [key for key in STATE_KEYS if key not in state]
    if missing:
        raise KeyError(f"no {', '.join(missing)}")


def _aside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}.{name}{path.suffix}")
