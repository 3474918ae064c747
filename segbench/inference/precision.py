"""Arithmetic of a forward pass: which precisions and layouts a device has, and those that are used."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch

from models.interface import SegmentationModel
from segbench.core.errors import input_error
from segbench.inference.convolutions import LAYOUT, QuickFloat32


def processor_has_bfloat16() -> bool:
    """Tell whether the processor computes in bfloat16 (AVX-512 BF16 or AMX); emulation is slower than float32."""
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, ask, lambda: False)() for ask in asks)


def choose(device: torch.device, asked: str) -> str:
    """Return the precision of a forward pass on a device.

    Args:
        device: where the network is.
        asked: 'auto', 'float32', 'bfloat16' or 'float16'. 'auto' is bfloat16 where the processor or card has it,
            float16 on older cards, float32 on other processors and devices.

    Returns:
        'float32', 'bfloat16' or 'float16'.

    Raises:
        InputError: float16 on a processor, which PyTorch computes slower than float32.
    """
    if device.type == "cuda":
        if asked != "auto":
            return asked
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if device.type != "cpu":
        return "float32" if asked == "auto" else asked
    if asked == "float16":
        raise input_error("precision", found="float16 on a processor", expected="a GPU for float16", fix="set auto")
    if asked != "auto":
        return asked
    return "bfloat16" if processor_has_bfloat16() else "float32"


def memory_format(device: torch.device) -> torch.memory_format:
    """Return channels last on a processor, where it is faster, else contiguous; 3D convolutions of GPUs prefer that."""
    return LAYOUT if device.type == "cpu" else torch.contiguous_format


def ready(model: SegmentationModel, device: str) -> SegmentationModel:
    """Return the network itself: in evaluation mode, on the device, in the layout that is the faster one there."""
    model.to(device=device, memory_format=memory_format(torch.device(device)))  # type: ignore[call-overload]
    return model.eval()


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Return the context in which a network computes with a precision that `choose` returned."""
    if precision == "float32":
        return QuickFloat32() if device.type == "cpu" else contextlib.nullcontext()
    return torch.autocast(device.type, getattr(torch, precision))
