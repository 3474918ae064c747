"""Regional compilation: the parts of a network that tasks share, and the loss of one scale, become kernels.

There is one set of them per size of input. A whole network would be compiled once per task, since tasks differ in
channels and classes; an encoder and a decoder that no task enters do not. Memory traffic of norm, activation and loss
is what is saved, and the start of kernels one by one, so that it pays for large patches only (docs/performance.md).
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import nn
from torch.utils._triton import has_triton

from segbench.training.losses import scale_loss

LIBRARY_REGIONS = (PlainConvEncoder, ResidualEncoder, UNetDecoder, ConvDropoutNormReLU)
SIZES = 64
"""Sizes of inputs for which something is compiled before it is left as it is."""
LEAST_VOXELS, LEAST_STEPS = 1_000_000, 1_500
"""Voxels of a batch, below which the launches of kernels take longer than the kernels, and steps of a training, below
which the compiler takes longer than it saves. Measured on one GPU: docs/performance.md."""


def pays(device: torch.device, mode: str, *, voxels: int, steps: int) -> bool:
    """Return whether a training on this device is compiled: on GPUs in mode 'fast', large batches, many steps.

    Args:
        device: of the training.
        mode: 'exact' or 'fast'.
        voxels: of a batch.
        steps: of the training.
    """
    return device.type == "cuda" and mode == "fast" and voxels >= LEAST_VOXELS and steps >= LEAST_STEPS


def why_not() -> str:
    """Return what keeps PyTorch's compiler from working on the GPU here, '' when nothing is known to."""
    if torch._dynamo.config.disable:
        return "TORCH_COMPILE_DISABLE is set"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "no C compiler is found: install gcc, or set CC"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "Python.h is not found: install the development files of Python"
    if not has_triton():
        return "Triton is not installed, or cannot compile for this GPU"
    return ""


def compile_regions(network: nn.Module, *, backend: str = "inductor") -> int:
    """Compile the regions of a network in place at their first call, and return how many there are.

    They are the encoders, decoders and blocks of nnU-Net's library and those of ours that say `is_compiled_region`, the
    outermost of each. Other modules, such as transformers, stay as they are. Parameters, their names and what is
    computed stay the same up to rounding; the head of a scale that no loss looks at, in a decoder of the library, gets
    a gradient of zeros instead of none, so that weight decay moves it. The environment variable TORCH_COMPILE_DISABLE=1
    switches PyTorch's compiler off.
    """
    _allow_many_sizes()
    regions = list(_regions(network))
    for region in regions:
        region.compile(dynamic=False, backend=backend)
    return len(regions)


def compiled_scale_loss(*, backend: str = "inductor") -> Any:
    """Return `scale_loss`, compiled at its first call."""
    _allow_many_sizes()
    return torch.compile(scale_loss, dynamic=False, backend=backend)


def _regions(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, LIBRARY_REGIONS) or getattr(module, "is_compiled_region", False):
        yield module
        return
    for child in module.children():
        yield from _regions(child)


def _allow_many_sizes() -> None:
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SIZES)
