"""Checkpoints of STU-Net, trained on TotalSegmentator within nnU-Net v1; our network has their names."""

from __future__ import annotations

CARD = {
    "title": "STU-Net (TotalSegmentator)",
    "citation": "Huang et al., STU-Net: Scalable and Transferable Medical Image Segmentation Models Empowered by "
    "Large-Scale Supervised Pre-training, arXiv 2304.06716, 2023",
    "url": "https://github.com/uni-medical/STU-Net",
    "licence": "Apache-2.0 (repository)",
    "obtain": "small_ep4k.model, base_ep4k.model, large_ep4k.model or huge_ep4k.model, by the links in the README of "
    "the repository; the option size has to fit",
    "layout": "facts of the released network; agreement with its outputs is under test (tests/golden); what is loaded "
    "follows nnUNet-1.7.1/nnunet/run/run_finetuning.py of the repository",
    "loaded": "everything but the outputs; for more than one image channel the first block's convolutions are repeated "
    "and divided by their number, which the original does not do",
    "left_out": "the outputs (seg_outputs)",
    "targets": {
        "stunet": ["network.conv_blocks_context.", "network.upsample_layers.", "network.conv_blocks_localization."]
    },
    "strict": True,
    "stems": {
        "network.conv_blocks_context.0.0.conv1.weight": "repeated",
        "network.conv_blocks_context.0.0.conv3.weight": "repeated",
    },
    "minimum_fraction": 0.9,
    "trained_on": {},
    "other_data": "TotalSegmentator (CT)",
    "axes": "zyx",
    "intensities": "z-score",
    "images_source": "that of nnU-Net v1, in which it was trained (README.md of the repository): z, y, x and a "
    "z-score; spacing not read",
}


def file_name(own: str) -> str:
    """Return a tensor's name in the file."""
    return own.removeprefix("network.")
