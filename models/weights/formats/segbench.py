"""A state dict of this benchmark's own networks, as its training jobs write it."""

from __future__ import annotations

CARD = {
    "title": "segbench",
    "citation": "the card of the model that was trained",
    "url": "",
    "licence": "that of the images it was trained on",
    "obtain": "results/<run>/train/<job>/weights.pt",
    "layout": "the names of this benchmark's modules",
    "loaded": "what the target's card names as its encoder; on the shared backbone the decoder as well",
    "left_out": "heads, prompts and whatever differs in shape",
    "targets": {"any": []},
    "strict": False,
    "stems": {},
    "minimum_fraction": 0.5,
    "trained_on": "unknown",
    "other_data": "",
    "axes": "zyx",
    "intensities": "unknown",
    "images_source": "",
}


def file_name(own: str) -> str:
    """Return a tensor's name in the file."""
    return own
