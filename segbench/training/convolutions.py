"""3D convolutions on a processor: around what oneDNN computes wrongly, and around what it computes slowly.

Both are modes of PyTorch's functions, so that networks of any library are served. `docs/performance.md` has what was
measured. Axis legend: B batch, I input channel, O output channel, Z Y X space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LAYOUT = torch.channels_last_3d
UNPADDED_ISA = "AVX2"
"""The instruction set for which oneDNN's kernel of the weight gradient takes no padding along z."""
FEW_PAIRS, FEW_PRODUCTS = 256, 3_000_000
"""Pairs of channels, and products of pairs and voxels, up to which that kernel is the faster one: it reads the volume
anew for every 8x8 pairs. Measured: docs/performance.md."""


class _Convolution3dMode(TorchFunctionMode):
    """Hands each call of `conv3d` to `convolve`, and leaves all other functions as they are."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return (self.convolve if func is functional.conv3d else func)(*args, **(kwargs or {}))

    def convolve(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute what `conv3d` computes from the same arguments."""
        raise NotImplementedError


class Float32WhereNeeded(_Convolution3dMode):
    """Computes in float32 each 3D convolution whose weight gradient oneDNN leaves undefined in bfloat16."""

    def convolve(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute in float32 what is too small for its kernel."""
        if not _undefined_in_bfloat16(*_size_and_kernel(*args, **kwargs)):
            return functional.conv3d(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            named = {name: _as_float32(value) for name, value in kwargs.items()}
            return functional.conv3d(*map(_as_float32, args), **named)


class QuickWeightGradient(_Convolution3dMode):
    """Takes the weight gradient from an input that is padded along z beforehand, where the processor has AVX2 only.

    The forward pass and the gradient of the input are the same bytes as without; the gradient of the weights is the
    same up to rounding. oneDNN's kernel for AVX2 refuses padding along z, and matrix products of half its speed take
    its place.
    """

    @staticmethod
    def fits_processor() -> bool:
        """Tell whether this processor gains."""
        return torch.backends.cpu.get_cpu_capability() == UNPADDED_ISA

    def convolve(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:  # named as by `conv3d`
        """Compute by `_PaddedWeightGradient` where weights are trained, the input is padded along z, and it pays."""
        trained = torch.is_grad_enabled() and weight.requires_grad and input.dim() == 5
        plain = groups == 1 and _three(dilation) == (1, 1, 1) and not isinstance(padding, str)
        padded = plain and _three(padding)[0] > 0 and input.is_contiguous(memory_format=LAYOUT)
        if not (trained and padded and pays(pairs=weight.shape[0] * weight.shape[1], voxels=input[0, 0].numel())):
            return functional.conv3d(input, weight, bias, stride, padding, dilation, groups)
        convolved_BOZYX: Tensor = _PaddedWeightGradient.apply(input, weight, bias, _three(stride), _three(padding))
        return convolved_BOZYX


class _PaddedWeightGradient(torch.autograd.Function):
    """A convolution without groups or dilation whose weight gradient sees zeros along z as part of the input."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BIZYX: Tensor,
        weight_OIZYX: Tensor,
        bias_O: Tensor | None,
        stride_zyx: Sequence[int],
        padding_zyx: Sequence[int],
    ) -> Tensor:
        ctx.save_for_backward(x_BIZYX, weight_OIZYX)
        ctx.stride_zyx, ctx.padding_zyx = stride_zyx, padding_zyx
        return functional.conv3d(x_BIZYX, weight_OIZYX, bias_O, stride_zyx, padding_zyx)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_BIZYX, weight_OIZYX = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        pad_z, *pad_yx = ctx.padding_zyx

        def gradient(input_BIZYX: Tensor, padding_zyx: Sequence[int], wanted: list[bool]) -> tuple[Tensor | None, ...]:
            found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
                gradients[0],
                input_BIZYX,
                weight_OIZYX,
                weight_OIZYX.shape[:1],
                ctx.stride_zyx,
                padding_zyx,
                (1, 1, 1),
                False,
                (0, 0, 0),
                1,
                wanted,
            )
            return found

        own = gradient(x_BIZYX, ctx.padding_zyx, [True, False, False])[0] if of_x else None
        padded_BIZYX = functional.pad(x_BIZYX, (0, 0, 0, 0, pad_z, pad_z))
        _, *of_parameters = gradient(padded_BIZYX, (0, *pad_yx), [False, of_weight, of_bias])
        return own, *of_parameters, None, None


def pays(*, pairs: int, voxels: int) -> bool:
    """Tell whether the padded way is the faster one for so many pairs of channels, and voxels of a sample."""
    return pairs <= FEW_PAIRS or pairs * voxels <= FEW_PRODUCTS


def _three(value: Any) -> tuple[int, ...]:
    return (value,) * 3 if isinstance(value, int) else tuple(value)


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
