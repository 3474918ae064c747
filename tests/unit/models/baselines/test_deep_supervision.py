"""Networks that answer at coarser decoder stages when asked for: the full resolution stays what it was."""

import pytest
import torch
from monai.networks.nets import SegResNet, SwinUNETR

from models.interface import NetworkSpec
from models.loader import build_model, model_cards
from segbench.core.task import TaskSet
from tests.unit.models.small import images, make_task

SPEC = NetworkSpec(patch_size_zyx=(32, 32, 64), base_features=8)
TASK = make_task("toy", ("spleen", "tumour"))
STRIDES = {
    "swin_unetr": [1, 2, 4, 8, 16],
    "swin_unetr_v2": [1, 2, 4, 8, 16],
    "models_genesis": [1, 2, 4],
    "unetr": [1, 2, 4, 8],
    "ux_net": [1, 2, 4, 8],
    "segresnet_plain": [1, 2, 4],
}
OPTIONS = {name: {"window_size": 2} for name in ("swin_unetr", "swin_unetr_v2")}
ON_REQUEST = sorted(name for name, card in model_cards().items() if "deep_supervision" in card["options"])


def network(name, **options):
    torch.manual_seed(1)
    return build_model(name, TaskSet([TASK]), SPEC, **OPTIONS.get(name, {}), **options).eval()


@pytest.mark.parametrize("name", STRIDES)
def test_coarser_stages_answer_when_asked_for(name):
    plain, supervised = network(name), network(name, deep_supervision=True)
    x_BCZYX = images(size_zyx=(32, 32, 64))
    supervised.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        (alone,), outputs = plain(x_BCZYX, TASK), supervised(x_BCZYX, TASK)
    assert torch.equal(alone, outputs[0])
    assert [tuple(logits.shape) for logits in outputs] == [
        (1, 3, 32 // stride, 32 // stride, 64 // stride) for stride in STRIDES[name]
    ]


def test_the_stages_of_the_pyramid_answer_on_their_own_grids():
    with torch.no_grad():
        outputs = network("pvt_v2_b1", deep_supervision=True)(images(size_zyx=(32, 32, 64)), TASK)
    assert [tuple(logits.shape[2:]) for logits in outputs] == [(32, 32, 64), (16, 8, 16), (8, 4, 8), (4, 2, 4)]


@pytest.mark.parametrize(
    "name", sorted(name for name, card in model_cards().items() if card["kind"] == "single_task" and name != "primus")
)
def test_every_per_task_network_with_decoder_stages_can_be_supervised_at_them(name):
    """Primus has no such stages: its tokens become the full resolution in one module."""
    options = {"deep_supervision": True} if name in ON_REQUEST else {}
    with torch.no_grad():
        assert len(network(name, **options).train()(images(batch=2, size_zyx=(32, 64, 64)), TASK)) > 1


@pytest.mark.parametrize("name", ON_REQUEST)
def test_every_head_learns(name):
    model = network(name, deep_supervision=True).train()
    sum(logits.square().mean() for logits in model(images(size_zyx=(32, 32, 64)), TASK)).backward()
    heads = [parameter for key, parameter in model.named_parameters() if ".coarser." in key]
    assert len(heads) == 2 * (len(STRIDES.get(name, [1, 2, 4, 8])) - 1)
    assert all(parameter.grad.abs().max() > 0 for parameter in heads)


@pytest.mark.parametrize(("name", "version"), [("swin_unetr", False), ("swin_unetr_v2", True)])
def test_the_network_is_monai_s(name, version):
    ours = network(name).network
    reference = SwinUNETR(in_channels=1, out_channels=3, feature_size=12, window_size=2, use_v2=version).eval()
    reference.load_state_dict(ours.state_dict(), strict=True)
    x_BCZYX = images(size_zyx=(32, 32, 64))
    with torch.no_grad():
        assert torch.equal(ours(x_BCZYX)[0], reference(x_BCZYX))


def test_segresnet_is_monai_s():
    ours = network("segresnet_plain").network
    reference = SegResNet(init_filters=8, in_channels=1, out_channels=3).eval()
    reference.load_state_dict(ours.state_dict(), strict=True)
    x_BCZYX = images(size_zyx=(32, 32, 64))
    with torch.no_grad():
        assert torch.equal(ours(x_BCZYX), reference(x_BCZYX))
