"""State dicts from files: read without executing code, unwrapped, checked, and loaded whole or not at all."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy._core.multiarray import scalar
from torch import Tensor, nn

from segbench.core.errors import Problem, input_error, raise_problems

# keys under which other trainers keep their weights; of a teacher and a student, self-distillation keeps the teacher
WRAPPERS = ("state_dict", "network_weights", "model", "net", "teacher")
# numbers and settings that other trainers store beside the weights; building them runs no code of the file
PLAIN_GLOBALS: list[Any] = [numpy.dtype, scalar, type(numpy.dtype("f8")), type(numpy.dtype("f4")), argparse.Namespace]


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Load a state dict without executing code; a truncated, malicious or foreign file raises `InputError`."""
    return tensors_of(load_safely(path), path)


def load_safely(path: Path | str) -> object:
    """Return what torch.save wrote, without executing code; a file that does not load so raises `InputError`."""
    try:
        with torch.serialization.safe_globals(PLAIN_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here; all mean that the file cannot be trusted
        raise input_error(
            path,
            found=f"a file that does not load safely ({type(error).__name__})",
            expected="a state dict saved by torch.save",
            fix="save it again with torch.save(model.state_dict(), path)",
        ) from error


def tensors_of(content: object, where: object) -> dict[str, Tensor]:
    """Return the state dict inside a checkpoint: wrappers and the prefix of data-parallel training are taken off.

    Raises InputError when there is none, or when an entry is not a tensor of finite numbers.
    """
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        found = "an empty dictionary" if isinstance(content, dict) else type(content).__name__
        raise input_error(where, found=found, expected="a dictionary of tensors", fix="save model.state_dict()")
    problems = []
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            problems.append(
                Problem(str(where), f"{name}: {type(value).__name__}", "a tensor", "save model.state_dict()")
            )
        elif not value.isfinite().all():
            problems.append(Problem(str(where), f"{name} with nan or inf", "finite numbers", "use another checkpoint"))
    raise_problems(problems)
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return dict(content)


def load_strictly(
    model: nn.Module, state: Mapping[str, Tensor], where: object, *, names: Mapping[str, str] | None = None
) -> None:
    """Load every tensor or none; each missing, unexpected or reshaped tensor is one problem.

    names: own name -> name in `state`, for a file of another layout; problems speak of the file's names.
    """
    own = {(names or {}).get(name, name): (name, tensor) for name, tensor in model.state_dict().items()}
    fix = "use a checkpoint of the same model, size and tasks"
    problems = []
    for name in sorted(own.keys() | state.keys()):
        expected = f"shape {tuple(own[name][1].shape)}" if name in own else "no such tensor"
        if name not in state:
            problems.append(Problem(str(where), f"no tensor {name}", expected, fix))
        elif name not in own:
            problems.append(Problem(str(where), f"unexpected tensor {name}", expected, fix))
        elif own[name][1].shape != state[name].shape:
            found = f"tensor {name} of shape {tuple(state[name].shape)}"
            problems.append(Problem(str(where), found, expected, fix))
    raise_problems(problems)
    model.load_state_dict({own[name][0]: tensor for name, tensor in state.items()}, strict=True)
