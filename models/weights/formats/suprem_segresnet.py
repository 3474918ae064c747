"""SuPreM's checkpoint on SegResNet: MONAI's network itself."""

from __future__ import annotations

CARD = {
    "title": "SuPreM (SegResNet)",
    "citation": "Li et al., How Well Do Supervised Models Transfer to 3D Image Segmentation?, ICLR 2024",
    "url": "https://github.com/MrGiovanni/SuPreM",
    "licence": "MIT (repository)",
    "obtain": "supervised_suprem_segresnet_2100.pth of https://huggingface.co/MrGiovanni/SuPreM",
    "layout": "target_applications/totalsegmentator/train.py of the repository (network, width 16, how its names are "
    "cut, which convolution is left out)",
    "loaded": "everything but the last convolution; the network needs base_features: 16",
    "left_out": "the last convolution (conv_final.2)",
    "targets": {
        "segresnet_plain": [
            "network.convInit.",
            "network.down_layers.",
            "network.up_layers.",
            "network.up_samples.",
            "network.conv_final.0.",
        ],
    },
    "strict": True,
    "stems": {"network.convInit.conv.weight": "new"},
    "minimum_fraction": 0.9,
    "trained_on": "unknown",
    "other_data": "AbdomenAtlas 1.0 (CT of many public data sets; its overlap with BTCV is unknown)",
    "axes": "xyz",
    "intensities": {"window_hu": [-175.0, 250.0], "scaled_to": [0.0, 1.0]},
    "images_source": "supervised_pretraining/train.py (a_min, a_max, b_min, b_max; 1.5 mm) and "
    "supervised_pretraining/dataset/dataloader_bdmap.py (RAS: x, y, z) of the repository",
}


def file_name(own: str) -> str:
    """Return a tensor's name in the file."""
    return own.removeprefix("network.")
