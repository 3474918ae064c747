"""For weights that others released: sizes inferred from the shapes of tensors, and tasks given by number.

Each size is inferred from several tensors and decided by their majority, so that a reshaped or missing one does not
mislead the rest and is named as itself when the weights are loaded strictly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from segbench.core.errors import Problem, input_error, raise_problems

Shape = tuple[int, ...]
Inferred = TypeVar("Inferred")
MISSPELT = 0.8
"""How alike a name is to one that counts; no other argument of an original's constructor comes as near."""


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
    inferred: Any = votes.most_common(1)[0][0]  # no None is left among the votes
    return inferred


def count_of(names: Iterable[str], pattern: str) -> int:
    """Return how many parts the names number from 0 on: one more than the largest number in the pattern's group.

    Returns 0 when no name begins with the pattern.
    """
    return max((int(found[1]) + 1 for name in names if (found := re.match(pattern, name))), default=0)


def check_arguments(given: Mapping[str, object], where: str, *, named: Sequence[str] = (), **supported: object) -> None:
    """Raise InputError for each argument of an original's constructor that asks for what is not re-implemented.

    Args:
        given: arguments by name; names that are not in `supported` may have any value, but must not be misspelt ones.
        where: what the problems name.
        named: further names that count, whose values the caller checks.
        supported: name -> the one value, or a tuple of the values.
    """
    problems, counting = [], (*supported, *named)
    for name, value in given.items():
        near = get_close_matches(name, counting, n=1, cutoff=MISSPELT)
        if near and name not in counting:
            problems.append(Problem(where, f"the argument {name}", near[0], f"did you mean {near[0]}?"))
        values = supported.get(name, value)
        known = values if isinstance(values, tuple) else (values,)
        if value not in known:
            expected = " or ".join(repr(each) for each in known)
            problems.append(Problem(where, f"{name} = {value!r}", expected, "use weights of that network"))
    raise_problems(problems)


def whole_numbers(given: object, shape: Shape, where: str, what: str) -> Any:
    """Return an argument of an original's constructor as (nested lists of) whole numbers of at least 1.

    Raises InputError for another shape or other values; `what` says in words what is expected.
    """
    try:
        numbers = np.asarray(given)
    except ValueError:  # lists of different lengths
        numbers = np.empty(0)
    if numbers.shape != shape or numbers.dtype.kind not in "iu" or numbers.min() < 1:
        fix = "state them as the network was built with"
        raise input_error(where, found=repr(given), expected=f"{what} of at least 1", fix=fix)
    return numbers.tolist()


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
