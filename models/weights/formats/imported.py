"""What `segbench import-weights --out` writes: just the tensors that a format fills, under the target's names."""

from __future__ import annotations

CARD = {
    "title": "imported weights",
    "citation": "the source that was imported",
    "url": "",
    "licence": "that of the source",
    "obtain": "python -m segbench import-weights --out FILE",
    "layout": "the names of this benchmark's modules",
    "loaded": "every tensor of the file that the target has in the same shape",
    "left_out": "nothing",
    "targets": {"any": [""]},
    "strict": False,
    "stems": {},
    "minimum_fraction": 0.1,
    "trained_on": "unknown",
    "other_data": "",
    "axes": "unknown",
    "intensities": "unknown",
    "images_source": "",
}


def file_name(own: str) -> str:
    """Return a tensor's name in the file."""
    return own
