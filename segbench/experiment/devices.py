"""Devices that the environment asks for: what cannot be met is refused before any work, not replaced in silence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from segbench.core.errors import Problem

VISIBLE = "CUDA_VISIBLE_DEVICES"
DEVICE_FILES = ("nvidia[0-9]*", "dxg", "kfd")
"""Files of /dev that a GPU has: of NVIDIA's driver, of Windows' subsystem for Linux, of AMD's driver."""


def device_problems(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[Problem]:
    """Return a problem when the environment names a GPU and the machine has none; torch would take the processor."""
    named = environment.get(VISIBLE, "").strip()
    if named in ("", "-1") or any(next(devices.glob(pattern), None) for pattern in DEVICE_FILES):
        return []
    fix = f"remove {VISIBLE} to work on the processor, or run where the GPU is"
    return [Problem(VISIBLE, repr(named), "a GPU of this machine", fix)]
