"""Checkpoints of nnssl on ResEnc-L (OpenMind, nnFoundation CNN): nnU-Net's residual encoder."""

from __future__ import annotations

CARD = {
    "title": "nnssl (ResEnc-L)",
    "citation": "Wald et al., An OpenMind for 3D medical vision self-supervised learning, ICCV 2025; the file names "
    "the papers of its method",
    "url": "https://github.com/MIC-DKFZ/nnssl",
    "licence": "stated with each checkpoint (nnFoundation CNN: CC BY-SA 4.0)",
    "obtain": "checkpoint_final.pth of https://huggingface.co/AnonRes/ResEncL-OpenMind-MAE or "
    "https://huggingface.co/MIC-DKFZ/nnFoundationCNN",
    "layout": "src/nnssl/architectures/architecture_registry.py (sizes: 6 stages of 32 to 320, kernels and poolings "
    "3x3x3 and 2x2x2), nnU-Net's guide to fine-tuning from nnssl and its loader (network_weights, encoder.stem, "
    "encoder.stages)",
    "loaded": "stem and encoder, as nnU-Net does; for more than one image channel the stem is repeated and divided by "
    "their number",
    "left_out": "the decoder",
    "targets": {"nnunet_resenc": ["network.encoder."]},
    "strict": True,
    "stems": {"network.encoder.stem.convs.0.conv.weight": "repeated"},
    "minimum_fraction": 0.5,
    "trained_on": "unknown",
    "other_data": "OpenMind (head MR) or what the file's own page names",
    "axes": "zyx",
    "intensities": "z-score",
    "images_source": "src/nnssl/experiment_planning/experiment_planners/default_experiment_planner.py (1 mm) and "
    "src/nnssl/preprocessing/preprocessors/default_preprocessor.py (nnU-Net's readers and z-score) "
    "of the repository",
}


def file_name(own: str) -> str:
    """Return a tensor's name in the file."""
    return own.removeprefix("network.")
