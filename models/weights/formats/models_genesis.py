"""Models Genesis' chest CT checkpoint: the plain U-Net that the CLIP-driven model and SuPreM use as well."""

from __future__ import annotations

CARD = {
    "title": "Models Genesis (chest CT)",
    "citation": "Zhou et al., Models Genesis: Generic Autodidactic Models for 3D Medical Image Analysis, MICCAI 2019",
    "url": "https://github.com/MrGiovanni/ModelsGenesis",
    "licence": "Arizona State University, non-commercial, with a patent notice; the weights are given on request",
    "obtain": "Genesis_Chest_CT.pt, by the form in pytorch/README.md of the repository",
    "layout": "pytorch/unet3d.py (names, widths) and pytorch/Genesis_Chest_CT.py (keys of the checkpoint)",
    "loaded": "the whole U-Net",
    "left_out": "the output convolution (out_tr) and running statistics, which its batch norm never reads",
    "targets": {"clip_driven_original": ["backbone."], "models_genesis": ["network.down_tr", "network.up_tr"]},
    "strict": True,
    "stems": {},
    "minimum_fraction": 0.9,
    "trained_on": {},
    "other_data": "LUNA16 (chest CT)",
    "axes": "xyz",
    "intensities": {"window_hu": [-1000.0, 1000.0], "scaled_to": [0.0, 1.0]},
    "images_source": "infinite_generator_3D.py of the repository (hu_min, hu_max; transpose(2, 1, 0): x, y, z; the "
    "spacing of LUNA16's files)",
}


def file_name(own: str) -> str:
    """Return a tensor's name in the file."""
    return own.removeprefix("backbone.").removeprefix("network.")
