"""Arithmetic of a training by device: mode, precision, memory format. `docs/performance.md` says what each promises.

Axis legend: B batch, C channel, Z Y X space.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from models.blocks.placement import on_device
from segbench.experiment.config import Training
from segbench.inference.precision import choose

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
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
        """Channels last on a processor, where it is faster; contiguous on a GPU, where 3D convolutions prefer it."""
        return torch.contiguous_format if self.device.type == "cuda" else torch.channels_last_3d

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
        """Compute in the precision; layers that oneDNN computes wrongly in it stay in float32."""
        if self.precision == "float32":
            yield
            return
        with torch.autocast(self.device.type, DTYPES[self.precision]):
            if self.device.type == "cpu":
                with _Float32WhereNeeded():
                    yield
            else:
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


class _Float32WhereNeeded(TorchFunctionMode):
    """Computes in float32 each 3D convolution whose weight gradient oneDNN leaves undefined in bfloat16."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.conv3d and _undefined_in_bfloat16(*_size_and_kernel(*args, **kwargs)):
            with torch.autocast("cpu", enabled=False):
                return func(*map(_as_float32, args), **{name: _as_float32(value) for name, value in kwargs.items()})
        return func(*args, **kwargs)


def _size_and_kernel(
    input: Tensor, weight: Tensor, *others: Any, **options: Any
) -> tuple[Sequence[int], Sequence[int]]:  # named as by `conv3d`
    return input.shape[2:], weight.shape[2:]


def _as_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value


def _undefined_in_bfloat16(size_zyx: Sequence[int], kernel_zyx: Sequence[int]) -> bool:
    """Tell whether the input of a convolution is too small for its kernel.

    That is, smaller than the kernel along z, or at most half of it along y or x. There, in PyTorch 2.13 on a processor
    with AVX-512, the gradient of the weights in bfloat16 holds memory that was never written, and computing it can
    damage the heap (docs/performance.md says which shapes were tried).
    """
    (size_z, *size_yx), (kernel_z, *kernel_yx) = size_zyx, kernel_zyx
    return size_z < kernel_z or any(size <= kernel // 2 for size, kernel in zip(size_yx, kernel_yx, strict=True))
