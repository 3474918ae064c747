"""The encoder of Swin UNETR after self-supervised training on CT (model_swinvit.pt)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

CARD = {
    "title": "Swin UNETR, self-supervised",
    "citation": "Tang et al., Self-Supervised Pre-Training of Swin Transformers for 3D Medical Image Analysis, "
    "CVPR 2022",
    "url": "https://github.com/Project-MONAI/research-contributions/tree/main/SwinUNETR/Pretrain",
    "licence": "Apache-2.0 (MONAI)",
    "obtain": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/model_swinvit.pt",
    "layout": "MONAI's SwinUNETR.load_from; for files of a newer pre-training, pull request 88 of "
    "Project-MONAI/research-contributions",
    "loaded": "the Swin transformer, 14 % of the network",
    "left_out": "the heads of its self-supervised tasks; the convolutional encoder and decoder start new",
    "targets": {"swin_unetr": ["network.swinViT."]},
    "strict": True,
    "stems": {"network.swinViT.patch_embed.proj.weight": "new"},
    "minimum_fraction": 0.1,
    "trained_on": {},
    "other_data": "5 050 CT of LUNA16, LIDC-IDRI, HNSCC, CT Colonography and COVID-19 of TCIA",
    "axes": "xyz",
    "intensities": {"window_hu": [-1000.0, 1000.0], "scaled_to": [0.0, 1.0]},
    "images_source": "SwinUNETR/Pretrain/main.py (a_min, a_max, b_min, b_max) and "
    "SwinUNETR/Pretrain/utils/data_utils.py (RAS: x, y, z; not resampled) of Project-MONAI/research-"
    "contributions",
}
ENCODER = re.compile(r"^(swinViT|swin_vit)\.")


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict under the names of model_swinvit.pt, which a newer pre-training calls otherwise."""
    return {ENCODER.sub("", name).replace(".mlp.linear", ".mlp.fc"): tensor for name, tensor in state.items()}


def file_name(own: str) -> str:
    """Return a tensor's name in the file."""
    return own.removeprefix("network.swinViT.").replace(".mlp.linear", ".mlp.fc")
