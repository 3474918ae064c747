"""A checkpoint of DeSD's pre-training: the teacher's encoder inside its wrapper."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

CARD = {
    "title": "DeSD (3D ResNet)",
    "citation": "Ye et al., DeSD: Self-Supervised Learning with Deep Self-Distillation for 3D Medical Image "
    "Segmentation, MICCAI 2022",
    "url": "https://github.com/yeerwen/DeSD",
    "licence": "BSD-like, for non-commercial purposes",
    "obtain": "the link in the README of the repository, or checkpoint.pth of its pre-training",
    "layout": "main_DeSD_ssl.py (keys of the checkpoint: teacher, student) and utils.py (the wrapper's names) of the "
    "repository, facts of the released encoder; agreement with its outputs is under test (tests/golden)",
    "loaded": "the whole encoder, of the teacher where a checkpoint holds both; for more than one image channel the "
    "stem is repeated and divided by their number",
    "left_out": "the projection heads; the decoder starts new",
    "targets": {"desd_resnet": ["network.encoder."]},
    "strict": True,
    "stems": {"network.encoder.conv1.weight": "repeated"},
    "minimum_fraction": 0.5,
    "trained_on": {},
    "other_data": "DeepLesion (CT)",
    "axes": "unknown",
    "intensities": "unknown",
}


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict under the encoder's own names, without the wrapper's."""
    return {name.removeprefix("backbone."): tensor for name, tensor in state.items()}


def file_name(own: str) -> str:
    """Return a tensor's name in the file."""
    return own.removeprefix("network.encoder.")
