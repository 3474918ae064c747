"""State dicts from files: read without executing code, unwrapped, checked, and loaded whole or not at all."""

from __future__ import annotations

import argparse
import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from torch import Tensor, nn

from segbench.core.errors import Problem, input_error, raise_problems

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "network_weights",
    "network_state_dict",
    "model",
    "net",
    "network",
    "teacher",
    "state_dict_ema",
    "ema_state_dict",
    "model_ema",
    "ema_model",
    "ema",
)
"""Keys under which other trainers keep their weights, in the order in which they are looked for.

Of a teacher and a student, self-distillation keeps the teacher; averaged weights are taken where there are no others.
"""
PARALLEL = "module."
"""What data-parallel training puts before every name."""
INSERTED = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts of names that torch.compile, sharded training and activation checkpointing insert anywhere."""
LIGHTNING_KEY = "pytorch-lightning_version"
LIGHTNING_NETWORKS = ("model.", "net.", "network.", "_model.")
DEEPSPEED = "_forward_module."
"""What a Lightning module under DeepSpeed puts before every name."""
LIGHTNING_LOSSES = re.compile(r"[^.]*(loss|criterion|metric)[^.]*(\.|$)|(train|val|test)_[^.]*\.")
COUNTERS = frozenset({"n_averaged"})
"""What averaging of weights (torch.optim.swa_utils.AveragedModel) stores beside the network."""


def _empty_bytes() -> bytes:
    """Stand for the type `bytes`, which empty arrays ask for; with a size it would fill the memory."""
    return b""


NUMBERS = "?bhilqBHILQefdFD"  # NumPy's types of booleans, whole numbers, floats and complex numbers
# Numbers and settings that trainers store beside the weights. Building them runs no code of the file: NumPy's own
# functions get plain bytes, and the types of objects and records are left out. NumPy 1 writes `numpy.core`.
PLAIN_GLOBALS: list[Any] = [
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in (*NUMBERS, "U1", "S1")},
    *(
        (function, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for function, name in (
            (multiarray.scalar, "scalar"),
            (multiarray._reconstruct, "_reconstruct"),
        )
    ),
    (_empty_bytes, "builtins.bytes"),
    (_empty_bytes, "__builtin__.bytes"),
    argparse.Namespace,
    *(
        (kind, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for kind, name in ((pathlib.PurePosixPath, "PosixPath"), (pathlib.PureWindowsPath, "WindowsPath"))
    ),
    *(
        (dict, f"{module}.AttributeDict")
        for module in (
            "pytorch_lightning.utilities.parsing",
            "lightning.pytorch.utilities.parsing",
            "lightning_fabric.utilities.data",
            "lightning.fabric.utilities.data",
        )
    ),
]
SAFETENSORS = ".safetensors"
TORCH_PROTOCOL = 2
"""The pickle protocol of torch.save, and the only one that is read without executing code."""
FOREIGN_STARTS = {
    b"\x1f\x8b": "a file that gzip packed",
    b"version https://git-lfs": "a pointer of Git LFS, not the file that it stands for (git lfs pull)",
    b"<!doctype html": "a web page, not the file behind it",
    b"<html": "a web page, not the file behind it",
    b"\x89HDF": "an HDF5 file",
}


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Load a state dict without executing code; a truncated, malicious or foreign file raises `InputError`."""
    return tensors_of(load_safely(path), path)


def load_safely(path: Path | str) -> object:
    """Return what torch.save or safetensors wrote; no code of the file is executed.

    Raises:
        InputError: the file cannot be read so; the problem names the class that it asks for.
    """
    try:
        if str(path).lower().endswith(SAFETENSORS):
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(PLAIN_GLOBALS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # _in_words says so where it matters
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here; all mean that the file cannot be trusted
        found, fix = _in_words(Path(path), error)
        raise input_error(
            path, found=f"a file that does not load safely ({found})", expected="a state dict", fix=fix
        ) from error


def _in_words(path: Path, error: Exception) -> tuple[str, str]:
    """Return what is wrong with a file of weights, and what to do, in the words of its author's own program."""
    save = "save the tensors alone: torch.save(model.state_dict(), path)"
    if isinstance(error, OSError):
        bundle = path / "models" / "model.pt"
        return error.strerror or type(error).__name__, f"name {bundle}" if bundle.exists() else "fix the path"
    if path.suffix == ".json":
        return "a list of several files", "join them: torch.save of one dictionary with all tensors"
    if "torchscript" in str(error).lower():
        return "a TorchScript program", "torch.save(torch.jit.load(path).state_dict(), other_path)"
    asked = re.search(r"GLOBAL ([\w.]+)", str(error))
    if asked:
        return f"it asks for {asked.group(1)}", save
    protocol = _pickle_protocol(path)
    if protocol > TORCH_PROTOCOL:
        return f"pickle protocol {protocol}", f"{save}, with pickle_protocol={TORCH_PROTOCOL}, the default"
    start = _start(path, 30).lower()
    kind = next((kind for known, kind in FOREIGN_STARTS.items() if start.startswith(known.lower())), None)
    if kind:
        return kind, f"get, unpack or convert it, or {save}"
    refused = re.search(r"but got <class '([\w.]+)'>", str(error))
    if refused:
        return f"it holds {refused.group(1)}", save
    words = "no pickle of tensors" if isinstance(error, pickle.UnpicklingError) else "damaged, or of another program"
    return words if start else "an empty file", f"get the file again, or {save}"


def _start(path: Path, size: int) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(size)


def _pickle_protocol(path: Path) -> int:
    """Return the protocol of the pickle that a file is or, as torch.save writes it, holds; 0 where there is none."""
    start = _start(path, 2)
    with suppress(Exception):  # no archive, or one that is damaged in any way: its first bytes are all there is
        with zipfile.ZipFile(path) as archive:
            start = archive.open(next(name for name in archive.namelist() if name.endswith("data.pkl"))).read(2)
    return start[1] if len(start) == 2 and start[:1] == pickle.PROTO else 0


def tensors_of(content: object, where: object) -> dict[str, Tensor]:
    """Return the state dict inside a checkpoint as dense tensors, under the names of the network.

    Taken off are wrappers (`WRAPPERS`, also one in another), what parallel training and torch.compile add to names, in
    any order, and the attribute under which a Lightning module keeps its network. NumPy arrays become tensors.

    Raises:
        InputError: there is no state dict, or an entry is no dense tensor of finite numbers.
    """
    is_lightning = isinstance(content, dict) and LIGHTNING_KEY in content
    while isinstance(content, dict) and (key := next((k for k in WRAPPERS if isinstance(content.get(k), dict)), None)):
        content = content[key]
    if not isinstance(content, dict) or not content:
        found = "an empty dictionary" if isinstance(content, dict) else type(content).__name__
        raise input_error(where, found=found, expected="a dictionary of tensors", fix="save model.state_dict()")
    inside = [key for key, value in content.items() if isinstance(value, dict) and _holds_tensors(value)]
    if inside and not _holds_tensors(content):
        raise input_error(
            where,
            found=f"dictionaries of tensors under {', '.join(map(repr, inside[:4]))}",
            expected=f"one dictionary of tensors, alone or under one of {', '.join(WRAPPERS)}",
            fix=f"save the one of the network: torch.save(checkpoint[{inside[0]!r}], path)",
        )
    state = {name: _tensor(value) for name, value in content.items()}
    raise_problems(
        Problem(str(where), *problem)
        for name, value in state.items()
        if (problem := _entry_problem(name, value)) is not None
    )
    names = _network_names(list(state), is_lightning=is_lightning)
    tensors = {name: tensor for name, tensor in state.items() if name in names and isinstance(tensor, Tensor)}
    raise_problems(_twice(tensors, names, where))
    return {names[name]: tensor for name, tensor in tensors.items()}


def _twice(state: Mapping[str, Tensor], names: Mapping[str, str], where: object) -> Iterator[Problem]:
    """Yield the first two stored names that stand for one tensor of the network and hold different numbers."""
    first: dict[str, str] = {}
    for stored, tensor in state.items():
        other = first.setdefault(names[stored], stored)
        if other != stored and not torch.equal(state[other].double(), tensor.double()):
            found = f"{other} and {stored}, which differ and both stand for {names[stored]}"
            yield Problem(str(where), found, "one tensor of each name", "save the state dict of one network alone")
            return


def _holds_tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor | np.ndarray) for value in content.values())


def _tensor(value: object) -> object:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    return value


def _entry_problem(name: object, value: object) -> tuple[str, str, str] | None:
    """Return found, expected and fix of an entry that is no dense tensor of finite numbers."""
    if not isinstance(name, str) or not isinstance(value, Tensor):
        return f"{name}: {type(value).__name__}", "a tensor", "save model.state_dict()"
    for kind, is_so in (
        ("sparse", value.layout != torch.strided),
        ("quantised", value.is_quantized),
        ("without values (on the device meta)", value.is_meta),
        ("complex", value.is_complex()),
    ):
        if is_so:
            return (
                f"{name}, a tensor that is {kind}",
                "a dense tensor of real numbers",
                "save it dense and in float32 (sparse: tensor.to_dense())",
            )
    numbers = value.float() if value.is_floating_point() and value.itemsize == 1 else value
    if not numbers.isfinite().all():
        return f"{name} with nan or inf", "finite numbers", "use another checkpoint"
    return None


def _network_names(names: list[str], *, is_lightning: bool) -> dict[str, str]:
    """Return stored name -> name in the network; losses and metrics of a Lightning module are left out."""
    found = {name: INSERTED.sub("", name) for name in names}
    counters = {name for name in COUNTERS & found.keys() if any(other.startswith(PARALLEL) for other in names)}
    found = {stored: name for stored, name in found.items() if stored not in counters}
    while found and all(name.startswith(PARALLEL) for name in found.values()):
        found = {stored: name.removeprefix(PARALLEL) for stored, name in found.items()}
    if is_lightning:
        found = {stored: name.removeprefix(DEEPSPEED) for stored, name in found.items()}
        kept = {stored: name for stored, name in found.items() if not _beside_the_network(name)}
        prefix = next((item for item in LIGHTNING_NETWORKS if all(name.startswith(item) for name in kept.values())), "")
        if kept and prefix:
            names = [name.removeprefix(prefix) for name in kept.values()]
            return dict(zip(kept, _network_names(names, is_lightning=False).values(), strict=True))
    return found


def _beside_the_network(name: str) -> bool:
    """Tell whether an entry of a Lightning module is a loss, a metric or a buffer of the module itself."""
    return "." not in name or LIGHTNING_LOSSES.match(name) is not None


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
