"""The released UniSeg checkpoint: its whole architecture is read from shapes, then renamed to our modules."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

CARD = {
    "title": "UniSeg (released)",
    "citation": "Ye et al., UniSeg: A Prompt-driven Universal Segmentation Model as well as A Strong Representation "
    "Learner, MICCAI 2023",
    "url": "https://github.com/yeerwen/UniSeg",
    "licence": "non-commercial, all rights reserved",
    "obtain": "the links in the README of the repository",
    "layout": "facts of the released network; agreement with its outputs is under test (tests/golden)",
    "loaded": "encoder and decoder; the up-sampling behind the prompt loses the prompt's inputs where the target has "
    "no prompt",
    "left_out": "prompt, fusion, heads, stems of channel counts that the target lacks",
    "targets": {"shared": ["encoder.", "decoder."]},
    "strict": False,
    "stems": {},
    "minimum_fraction": 0.5,
    "trained_on": {
        "lits": "unknown",
        "kits19": "unknown",
        "msd_hepatic_vessel": "unknown",
        "msd_pancreas": "unknown",
        "msd_colon": "unknown",
        "msd_lung": "unknown",
        "msd_spleen": "unknown",
        "verse20": "unknown",
        "prostate_saml": "unknown",
        "brats21": "unknown",
        "autopet22": "unknown",
    },
    "other_data": "",
    "axes": "zyx",
    "intensities": {"window_hu": [-325.0, 325.0], "scaled_to": [0.0, 1.0]},
    "images_source": "Upstream/nnunet/preprocessing/DoDNetPreprocessor.py (window, scale) and "
    "Upstream/nnunet/experiment_planning/UniSeg_Planner3D.py (spacing by task, 3x1.5x1.5 mm for most"
    " CT) of the repository; axes as nnU-Net reads them",
}


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict under our names; one that is not the released network's raises InputError."""
    from models.uniseg.weights import from_official  # only where it is asked for: most runs never need it

    return from_official(state).state_dict()


def file_name(own: str) -> str:
    """Return a tensor's name in the renamed state dict."""
    return own
