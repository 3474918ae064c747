"""Options that make another model are part of its name in tables."""

from models.loader import model_card
from models.titles import title_for


def test_defaults_are_silent_unless_always_named():
    assert title_for(model_card("uniseg"), {}) == "UniSeg"
    assert title_for(model_card("uniseg"), {"prompt": "universal"}) == "UniSeg"
    assert title_for(model_card("clip_driven"), {}) == "Text-driven (random class vectors)"


def test_options_are_named_in_words():
    assert title_for(model_card("uniseg"), {"prompt": "none"}) == "UniSeg (no prompt)"
    options = {"prompt": "multiple", "position": 1}
    assert title_for(model_card("uniseg"), options) == "UniSeg (several prompts, prompt at decoder stage 1)"
    options = {"embeddings": "file:/data/clip.npz"}
    assert title_for(model_card("clip_driven"), options) == "Text-driven (class vectors from clip.npz)"
    assert title_for(model_card("hermes"), {"layers": 3}) == "Hermes (layers = 3)"
