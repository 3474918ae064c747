"""Weights and resumable state, written whole or not at all and loaded without executing code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from models.weights.reading import read_state_dict
from segbench.core.files import atomic_path


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values atomically; equal content gives equal bytes."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        torch.save(content, stream)  # given a path instead, torch writes the temporary file's name into the archive


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict; a damaged or foreign file raises `InputError`."""
    return read_state_dict(path)


def load_state(path: Path, identity: str) -> dict[str, Any] | None:
    """Return the resumable state at `path` when it belongs to the same settings and code, otherwise None."""
    if not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state if state["identity"] == identity else None
