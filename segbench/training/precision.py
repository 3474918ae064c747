"""Arithmetic of a training by device: mode, precision, memory format. `docs/performance.md` says what each promises.

Axis legend: B batch, C channel, Z Y X space.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.blocks.placement import on_device
from segbench.experiment.config import Training
from segbench.inference.convolutions import Float32WhereNeeded
from segbench.inference.precision import autocast, choose, memory_format

CUBLAS_VARIABLE, CUBLAS_REPRODUCIBLE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
"""What cuBLAS asks for to add in the same order every time (documentation of `use_deterministic_algorithms`)."""


@dataclass(frozen=True)
class Arithmetic:
    """How a training computes on its device.

    mode: 'exact' or 'fast'; precision: 'float32', 'bfloat16' or 'float16', of convolutions and matrix products;
    compiled: whether the regions of a network are compiled (`training.compilation`).
    """

    device: torch.device
    mode: str
    precision: str
    compiled: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of weights and images."""
        return memory_format(self.device)

    @property
    def late(self) -> bool:
        """Whether the device decides if the weights move, and the processor looks at a step when the next has started.

        Not in mode 'exact', which looks first, nor with a scale of the loss, nor where no fused optimiser can be told.
        """
        return self.mode == "fast" and self.precision != "float16" and self.device.type in ("cpu", "cuda")

    @contextlib.contextmanager
    def switched_on(self) -> Iterator[None]:
        """Set the switches of PyTorch that belong to the mode, and set them back."""
        deterministic = torch.are_deterministic_algorithms_enabled()
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        benchmark = torch.backends.cudnn.benchmark
        if self.device.type == "cuda" and self.mode == "exact":
            os.environ.setdefault(CUBLAS_VARIABLE, CUBLAS_REPRODUCIBLE)
        torch.use_deterministic_algorithms(self.mode == "exact", warn_only=True)
        torch.backends.cudnn.benchmark = self.mode == "fast"
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.backends.cudnn.benchmark = benchmark

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute in the precision, and around what oneDNN computes wrongly or slowly on a processor."""
        undefined = self.device.type == "cpu" and self.precision != "float32"
        with autocast(self.device, self.precision), Float32WhereNeeded() if undefined else contextlib.nullcontext():
            yield

    def in_float32(self) -> Arithmetic:
        """Return the same arithmetic in float32."""
        return replace(self, precision="float32")

    def to_device(self, values: Tensor, memory_format: torch.memory_format = torch.preserve_format) -> Tensor:
        """Return values on the device, without waiting for it."""
        return on_device(values, self.device, memory_format=memory_format)


def chosen_arithmetic(settings: Training, device: torch.device) -> Arithmetic:
    """Return the arithmetic that the settings ask for, `auto` resolved by the device."""
    mode = {"cpu": "exact"}.get(device.type, "fast") if settings.mode == "auto" else settings.mode
    precision = choose(device, "auto") if settings.precision == "auto" else settings.precision
    return Arithmetic(device, mode, precision)
