"""The original networks' own state dicts, by names and shapes, start a downstream network of one task."""

import pytest
import torch

from models.baselines import clip_driven_original, dodnet_original
from models.interface import NetworkSpec
from tests.golden.models.official import filled, load
from tests.unit.models.small import images
from tests.unit.models.weights.test_formats import plain_unet, take, target

LEFT = {
    "dodnet": (dodnet_original, {"controller"}),
    "clip_driven": (clip_driven_original, {"controller", "organ_embedding", "text_to_vision"}),
}


@pytest.mark.parametrize("name", LEFT)
def test_the_originals_state_dict_fills_all_but_what_belongs_to_its_tasks(name):
    module, left = LEFT[name]
    state = filled(load(f"{name}_official")[0]["parameters"])
    model = target(f"{name}_original", spec=NetworkSpec())
    report = take(state, model, name=f"{name}_original", source_format=f"{name}_official")
    assert {key.split(".")[0] for key in report.missing} == {key.split(".")[0] for key in report.unused} == left
    assert report.fraction > 0.98
    x_BCZYX = images(size_zyx=(16, 16, 32))
    with torch.no_grad():
        for found, expected in zip(model.encode(x_BCZYX), module.from_official(state).encode(x_BCZYX), strict=True):
            assert torch.equal(found, expected)


def test_the_miniature_of_models_genesis_has_the_originals_names():
    original = {
        name.removeprefix("backbone.")
        for name in load("clip_driven_official")[0]["parameters"]
        if name.startswith("backbone.") and "out_tr" not in name
    }
    statistics = (".running_mean", ".running_var", ".num_batches_tracked")
    assert {name for name in plain_unet() if not name.endswith(statistics)} == original
