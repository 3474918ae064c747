"""Weights and resumable state, written whole or not at all and loaded without executing code.

The last two states are kept, `state.pt` and `state.previous.pt`, each with the SHA-256 of its content at its end: when
the newer one is damaged the older one continues.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from models.weights.reading import read_state_dict
from segbench.core.errors import is_machine_failure, short
from segbench.core.files import atomic_path
from segbench.experiment.identity import Identity

STATE_KEYS = ("identity", "trained", "good", "progression")
DIGEST_BYTES = hashlib.sha256().digest_size
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
log = logging.getLogger(__name__)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values atomically; equal content gives equal bytes."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        _write(content, _Digesting(stream))  # given a path, torch writes the temporary file's name into the archive


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict; a damaged or foreign file raises `InputError`."""
    return read_state_dict(path)


def previous_of(path: Path) -> Path:
    """Return where the state before the newest one is."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def generations(path: Path) -> list[Path]:
    """Return both states of a job, the newer one first."""
    return [path, previous_of(path)]


class _Digesting:
    """Passes bytes on to a file, remembers their SHA-256 and the error that writing them met."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.digest = stream, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, block: bytes) -> int:
        self.digest.update(block)
        try:
            return self.stream.write(block)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.stream.flush()


def _write(content: dict[str, Any], target: _Digesting) -> None:
    """Write in the form of torch; a full disk raises `OSError`, where torch raises an error of its own kind."""
    try:
        torch.save(content, target)  # type: ignore[arg-type]
    except RuntimeError as error:
        if target.error is None:
            raise
        raise target.error from error


def save_state(path: Path, content: dict[str, Any]) -> bool:
    """Write a resumable state; the one before it becomes `state.previous.pt`.

    Args:
        path: of the newest state.
        content: tensors and plain values with the keys `STATE_KEYS`.

    Returns:
        Whether it was written; False when the disk is full: the states before it are then untouched, and the log says
        so.
    """
    try:
        with atomic_path(path) as temporary:
            with open(temporary, "wb") as stream:
                target = _Digesting(stream)
                _write(content, target)
                stream.write(target.digest.digest())
                stream.flush()
                os.fsync(stream.fileno())  # a disk that is full says so before the older state is renamed
            if path.exists():
                path.replace(previous_of(path))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        log.warning("%s: no room for a state (%s); training goes on without a newer one", path, short(error))
        return False
    return True


def read_state(path: Path) -> dict[str, Any]:
    """Return a state whose bytes are those that were written; raises `ValueError` when they are not."""
    content = path.read_bytes()
    body, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("its content does not match its checksum")
    state: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    missing = [key for key in STATE_KEYS if key not in state]
    if missing:
        raise ValueError(f"no {', '.join(missing)}")
    return state


def load_state(path: Path, identity: Identity) -> dict[str, Any] | None:
    """Return the newest resumable state of this very identity that can be read.

    A state of another identity, or one that cannot be read, is kept aside under another name, and the log says why.
    When settings go back to what they were, the state that was kept aside then is used again.

    Args:
        path: where the newest state is.
        identity: what the job is made from now.

    Returns:
        The state, or None when there is none to continue from.
    """
    state = _first_usable(generations(path), path, identity)
    own = _aside(path, identity.digest)
    if state is None and own.exists():
        own.replace(path)
        state = _first_usable([path], path, identity)
    return state


def _first_usable(candidates: Sequence[Path], newest: Path, identity: Identity) -> dict[str, Any] | None:
    for candidate in candidates:
        state = _usable(candidate, newest, identity)
        if state is not None:
            if candidate != newest:
                log.warning("%s: continue from this older state", candidate)
            return state
    return None


def _usable(path: Path, newest: Path, identity: Identity) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        state = read_state(path)
        found = Identity.from_dict(state["identity"], path)
    except Exception as error:  # torch raises many kinds here; all mean that there is nothing to continue from
        if is_machine_failure(error):
            raise
        aside = path.replace(_aside(path, "unreadable"))
        log.warning("%s: not used, it cannot be read (%s); kept as %s", path, short(error), aside.name)
        return None
    different = found.differences(identity)
    if not different:
        return state
    aside = _aside(newest, found.digest)
    if aside.exists() and path != newest:  # the newer one of the same training is kept already
        path.unlink()
    else:
        path.replace(aside)
    log.warning("%s: not used, made from other inputs (%s); kept as %s", path, ", ".join(different), aside.name)
    return None


def _aside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}.{name}{path.suffix}")
