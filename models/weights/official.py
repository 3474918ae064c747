"""For weights that others released: sizes told by the shapes of tensors, and tasks told by number.

Each size is told by several tensors and decided by their majority, so that a reshaped or missing one does not mislead
the rest and is named as itself when the weights are loaded strictly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from segbench.core.errors import input_error

Shape = tuple[int, ...]
Inferred = TypeVar("Inferred")


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Return name -> shape."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def outputs(shape: Shape) -> int:
    """Return the number of output channels of a weight or the length of a vector."""
    return shape[0]


def inputs(shape: Shape) -> int | None:
    """Return the number of input channels of a weight."""
    return shape[1] if len(shape) > 1 else None


def kernel_zyx(shape: Shape) -> tuple[int, int, int] | None:
    """Return the kernel of a 3D convolution's weight."""
    return shape[2:] if len(shape) == 5 else None


def majority(
    shapes: Mapping[str, Shape], names: Sequence[str], tell: Callable[[Shape], Inferred | None], *, where: str
) -> Inferred:
    """Return what most of the named tensors tell; one that is missing or has other axes has no vote.

    Raises InputError when none has a vote.
    """
    votes = Counter(tell(shapes[name]) for name in names if shapes.get(name))
    votes.pop(None, None)
    if not votes:
        found = f"no usable tensor {names[0]}"
        raise input_error(
            where, found=found, expected="a tensor that tells a size", fix="use a checkpoint of this network"
        )
    return votes.most_common(1)[0][0]


def task_numbers(numbers: int | Sequence[int] | Tensor, *, batch: int, tasks: int) -> Tensor:
    """Return the task number of each sample (B,) from one number for all or one per sample.

    Raises InputError for another count, and for a number that is not whole or not below `tasks`.
    """
    given = torch.as_tensor(numbers).reshape(-1)
    given = given.expand(batch) if len(given) == 1 else given
    whole = given.long()
    if len(given) != batch or not ((whole == given) & (whole >= 0) & (whole < tasks)).all():
        expected = f"numbers from 0 to {tasks - 1}, one for all or {batch} in all"
        raise input_error("task numbers", found=given.tolist(), expected=expected, fix="give a known task")
    return whole
