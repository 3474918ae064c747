"""The released CLIP-driven universal model on its U-Net; our network has its names."""

from __future__ import annotations

CARD = {
    "title": "CLIP-driven universal model (released, U-Net)",
    "citation": "Liu et al., CLIP-Driven Universal Model for Organ Segmentation and Tumor Detection, ICCV 2023",
    "url": "https://github.com/ljwztc/CLIP-Driven-Universal-Model",
    "licence": "CC BY-NC-ND 4.0",
    "obtain": "supervised_clip_driven_universal_unet_2100.pth of https://huggingface.co/MrGiovanni/SuPreM, or the "
    "README of the repository",
    "layout": "model/Universal_model.py of the repository (names), facts of the released network; agreement with its "
    "outputs is under test (tests/golden)",
    "loaded": "the U-Net, the pooling of its bottleneck and the convolution before the generated heads",
    "left_out": "class vectors, their projection and the controller, which belong to the classes of its training",
    "targets": {"clip_driven_original": ["backbone.", "GAP.", "precls_conv."]},
    "strict": True,
    "stems": {},
    "minimum_fraction": 0.9,
    "trained_on": {"btcv": ["img0032", "img0033", "img0034", "img0035", "img0037", "img0038", "img0039", "img0040"]},
    "other_data": "the other cases of its default list, PAOT_123457891213_train.txt (train.py:229); that the "
    "released file used this list is likely, not proven",
    "axes": "xyz",
    "intensities": {"window_hu": [-175.0, 250.0], "scaled_to": [0.0, 1.0]},
    "images_source": "train.py (a_min, a_max, b_min, b_max; 1.5 mm) and dataset/dataloader.py (RAS: x, y, z) of the "
    "repository",
}


def file_name(own: str) -> str:
    """Return a tensor's name in the file."""
    return own
