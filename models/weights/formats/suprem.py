"""SuPreM's checkpoints on the U-Net and on Swin UNETR: the backbone inside a CLIP-driven model."""

from __future__ import annotations

CARD = {
    "title": "SuPreM (U-Net or Swin UNETR)",
    "citation": "Li et al., How Well Do Supervised Models Transfer to 3D Image Segmentation?, ICLR 2024",
    "url": "https://github.com/MrGiovanni/SuPreM",
    "licence": "MIT (repository)",
    "obtain": "supervised_suprem_unet_2100.pth or supervised_suprem_swinunetr_2100.pth of "
    "https://huggingface.co/MrGiovanni/SuPreM",
    "layout": "target_applications/totalsegmentator/train.py (how its names are cut) and "
    "supervised_pretraining/backbone/Universal_model.py (names) of the repository",
    "loaded": "the whole backbone but its output convolution",
    "left_out": "class vectors, generated heads, the output convolution of Swin UNETR",
    "targets": {
        "clip_driven_original": ["backbone."],
        "swin_unetr": ["network.swinViT.", "network.encoder", "network.decoder"],
    },
    "strict": True,
    "stems": {
        "network.swinViT.patch_embed.proj.weight": "new",
        "network.encoder1.layer.conv1.conv.weight": "new",
        "network.encoder1.layer.conv3.conv.weight": "new",
    },
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
    return own.replace("network.", "backbone.", 1)
