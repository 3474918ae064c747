"""The presets of nnU-Net's residual encoder refuse a network that nnU-Net's planner would not call by their name."""

from dataclasses import replace

import pytest
import torch

from models.baselines.nnunet_resenc import memory_gb
from models.interface import NetworkSpec
from models.loader import build_model, model_card
from models.titles import title_for
from segbench.core.errors import InputError
from segbench.core.task import TaskSet
from tests.unit.models.small import make_task

TASK = make_task("toy", ("liver", "tumour"))
CUBES = NetworkSpec(
    patch_size_zyx=(128, 128, 128), pool_kernels_zyx=((2, 2, 2),) * 5, conv_kernels_zyx=((3, 3, 3),) * 6
)


def network(spec, **options):
    with torch.device("meta"):
        return build_model("nnunet_resenc", TaskSet([TASK]), spec, **options).network


def test_the_estimate_is_nnunet_s():
    """nnU-Net's source states 558,319,104 values for this network (3 classes, 128 x 128 x 128)."""
    assert network(CUBES).compute_conv_feature_map_size((128, 128, 128)) == 558_319_104
    assert memory_gb("M", CUBES, network(CUBES)) == pytest.approx(8 * 558_319_104 / 680_000_000)


@pytest.mark.parametrize(("preset", "edge"), [("M", 128), ("L", 192), ("XL", 224)])
def test_a_patch_of_its_memory_is_taken(preset, edge):
    spec = replace(CUBES, patch_size_zyx=(edge,) * 3)
    assert network(spec, preset=preset).encoder.output_channels == [32, 64, 128, 256, 320, 320]


@pytest.mark.parametrize(
    ("preset", "changes", "words"),
    [
        ("M", {"patch_size_zyx": (160, 160, 160)}, r"160 x 160 x 160, which needs 12\.8 GB; .*choose a smaller patch"),
        ("L", {}, r"needs 6\.4 GB; expected more than 12 and at most 24 GB .*choose a larger patch"),
        ("M", {"base_features": 16}, "base_features: 16; expected 32"),
        ("M", {"max_features": 256}, "max_features: 256; expected 320"),
        ("l", {}, "expected none, M, L or XL"),
    ],
)
def test_another_size_is_refused(preset, changes, words):
    with pytest.raises(InputError, match=words):
        network(replace(CUBES, **changes), preset=preset)


def test_a_preset_is_named_with_its_memory():
    assert title_for(model_card("nnunet_resenc"), {"preset": "L"}) == "nnU-Net (residual encoder) (ResEnc L, 24 GB)"
