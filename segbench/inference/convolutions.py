"""3D convolutions on a processor: around what is computed wrongly, and around what is computed slowly.

Both are modes of PyTorch's functions, so that networks of any library are served; so are gradients of norms.
`docs/performance.md` has what was measured. Axis legend: B batch, I input channel, O output channel, Z Y X space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from models.blocks.instance_norm import take_gradient_in_own_layout

Triple = tuple[int, ...]
LAYOUT = torch.channels_last_3d
FAST, UNPADDED = ("AVX2", "AVX512"), "AVX2"
"""Instruction sets that oneDNN is fast on; that whose kernel of the weight gradient takes no padding along z."""
ALONE = 20_480
"""Channels x Z x Y up to which PyTorch does not ask oneDNN for a float32 convolution of a batch of one."""
FEW_PAIRS, FEW_PRODUCTS = 256, 3_000_000
"""Pairs of channels, and products of pairs and voxels, up to which that kernel is the faster one: it reads the volume
anew for every 8x8 pairs. Measured: docs/performance.md."""


class _ProcessorMode(TorchFunctionMode):
    """Hands each call of `conv3d` to `convolve`, and guards the gradients of instance and batch norm.

    All other functions are left as they are.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        found = (self.convolve if func is functional.conv3d else func)(*args, **(kwargs or {}))
        if func in (functional.instance_norm, functional.batch_norm):
            take_gradient_in_own_layout(found)
        return found

    def convolve(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute what `conv3d` computes from the same arguments."""
        raise NotImplementedError


class Float32WhereNeeded(_ProcessorMode):
    """Computes in float32 each 3D convolution whose weight gradient oneDNN leaves undefined in bfloat16."""

    def convolve(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute in float32 what is too small for its kernel."""
        if not _undefined_in_bfloat16(*_size_and_kernel(*args, **kwargs)):
            return functional.conv3d(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            named = {name: _as_float32(value) for name, value in kwargs.items()}
            return functional.conv3d(*map(_as_float32, args), **named)


class QuickFloat32(_ProcessorMode):
    """Computes float32 convolutions by oneDNN's fast kernels where PyTorch takes another way.

    - A sample that is alone in its batch: PyTorch leaves oneDNN aside for it, up to `ALONE` channels x Z x Y.
    - The weight gradient on a processor with AVX2 only: oneDNN's kernel refuses padding along z, and matrix products of
      half its speed take its place. The input is padded along z beforehand. The forward pass and the gradient of the
      input are the same bytes as without.

    Other processors than those of x86 have no such kernels, and nothing changes there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.capability = torch.backends.cpu.get_cpu_capability() if torch.backends.mkldnn.is_available() else ""

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
        """Compute by oneDNN what is alone, and what gains from padding beforehand."""
        usual = input.dim() == 5 and input.is_cpu and input.numel() > 0
        plain = usual and groups == 1 and _three(dilation) == (1, 1, 1) and not isinstance(padding, str)
        if plain and input.dtype == weight.dtype == torch.float32 and self.capability in FAST:
            arguments = input, weight, bias, _three(stride), _three(padding)
            if _left_alone(input, weight):
                return _ConvolutionOfOne.apply(*arguments)
            trained = torch.is_grad_enabled() and weight.requires_grad
            padded = _three(padding)[0] > 0 and input.is_contiguous(memory_format=LAYOUT)
            gains = padded and pays(pairs=weight.shape[0] * weight.shape[1], voxels=input[0, 0].numel())
            if trained and gains and self.capability == UNPADDED:
                return _PaddedWeightGradient.apply(*arguments)
        return functional.conv3d(input, weight, bias, stride, padding, dilation, groups)


def _left_alone(input: Tensor, weight: Tensor) -> bool:
    """Tell whether PyTorch computes a convolution without oneDNN because its batch is one sample."""
    batch, channels, size_z, size_y, _ = input.shape
    small = batch == 1 and channels * size_z * size_y <= ALONE
    kernel_yx = weight.shape[3:]
    return small and max(kernel_yx) > 1 and min(kernel_yx) <= 3


def _gradients(
    of_result_BOZYX: Tensor,
    x_BIZYX: Tensor,
    weight_OIZYX: Tensor,
    stride_zyx: Triple,
    padding_zyx: Triple,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of input, weight and bias that are wanted, by PyTorch's own choice of kernel."""
    found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        of_result_BOZYX,
        x_BIZYX,
        weight_OIZYX,
        weight_OIZYX.shape[:1],
        stride_zyx,
        padding_zyx,
        (1, 1, 1),
        False,
        (0, 0, 0),
        1,
        wanted,
    )
    return found


class _Convolution(torch.autograd.Function):
    """A convolution without groups or dilation, whose gradients are computed from its input and weights."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x_BIZYX, weight_OIZYX, _, ctx.stride_zyx, ctx.padding_zyx = inputs
        ctx.save_for_backward(x_BIZYX, weight_OIZYX)


class _ConvolutionOfOne(_Convolution):
    """A convolution of a batch of one, whose gradients see the halves of the volume along z as a batch of two."""

    @staticmethod
    def forward(
        x_BIZYX: Tensor, weight_OIZYX: Tensor, bias_O: Tensor | None, stride_zyx: Triple, padding_zyx: Triple
    ) -> Tensor:
        others = bias_O, padding_zyx, stride_zyx, (1, 1, 1), 1
        return torch.ops.aten.mkldnn_convolution(x_BIZYX, weight_OIZYX, *others)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_BIZYX, weight_OIZYX = ctx.saved_tensors
        pad_z, *pad_yx = ctx.padding_zyx
        stride_z, size_z = ctx.stride_zyx[0], x_BIZYX.shape[2]
        (of_result_BOZYX,) = gradients
        half = -(-of_result_BOZYX.shape[2] // 2)  # an odd result gets a plane whose gradient is 0
        of_result_BOZYX = functional.pad(of_result_BOZYX, (0, 0, 0, 0, 0, 2 * half - of_result_BOZYX.shape[2]))
        seen = (half - 1) * stride_z + weight_OIZYX.shape[2]
        second = half * stride_z
        padded_BIZYX = functional.pad(x_BIZYX, (0, 0, 0, 0, pad_z, max(0, second + seen - pad_z - size_z)))
        of_x, of_weight, of_bias = _gradients(
            torch.cat([of_result_BOZYX[:, :, :half], of_result_BOZYX[:, :, half:]]),
            torch.cat([padded_BIZYX[:, :, :seen], padded_BIZYX[:, :, second : second + seen]]),
            weight_OIZYX,
            ctx.stride_zyx,
            (0, *pad_yx),
            ctx.needs_input_grad[:3],
        )
        if of_x is not None:
            whole_BIZYX = torch.zeros_like(padded_BIZYX)
            whole_BIZYX[:, :, :seen] += of_x[:1]
            whole_BIZYX[:, :, second : second + seen] += of_x[1:]
            of_x = whole_BIZYX[:, :, pad_z : pad_z + size_z]
        return of_x, of_weight, of_bias, None, None


class _PaddedWeightGradient(_Convolution):
    """A convolution whose weight gradient sees zeros along z as part of the input."""

    @staticmethod
    def forward(
        x_BIZYX: Tensor, weight_OIZYX: Tensor, bias_O: Tensor | None, stride_zyx: Triple, padding_zyx: Triple
    ) -> Tensor:
        return functional.conv3d(x_BIZYX, weight_OIZYX, bias_O, stride_zyx, padding_zyx)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_BIZYX, weight_OIZYX = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        pad_z, *pad_yx = ctx.padding_zyx
        own = None
        if of_x:
            arguments = x_BIZYX, weight_OIZYX, ctx.stride_zyx, ctx.padding_zyx
            own, *_ = _gradients(gradients[0], *arguments, [True, False, False])
        padded_BIZYX = functional.pad(x_BIZYX, (0, 0, 0, 0, pad_z, pad_z))
        arguments = padded_BIZYX, weight_OIZYX, ctx.stride_zyx, (0, *pad_yx)
        _, *of_parameters = _gradients(gradients[0], *arguments, [False, of_weight, of_bias])
        return own, *of_parameters, None, None


def pays(*, pairs: int, voxels: int) -> bool:
    """Tell whether the padded way is the faster one for so many pairs of channels, and voxels of a sample."""
    return pairs <= FEW_PAIRS or pairs * voxels <= FEW_PRODUCTS


def _three(value: Any) -> Triple:
    """Return a number for each axis; as for `conv3d`, a list of one is that number for all."""
    numbers = tuple(value) if isinstance(value, Sequence) else (value,)
    return numbers * 3 if len(numbers) == 1 else numbers


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
