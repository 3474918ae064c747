"""How numbers of the host come to the device of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def on_device(values: Tensor | Sequence[int], device: torch.device, **options: Any) -> Tensor:
    """Return values on a device; a GPU gets them from page-locked memory, so that nobody waits for its work.

    A list as an index, or `torch.tensor(..., device=...)`, waits until the GPU has done all that it was asked for.

    Args:
        values: a tensor, or whole numbers.
        device: where they are needed.
        options: others of `Tensor.to`, such as dtype.
    """
    tensor = torch.tensor(values) if isinstance(values, Sequence) else values
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.to("cpu", **options).pin_memory().to(device, non_blocking=True)
    return tensor.to(device, **options)
