"""Vectors that stand for class names: seeded random ones, from a user's file, or from a text encoder the user has.

The source is an option of the model and is named in the tables, because it decides what such a model can know.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy
import torch
from torch import Tensor

from models.blocks.classes import class_channels
from models.weights.reading import load_safely, tensors_of
from segbench.core.errors import Problem, input_error, raise_problems, suggestion
from segbench.core.task import TaskSet

LENGTH = 512  # of CLIP's text encoders, and of random vectors
WHERE = "option embeddings"
# Classes of the CLIP-driven universal model in the order of the rows of its txt_encoding.pth, by the names of our cards
RELEASED_CLASSES = (
    *("spleen", "right kidney", "left kidney", "gallbladder", "oesophagus", "liver", "stomach", "aorta"),
    *("inferior vena cava", "portal and splenic veins", "pancreas", "right adrenal gland", "left adrenal gland"),
    *("duodenum", "hepatic vessel", "right lung", "left lung", "colon", "intestine", "rectum", "bladder", "prostate"),
    *("left head of femur", "right head of femur", "coeliac trunk", "kidney tumour", "liver tumour"),
    *("pancreas tumour", "hepatic tumour", "lung tumour", "colon tumour", "kidney cyst"),
)


def class_names(tasks: TaskSet, *, share_names: bool) -> list[str]:
    """Return the class name of every output channel, in the order of `models.blocks.classes.class_channels`."""
    channels, count = class_channels(tasks, share_names=share_names)
    names = [""] * count
    for task in tasks:
        for name, channel in zip(task.classes, channels[task.name], strict=True):
            names[channel] = name
    return names


def embeddings_of(names: Sequence[str], source: str, *, template: str = "{}") -> Tensor:
    """Return `vectors_KE` (float32), one row per name, each of unit length times sqrt(E).

    source: 'random' (each name seeds its own vector, N(0, 1)); 'file:PATH', an .npz or .pt file with one vector per
    class name, or the txt_encoding.pth of the CLIP-driven universal model (`RELEASED_CLASSES`); or
    'encoder:MODULE:FUNCTION', a function of the user's that takes a list of texts, here `template` filled with each
    name, and returns one vector per text. Raises InputError for another source, and for a vector that is missing, not
    finite, zero or of another length than the rest.
    """
    kind, _, rest = source.partition(":")
    vectors: Mapping[str, Tensor]
    if source == "random":
        vectors = {name: _random(name) for name in names}
    elif kind == "file" and rest:
        vectors = _from_file(Path(rest).expanduser())
    elif kind == "encoder" and rest.count(":") == 1:
        vectors = dict(zip(names, _encoded([template.format(name) for name in names], rest), strict=True))
    else:
        expected = "random, file:PATH or encoder:MODULE:FUNCTION"
        raise input_error(WHERE, found=repr(source), expected=expected, fix="name where the vectors come from")
    vectors_KE = torch.stack(_checked(vectors, names, source))
    return vectors_KE / vectors_KE.norm(dim=1, keepdim=True) * vectors_KE.shape[1] ** 0.5


def _random(name: str) -> Tensor:
    return torch.randn(LENGTH, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


def _from_file(path: Path) -> Mapping[str, Tensor]:
    if path.suffix != ".npz":
        content = load_safely(path)
        if isinstance(content, Tensor) and content.ndim == 2 and len(content) == len(RELEASED_CLASSES):
            return dict(zip(RELEASED_CLASSES, content, strict=True))
        return tensors_of(content, path)
    try:
        with numpy.load(path, allow_pickle=False) as arrays:
            return {name: torch.as_tensor(arrays[name]) for name in arrays.files}
    except (OSError, ValueError, TypeError) as error:
        expected = "an .npz or .pt file with one vector per class name"
        raise input_error(path, found=f"no usable file ({error})", expected=expected, fix="write it again") from error


def _encoded(texts: list[str], place: str) -> list[Tensor]:
    module, _, function = place.partition(":")
    try:
        encode = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        fix = "put the module on the Python path"
        raise input_error(WHERE, found=f"{place} ({error})", expected="an importable function", fix=fix) from error
    vectors_KE = torch.as_tensor(encode(texts))
    if vectors_KE.ndim != 2 or len(vectors_KE) != len(texts):
        found = f"shape {tuple(vectors_KE.shape)} from {place}"
        raise input_error(
            WHERE, found=found, expected=f"one vector for each of {len(texts)} texts", fix="fix the function"
        )
    return list(vectors_KE.detach().cpu())


def _checked(vectors: Mapping[str, Tensor], names: Sequence[str], source: str) -> list[Tensor]:
    problems, found = [], []
    for name in dict.fromkeys(names):
        if name not in vectors:
            problems.append(
                Problem(WHERE, f"no vector for {name!r} in {source}", "one per class", suggestion(name, vectors))
            )
            continue
        vector = vectors[name].detach().float()
        found.append(vector.shape)
        if vector.ndim != 1 or vector.shape != found[0]:
            expected = f"shape {tuple(found[0])} as the first" if vector.ndim == 1 else "one axis"
            problems.append(
                Problem(WHERE, f"{name!r} of shape {tuple(vector.shape)}", expected, "use one encoder for all")
            )
        elif not vector.isfinite().all() or not vector.any():
            problems.append(Problem(WHERE, f"{name!r} zero or not finite", "finite numbers", "encode it again"))
    raise_problems(problems)
    return [vectors[name].detach().float() for name in names]
