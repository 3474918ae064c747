"""What a network answers to a fixed input after weights were loaded: evidence that they arrived and are in use.

Axis legend: B batch, C channel, Z Y X space.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from models.interface import SegmentationModel
from segbench.core.errors import input_error

SEED = 20230717
TOLERANCE = 1e-3  # of the recorded standard deviation: processors and thread counts differ by far less
RUNNING = ("running_mean", "running_var")
MEANING = "mean, standard deviation, smallest and largest logit of the first class"


def probe(target: SegmentationModel, chosen: Mapping[str, Tensor], where: str) -> list[float]:
    """Return mean, standard deviation, minimum and maximum of the first foreground class's logits with `chosen` loaded.

    A copy of `target` is run in evaluation mode on seeded noise, of the target's first task's channels and of twice the
    down-sampling per axis at most. What is not in `chosen` has a fixed pattern, so that the four numbers depend on the
    loaded tensors, the architecture and the channel count, but on no seed and no class count. Raises InputError when
    they are not finite, when all logits are the same, or when loading changes nothing of the pattern's answer. `target`
    is left as it is.
    """
    trial = copy.deepcopy(target).eval()
    tensors = dict(trial.state_dict())
    _fill(trial)
    before = _logits(trial)
    with torch.no_grad():
        for name, tensor in chosen.items():
            tensors[name].copy_(tensor)
    after = _logits(trial)
    if not after.isfinite().all():
        raise input_error(
            where, found="logits with nan or inf on the probe", expected="finite ones", fix="use other weights"
        )
    if after.min() == after.max():
        found, expected = "one logit for every voxel of the probe", "an answer that depends on the image"
        raise input_error(where, found=found, expected=expected, fix="use other weights; these may all be zero")
    if torch.equal(before, after):
        found = "the same answer to the probe before and after loading"
        raise input_error(
            where, found=found, expected="another answer", fix="these weights are not in use by this network"
        )
    values = (after.mean(), after.std(), after.min(), after.max())
    return [float(f"{value.item():.6g}") for value in values]


def check_probe(found: Sequence[float], expected: Sequence[float], where: str) -> None:
    """Raise InputError when a probe differs from the recorded one by more than 0.1 % of its standard deviation."""
    limit = TOLERANCE * abs(expected[1])
    if any(abs(a - b) > limit for a, b in zip(found, expected, strict=True)):
        fix = "use the file, network size and channels that the probe was recorded with, or record it again"
        raise input_error(where, found=f"probe {list(found)}", expected=f"{list(expected)} ({MEANING})", fix=fix)


def _logits(model: SegmentationModel) -> Tensor:
    task, spec = next(iter(model.tasks)), model.spec
    size_zyx = [min(size, 2 * step) for size, step in zip(spec.patch_size_zyx, spec.downsampling_zyx, strict=True)]
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        return model(torch.randn(1, task.num_channels, *size_zyx, generator=generator), task)[0][:, 1].double()


def _fill(model: SegmentationModel) -> None:
    """Give every parameter and floating-point buffer a pattern; the pattern of a longer one begins like a shorter's.

    Running statistics stay those of a new norm, because a variance cannot be negative.
    """
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith(RUNNING) or not tensor.is_floating_point():
                continue
            wave = torch.arange(tensor.numel(), dtype=torch.float64).sin().view(tensor.shape)
            if tensor.ndim > 1:
                wave = wave * (2 / math.sqrt(tensor[0].numel()))
            else:
                wave = 0.1 * wave + (1 if name.endswith("weight") else 0)
            tensor.copy_(wave)
