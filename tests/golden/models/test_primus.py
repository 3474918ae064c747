"""Primus of its authors' library and ours give the same numbers; primus.json holds what the library answered."""

import json
from pathlib import Path

import pytest
import torch

from models.baselines import primus
from models.blocks.own_network import PerTaskModel
from models.interface import NetworkSpec
from models.loader import build_model
from segbench.core.errors import InputError
from segbench.core.task import TaskSet
from tests.golden.models.official import filled, seeded_input
from tests.unit.models.small import images, make_task

TOLERANCE = 1e-4  # of the largest output
CASES = json.loads(Path(__file__).with_name("primus.json").read_text(encoding="utf-8"))["cases"]
TASK = make_task("toy", ("spleen",))
SPEC = NetworkSpec(patch_size_zyx=(16, 16, 24), base_features=4)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["input_shape"]))
def test_agreement_with_the_library(case):
    network = primus.Primus(**case["arguments"], drop_path=0.2).eval()
    assert {name: list(tensor.shape) for name, tensor in network.state_dict().items()} == case["parameters"]
    network.load_state_dict(filled(case["parameters"]))
    with torch.no_grad():
        answer = network(seeded_input(case))
    expected = torch.tensor(case["output"])
    assert (answer[:, :, ::5, ::5, ::5].flatten() - expected).abs().max() <= TOLERANCE * case["largest"]


@pytest.mark.parametrize(("size", "width"), [("S", 396), ("B", 792), ("M", 864), ("L", 1056)])
def test_sizes_are_the_published_ones(size, width):
    with torch.device("meta"):
        model = build_model("primus", TaskSet([TASK]), NetworkSpec(), size=size)
    assert model.network.down_projection.proj.out_channels == width
    assert {"S": 12, "B": 12, "M": 16, "L": 24}[size] == len(model.network.eva.blocks)


def small(**options) -> PerTaskModel:
    torch.manual_seed(1)
    return build_model("primus", TaskSet([TASK]), SPEC, **options).eval()


def test_another_grid_spans_the_same_positions():
    """Twice the grid: every second token has the angle that the reference has there."""
    like = torch.zeros(1)
    coarse = primus.rotary_angles((2, 2, 3), (2, 2, 3), 12, like=like).unflatten(0, (2, 2, 3))
    fine = primus.rotary_angles((4, 4, 6), (2, 2, 3), 12, like=like).unflatten(0, (4, 4, 6))
    torch.testing.assert_close(fine[::2, ::2, ::2], coarse)
    assert coarse[1, 0, 0].tolist() == pytest.approx([1, 1, 0.01, 0.01, 0, 0, 0, 0, 0, 0, 0, 0])


def test_sizes_other_than_the_patch_are_answered():
    model = small()
    with torch.no_grad():
        for size in ((16, 16, 24), (9, 30, 17)):
            assert model(images(size_zyx=size), TASK)[0].shape == (1, 2, *size)


def test_deeper_blocks_are_left_out_more_often():
    rates = [block.drop_path.drop_prob for block in small(drop_path=0.3).network.eva.blocks]
    assert rates == pytest.approx([0.02 * number for number in range(16)])


@pytest.mark.parametrize("options", [{"size": "XL"}, {"drop_path": 1.0}], ids=str)
def test_what_cannot_be_is_refused(options):
    with pytest.raises(InputError, match="of primus"):
        small(**options)
