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
    "axes": "zyx",
    "intensities": {"window_hu": [-1024.0, 1024.0], "scaled_to": [-1.0, 1.0]},
    "images_source": "re_spacing_ITK.py (clipped to -1024 to 1024; 1 mm) and data_loader_ssl.py (divided by 1024; "
    "slices first, then the axes of the file) of the repository; the files are those of DeepLesion's"
    " DL_save_nifti.py, which writes rows before columns: z, y, x",
}


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict under the encoder's own names, without the wrapper's."""
    return {name.removeprefix("backbone."): tensor for name, tensor in state.items()}


def file_name(own: str) -> str:
    """Return a tensor's name in the file."""
    return own.removeprefix("network.encoder.")
