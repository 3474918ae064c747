"""The released DoDNet checkpoint; our network has its names."""

from __future__ import annotations

CARD = {
    "title": "DoDNet (released)",
    "citation": "Zhang et al., DoDNet: Learning to segment multi-organ and tumors from multiple partially labeled "
    "datasets, CVPR 2021",
    "url": "https://github.com/jianpengz/DoDNet",
    "licence": "GPL-3.0",
    "obtain": "supervised_dodnet_unet_920.pth of https://huggingface.co/MrGiovanni/SuPreM, or train it",
    "layout": "facts of the released network (a_DynConv); agreement with its outputs is under test (tests/golden)",
    "loaded": "encoder, decoder, and the convolution before the generated head",
    "left_out": "the controller, whose inputs count the tasks it was trained on",
    "targets": {
        "dodnet_original": [
            "conv1.",
            "layer",
            "fusionConv.",
            "x8_resb.",
            "x4_resb.",
            "x2_resb.",
            "x1_resb.",
            "precls_conv.",
            "GAP.",
        ],
    },
    "strict": True,
    "stems": {},
    "minimum_fraction": 0.9,
    "trained_on": {
        "lits": "unknown",
        "kits19": "unknown",
        "msd_hepatic_vessel": "unknown",
        "msd_pancreas": "unknown",
        "msd_colon": "unknown",
        "msd_lung": "unknown",
        "msd_spleen": "unknown",
    },
    "other_data": "",
    "axes": "zxy",
    "intensities": {"window_hu": [-325.0, 325.0], "scaled_to": [-1.0, 1.0]},
    "images_source": "a_DynConv/MOTSDataset.py of the repository (window, scale, order of axes); spacing 1.5x0.8x0.8 "
    "mm as documented, 3x0.76x0.76 mm of the released file (issue 19)",
}


def file_name(own: str) -> str:
    """Return a tensor's name in the file."""
    return own
