"""Golden files: state dicts filled by the stated rule, seeded inputs, and the network that a file is about.

A network's module states `OFFICIAL`, the names of its golden files, and `from_official(state_dict, **arch)`. The module
that this returns answers with the golden outputs from `official_outputs(images, **inputs)` where it has that method,
otherwise from `forward`; `inputs` is what a case states beside its image, such as `task_id`.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segbench.core.errors import input_error
from tests.paths import ROOT, SHARED

GOLDEN = SHARED / "golden"
TOLERANCES = {"desd_resnet_official": 1e-3}  # of the largest output; its own float32 is 1.5e-4 from its float64
TOLERANCE = 1e-4
NOT_INPUTS = ("input_seed", "input_shape", "outputs_note")


def load(name: str) -> tuple[dict, dict]:
    """Return (facts, arrays) of a golden file; skip the test where the files are absent."""
    path = GOLDEN / f"{name}.json"
    if not path.exists():
        pytest.skip("the expected outputs of the original networks are not beside this checkout")
    return read(path)


def read(path: Path) -> tuple[dict, dict]:
    """Return (facts, arrays) of any file of the golden format; an absent or damaged one raises InputError."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            found = dict(arrays)
        keys = {"arch", "parameters", "cases"}
        if not isinstance(facts, dict) or not keys <= facts.keys():
            raise ValueError(f"no mapping with {', '.join(sorted(keys))}")
        return facts, found
    except (OSError, ValueError) as error:
        expected = "a golden file: FILE.json with FILE.npz beside it"
        raise input_error(path, found=str(error), expected=expected, fix="give the path of the JSON file") from error


def filled(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Fill every tensor from its name: normal numbers; 1-D around one (weights) or zero; others scaled by fan-in."""
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(*shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        if len(shape) == 1:
            state[name] = (1.0 if name.endswith("weight") else 0.0) + 0.1 * noise
        else:
            state[name] = noise / math.sqrt(math.prod(shape[1:]))
    return state


def seeded_input(case: dict) -> Tensor:
    """Return the input of a golden case."""
    return torch.randn(*case["input_shape"], generator=torch.Generator().manual_seed(case["input_seed"]))


@cache
def official_modules() -> dict[str, ModuleType]:
    """Return golden name -> module below models/ that re-implements that network."""
    found = {}
    for path in sorted((ROOT / "models").rglob("*.py")):
        if re.search(r"^OFFICIAL\b", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            names = module.OFFICIAL
            found |= dict.fromkeys([names] if isinstance(names, str) else names, module)
    return found


def golden_name(path: Path, facts: dict) -> str:
    """Return which original a file is about.

    The name of the file says it (the longest known name in it, with or without `_official`), otherwise the repository
    in `arch.source`, which is the `url` of one card. Raises InputError when neither does.
    """
    modules = official_modules()
    named = [name for name in modules if name.removesuffix("_official") in path.stem]
    if named:
        return max(named, key=len)
    source = str(facts.get("arch", {}).get("source", "")).split(" ")[0]
    for name, module in modules.items():
        if source and getattr(module, "CARD", {}).get("url", "").endswith(f"/{source}"):
            return name
    raise input_error(
        path,
        found=f"neither a known name nor a known source ({source or 'none'})",
        expected=f"one of {', '.join(modules)} in the name of the file",
        fix="rename the file",
    )


def constructor_arguments(facts: dict) -> dict:
    """Return the arguments of the original's constructor that a golden file states, its defaults included."""
    arch = facts["arch"]
    return {**arch.get("constructor_defaults", {}), **arch.get("constructor", arch)}


@dataclass(frozen=True)
class Compared:
    """One golden array beside our answer; differences are in the array's own unit."""

    case: int
    inputs: dict[str, Any]
    output: str
    stride: int
    largest: float
    difference: float

    @property
    def relative(self) -> float:
        """Return the difference as a fraction of the array's largest magnitude."""
        return self.difference / self.largest if self.largest else self.difference


def compare(path: Path) -> tuple[nn.Module, list[Compared]]:
    """Return the network of a golden file and every array of the file beside its answer."""
    facts, arrays = read(path)
    network = official_modules()[golden_name(path, facts)].from_official(
        filled(facts["parameters"]), **constructor_arguments(facts)
    )
    rows = []
    for number, case in enumerate(facts["cases"]):
        inputs = {name: value for name, value in case.items() if name not in NOT_INPUTS}
        with torch.no_grad():
            answers = list(_flat(getattr(network, "official_outputs", network)(seeded_input(case), **inputs)))
        expected = [torch.as_tensor(arrays[name]) for name in _outputs_of(number, arrays)]
        rows += _paired(number, inputs, answers, expected)
    if not rows:
        raise input_error(path, found="no outputs", expected="at least one array", fix="write the file again")
    return network, rows


def _outputs_of(case: int, arrays: dict) -> list[str]:
    names = [name for name in arrays if name.startswith(f"case{case}_output")]
    return sorted(names, key=lambda name: int(name.rpartition("output")[2]))


def _flat(answer: Any) -> Iterator[Tensor]:
    if isinstance(answer, Tensor):
        yield answer
        return
    for part in answer.values() if isinstance(answer, dict) else answer:
        yield from _flat(part)


def _paired(case: int, inputs: dict[str, Any], answers: list[Tensor], expected: list[Tensor]) -> list[Compared]:
    """Pair arrays with answers in order.

    A file may leave answers out and cut the others at a stride. Which ones is stated in words only, so the answer and
    stride are the pair of fitting shapes with the smallest difference; a wrong pair agrees with nothing.
    """
    rows, first = [], 0
    for position, array in enumerate(expected):
        last = len(answers) - (len(expected) - position - 1)  # leave one answer for each array that follows
        fitting = [
            ((_cut(answers[number], stride) - array).abs().max().item(), number, stride)
            for number in range(first, last)
            for stride in _strides(answers[number].shape, array.shape)
        ]
        largest = array.abs().max().item()
        if not fitting:
            shapes = ", ".join(str(tuple(answer.shape)) for answer in answers[first:last])
            what = f"output {position}: none of {shapes or 'no outputs'} fits {tuple(array.shape)}"
            rows.append(Compared(case, inputs, what, 0, largest, math.inf))
            continue
        difference, number, stride = min((math.inf if math.isnan(row[0]) else row[0], *row[1:]) for row in fitting)
        first = number + 1
        rows.append(Compared(case, inputs, f"output {position}", stride, largest, difference))
    return rows


def _cut(answer: Tensor, stride: int) -> Tensor:
    return answer if answer.ndim < 5 else answer[:, :, ::stride, ::stride, ::stride]


def _strides(shape: torch.Size, cut: torch.Size) -> list[int]:
    """Return every stride that cuts the spatial axes of the one shape to the other."""
    if len(shape) != len(cut) or shape[:2] != cut[:2]:
        return []
    if len(shape) < 5:
        return [1] if shape == cut else []
    return [
        stride
        for stride in range(1, max(shape[2:]) + 1)
        if all(-(-size // stride) == wanted for size, wanted in zip(shape[2:], cut[2:], strict=True))
    ]
