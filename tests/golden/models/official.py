"""State dicts filled by the rule that the golden files state, from names and shapes alone."""

from __future__ import annotations

import json
import math
import zlib

import numpy as np
import pytest
import torch

from tests.paths import SHARED

GOLDEN = SHARED / "golden"


def load(name: str) -> tuple[dict, dict]:
    """Return (facts, arrays) of a golden file; skip the test where the files are absent."""
    path = GOLDEN / f"{name}.json"
    if not path.exists():
        pytest.skip("the expected outputs of the original networks are not beside this checkout")
    return json.loads(path.read_text()), dict(np.load(GOLDEN / f"{name}.npz"))


def filled(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Fill every tensor from its name: normal numbers; 1-D around one (weights) or zero; others scaled by fan-in."""
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(*shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        if len(shape) == 1:
            state[name] = (1.0 if name.endswith("weight") else 0.0) + 0.1 * noise
        else:
            state[name] = noise / math.sqrt(math.prod(shape[1:]))
    return state


def seeded_input(case: dict) -> torch.Tensor:
    """Return the input of a golden case."""
    return torch.randn(*case["input_shape"], generator=torch.Generator().manual_seed(case["input_seed"]))
