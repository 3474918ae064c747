"""Read the released UniSeg network: the architecture follows from the shapes of its state dict alone.

The released network has the layout of nnU-Net v1's generic U-Net; every tensor of it has a place in ours, so the
weights are renamed and loaded strictly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from models.interface import NetworkSpec, load_strictly, stem_key
from models.uniseg.network import UniSeg
from segbench.core.errors import fault
from segbench.core.task import TaskSet

WHERE = "official UniSeg state dict"
CONTEXT = "conv_blocks_context"
LOCALIZATION = "conv_blocks_localization"


def from_official(state_dict: Mapping[str, Tensor]) -> UniSeg:
    """Return the network with these weights, in evaluation mode; `forward_index` asks it by task number.

    Widths, kernels, strides, stems, tasks, classes and prompt grid come from the shapes. A missing, unexpected or
    reshaped tensor raises InputFaults and nothing is loaded.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    stages = 1 + max(_numbers(state, rf"{CONTEXT}\.(\d+)\."), default=-1)
    ups = 1 + max(_numbers(state, r"tu\.(\d+)\.weight"), default=-1)
    if stages < 2 or ups != stages - 1:
        found = f"{max(stages, 0)} encoder stages and {max(ups, 0)} up-samplings"
        raise fault(WHERE, found=found, expected="one up-sampling fewer than stages", mend="give a UniSeg checkpoint")
    stems = sorted(_numbers(state, rf"{CONTEXT}\.0\.blocks\.0\.conv_(\d+)\.weight"))
    names = dict(_names(stages, stems))
    widths = [_shape(state, name, 5)[0] for name in _second_convs(stages)]
    pools = tuple(_shape(state, f"tu.{stages - 2 - level}.weight", 5)[2:] for level in range(stages - 1))
    kernels = tuple(_shape(state, name, 5)[2:] for name in _second_convs(stages))
    prompt_shape = _shape(state, "intermedia_prompt", 5)
    factors = [1, 1, 1]
    for pool in pools:
        factors = [factor * size for factor, size in zip(factors, pool, strict=True)]
    spec = NetworkSpec(
        patch_size_zyx=tuple(grid * factor for grid, factor in zip(prompt_shape[2:], factors, strict=True)),
        base_features=widths[0],
        max_features=max(widths),
        pool_kernels_zyx=pools,
        conv_kernels_zyx=kernels,
    )
    model = UniSeg(
        TaskSet([]),
        spec,
        channel_counts=stems,
        task_count=prompt_shape[1],
        classes=_shape(state, "seg_outputs.0.weight", 5)[0],
    )
    load_strictly(model, {names.get(name, name): tensor for name, tensor in state.items()}, WHERE)
    return model.eval()


def _numbers(state: Mapping[str, Tensor], pattern: str) -> Iterator[int]:
    return (int(match.group(1)) for name in state if (match := re.match(pattern, name)))


def _shape(state: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    if name not in state:
        raise fault(WHERE, found=f"no tensor {name}", expected="every tensor of the network", mend="get the file again")
    shape = tuple(state[name].shape)
    if len(shape) != axes:
        raise fault(WHERE, found=f"{name} of shape {shape}", expected=f"{axes} axes", mend="give a UniSeg checkpoint")
    return shape


def _second_convs(stages: int) -> list[str]:
    """Names of one plain convolution per stage whose outputs are the stage's width."""
    names = [f"{CONTEXT}.{stage}.blocks.1.conv.weight" for stage in range(stages - 1)]
    return [*names, f"{CONTEXT}.{stages - 1}.1.blocks.0.conv.weight"]


def _names(stages: int, stems: list[int]) -> Iterator[tuple[str, str]]:
    """Yield (official name, our name) of every tensor."""
    yield "intermedia_prompt", "prompt.prompt"
    for number in range(3):
        yield from _block(f"fusion_layer.blocks.{number}", f"prompt.fusion.{number}")
    for channels in stems:
        for kind in ("weight", "bias"):
            yield f"{CONTEXT}.0.blocks.0.conv_{channels}.{kind}", f"encoder.stem.conv.{stem_key(channels)}.{kind}"
    for kind in ("weight", "bias"):
        yield f"{CONTEXT}.0.blocks.0.instnorm.{kind}", f"encoder.stem.norm.{kind}"
    yield from _block(f"{CONTEXT}.0.blocks.1", "encoder.first")
    for stage in range(1, stages):
        for part in range(2):
            place = f"blocks.{part}" if stage < stages - 1 else f"{part}.blocks.0"
            yield from _block(f"{CONTEXT}.{stage}.{place}", f"encoder.stages.{stage - 1}.{part}")
    for up in range(stages - 1):
        yield f"tu.{up}.weight", f"decoder.up.{up}.weight"
        yield f"seg_outputs.{up}.weight", f"heads.convs.{stages - 2 - up}.weight"
        for part in range(2):
            yield from _block(f"{LOCALIZATION}.{up}.{part}.blocks.0", f"decoder.blocks.{up}.{part}")


def _block(official: str, ours: str) -> Iterator[tuple[str, str]]:
    for kind in ("weight", "bias"):
        yield f"{official}.conv.{kind}", f"{ours}.conv.{kind}"
        yield f"{official}.instnorm.{kind}", f"{ours}.norm.{kind}"
