"""The released UniSeg network from its state dict: the whole architecture is derived from shapes, then loaded strictly.

Axis legend: B batch, C channel, K class, Z Y X space.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from models.interface import NetworkSpec, stem_key
from models.uniseg.network import UniSeg
from models.uniseg.prompt import UniversalPrompt
from models.weights.official import kernel_zyx, majority, outputs, shapes_of
from models.weights.reading import load_strictly, tensors_of
from segbench.core.errors import input_error
from segbench.core.task import TaskSet

OFFICIAL = "uniseg_official"
WHERE = "official UniSeg weights"
STEM = r"conv_blocks_context\.0\.blocks\.0\.conv_(\d{1,3})\.(?:weight|bias)"
STEM_EXAMPLE, UP_EXAMPLE = "conv_blocks_context.0.blocks.0.conv_1.weight", "tu.0.weight"
UP = r"(?:tu|seg_outputs|conv_blocks_localization)\.(\d{1,2})\..*"
ENDS = ("conv.weight", "conv.bias", "instnorm.weight", "instnorm.bias")
Triple = tuple[int, int, int]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class MeasuredSpec(NetworkSpec):
    """A spec whose widths are stated one by one, because they were read from tensors."""

    widths: tuple[int, ...] = ()

    @property
    def features(self) -> tuple[int, ...]:
        """Width of each encoder stage, bottleneck last."""
        return self.widths


@dataclass(frozen=True)
class Sizes:
    """All that the shapes of an official state dict tell."""

    spec: MeasuredSpec
    channel_counts: tuple[int, ...]
    tasks: int
    classes: int
    fusion_kernels_zyx: tuple[Triple, ...]


def from_official(state_dict: Mapping[str, Tensor], **arch: object) -> UniSeg:
    """Return the network with these weights, in evaluation mode; `forward_index` asks it by task number.

    `state_dict` may be wrapped in a checkpoint; shapes tell all that `arch` could. A missing, unexpected or reshaped
    tensor raises InputError that names it as the file does, and nothing is loaded.
    """
    state = tensors_of(state_dict, WHERE)
    sizes = measure(state)
    spec, tasks = sizes.spec, sizes.tasks
    model = UniSeg(TaskSet([]), spec, channel_counts=sizes.channel_counts, task_count=tasks, classes=sizes.classes)
    grid_zyx, kernels_zyx = spec.bottleneck_grid_zyx, sizes.fusion_kernels_zyx
    model.prompt = UniversalPrompt(tasks, spec.features[-1], grid_zyx, kernels_zyx=kernels_zyx)
    load_strictly(model, state, WHERE, names=official_names(len(spec.pool_kernels_zyx), sizes.channel_counts, model))
    return model.eval()


def measure(state: Mapping[str, Tensor]) -> Sizes:
    """Return the sizes that the shapes tell; raises InputError when a size can be inferred from no tensor."""
    shapes = shapes_of(state)
    channels = sorted({int(found[1]) for name in shapes if (found := re.fullmatch(STEM, name))})
    poolings = max((int(found[1]) + 1 for name in shapes if (found := re.fullmatch(UP, name))), default=0)
    if not poolings or not channels or "intermedia_prompt" not in shapes:
        raise input_error(
            WHERE,
            found=f"{len(shapes)} tensors, not among them all of intermedia_prompt, {UP_EXAMPLE} and {STEM_EXAMPLE}",
            expected="the state dict of the released UniSeg network",
            fix="use its checkpoint, or state the format that this file has",
        )
    last = [f"fusion_layer.blocks.2.{end}" for end in ENDS]
    return Sizes(
        spec=_measured_spec(shapes, poolings, channels),
        channel_counts=tuple(channels),
        tasks=_majority(shapes, last, outputs),
        classes=_majority(shapes, [f"seg_outputs.{depth}.weight" for depth in range(poolings)], outputs),
        fusion_kernels_zyx=tuple(
            _majority(shapes, [f"fusion_layer.blocks.{layer}.conv.weight"], kernel_zyx) for layer in range(3)
        ),
    )


def _measured_spec(shapes: Shapes, poolings: int, channels: Iterable[int]) -> MeasuredSpec:
    names = [_stage_names(stage, poolings, channels) for stage in range(poolings + 1)]
    widths = tuple(_majority(shapes, stage, outputs) for stage in names)
    pools = tuple(_majority(shapes, [f"tu.{depth}.weight"], kernel_zyx) for depth in range(poolings))[::-1]
    grid_zyx = _majority(shapes, ["intermedia_prompt"], kernel_zyx)
    return MeasuredSpec(
        patch_size_zyx=tuple(size * math.prod(pool[axis] for pool in pools) for axis, size in enumerate(grid_zyx)),
        base_features=widths[0],
        max_features=max(widths),
        pool_kernels_zyx=pools,
        conv_kernels_zyx=tuple(
            _majority(shapes, stage + _mirrored_names(number, poolings), kernel_zyx)
            for number, stage in enumerate(names)
        ),
        widths=widths,
    )


def _blocks(stage: int, poolings: int) -> list[str]:
    """Return the official names of the two blocks of an encoder stage."""
    if stage == poolings:  # the bottleneck is a sequence of two stacks of one block
        return [f"conv_blocks_context.{stage}.{block}.blocks.0." for block in (0, 1)]
    return [f"conv_blocks_context.{stage}.blocks.{block}." for block in (0, 1)]


def _stage_names(stage: int, poolings: int, channels: Iterable[int]) -> list[str]:
    """Return the official names of an encoder stage's tensors, of both blocks and of the stems."""
    blocks = _blocks(stage, poolings)
    stems = [f"{blocks[0]}conv_{count}.weight" for count in channels] if stage == 0 else []
    return [block + end for block in blocks for end in ENDS] + stems


def _mirrored_names(stage: int, poolings: int) -> list[str]:
    """Return the convolutions of the decoder stage that has the kernel of an encoder stage; stage 0 has none."""
    depth = poolings - stage
    return [f"conv_blocks_localization.{depth}.{block}.blocks.0.conv.weight" for block in (0, 1)]


def _majority(shapes: Shapes, names: Sequence[str], tell: Callable[[tuple[int, ...]], Any]) -> Any:
    return majority(shapes, names, tell, where=WHERE)


def official_names(poolings: int, channel_counts: Iterable[int], model: UniSeg) -> dict[str, str]:
    """Return our name -> official name of every tensor."""
    prefixes = {
        "prompt.prompt": "intermedia_prompt",
        "encoder.stem.norm": "conv_blocks_context.0.blocks.0.instnorm",
        "encoder.first": "conv_blocks_context.0.blocks.1",
    }
    for channels in channel_counts:
        prefixes[f"encoder.stem.conv.{stem_key(channels)}"] = f"conv_blocks_context.0.blocks.0.conv_{channels}"
    for layer in range(3):
        prefixes[f"prompt.fusion.{layer}"] = f"fusion_layer.blocks.{layer}"
    for depth in range(poolings):
        prefixes[f"decoder.up.{depth}"] = f"tu.{depth}"
        prefixes[f"heads.convs.{poolings - 1 - depth}"] = f"seg_outputs.{depth}"
        for block in (0, 1):
            stage = _blocks(depth + 1, poolings)[block].removesuffix(".")
            prefixes[f"encoder.stages.{depth}.{block}"] = stage
            prefixes[f"decoder.blocks.{depth}.{block}"] = f"conv_blocks_localization.{depth}.{block}.blocks.0"
    return {name: _renamed(name, prefixes) for name in model.state_dict()}


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    own = next(prefix for prefix in prefixes if name == prefix or name.startswith(f"{prefix}."))
    return prefixes[own] + name[len(own) :].replace(".norm.", ".instnorm.")
