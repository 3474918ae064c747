"""Weights reach the downstream network from every universal model, with a true report, or not at all."""

from dataclasses import replace

import pytest
import torch

from models.interface import NetworkSpec
from models.loader import build_model
from models.uniseg.weights import from_official
from models.weights.transfer import transfer_weights
from segbench.core.errors import InputError
from segbench.core.task import TaskSet
from tests.unit.models.small import SPEC, TASKS, make_task

ORGANS = make_task("organs", [f"organ {number}" for number in range(13)])


def downstream(seed=1, spec=SPEC):
    torch.manual_seed(seed)
    return build_model("single_task", TaskSet([ORGANS]), spec)


def source(name, spec=SPEC, **options):
    torch.manual_seed(2)
    return build_model(name, TASKS, spec, **options).state_dict()


@pytest.mark.parametrize(
    "name", ["multi_head", "dodnet", "clip_driven", "cond_none", "tal", "multitalent", "single_task"]
)
def test_networks_without_prompt_match_as_they_are(name):
    state = downstream(seed=5).state_dict() if name == "single_task" else source(name)
    model = downstream()
    report = transfer_weights(state, model)
    own = model.state_dict()
    shared = {key for key in own if key.startswith(("encoder.", "decoder."))}
    assert set(report.matched) == shared
    assert report.resized == []
    assert all(key.startswith("heads.") for key in report.missing)
    assert all(torch.equal(own[key], state[key]) for key in shared)
    total = sum(tensor.numel() for tensor in own.values())
    assert report.fraction == pytest.approx(sum(own[key].numel() for key in shared) / total)


@pytest.mark.parametrize(
    ("options", "cut"),
    [
        ({}, "decoder.up.0.weight"),
        ({"prompt": "fixed_one_hot"}, "decoder.up.0.weight"),
        ({"position": 1}, "decoder.up.1.weight"),
    ],
)
def test_the_prompt_is_cut_from_the_up_sampling(options, cut):
    state, model = source("uniseg", **options), downstream()
    report = transfer_weights(state, model)
    assert report.resized == [cut]
    own = model.state_dict()[cut]
    assert torch.equal(own, state[cut][: own.shape[0]])
    assert {"prompt", "heads"} >= {key.split(".")[0] for key in report.unused}
    assert f"{cut}: {own.shape[0]} of its {state[cut].shape[0]} inputs taken" in report.text()
    assert report.to_dict()["fraction"] == report.fraction


def test_the_released_layout_is_understood():
    """Our own weights under the official names arrive as they would under ours."""
    from models.uniseg.weights import official_names

    model = build_model("uniseg", TASKS, SPEC)
    names = official_names(len(SPEC.pool_kernels_zyx), TASKS.channel_counts, model)
    official = {names[name]: tensor for name, tensor in model.state_dict().items()}
    assert torch.equal(from_official(official).prompt.prompt, model.prompt.prompt)
    target, expected = downstream(), downstream()
    report = transfer_weights({"state_dict": official}, target, source_format="uniseg_official")
    assert report == transfer_weights(model.state_dict(), expected)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name])


def test_too_little_is_nothing():
    wider = NetworkSpec(**{**SPEC.__dict__, "base_features": 8})
    model = downstream(spec=wider)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match="at least 50 %"):
        transfer_weights(source("multi_head"), model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_prefixes_choose_what_is_transferred():
    report = transfer_weights(source("multi_head"), downstream(), prefixes=["encoder."], minimum_fraction=0.1)
    assert all(name.startswith("encoder.") for name in report.matched)


def test_the_minimum_fraction_is_of_what_the_prefixes_name():
    """An encoder is less than half of the network; all of it is still all that its source hands over."""
    state = source("multi_head")
    report = transfer_weights(state, downstream(), prefixes=["encoder."], minimum_fraction=1.0)
    assert 0 < report.fraction < 1
    del state["encoder.first.conv.weight"]
    with pytest.raises(InputError, match=r"of the parameters that the source hands over match"):
        transfer_weights(state, downstream(), prefixes=["encoder."], minimum_fraction=1.0)
    with pytest.raises(InputError, match=r"0\.0 % of the parameters that the source hands over match"):
        transfer_weights(state, downstream(), prefixes=["network."], minimum_fraction=0.0)


@pytest.mark.parametrize(
    ("state", "source_format", "message"),
    [
        ({"encoder.first.conv.weight": torch.zeros(1)}, "segbench", "0.0 %"),
        ({"a": 1}, "segbench", "expected a tensor"),
        ({}, "segbench", "empty"),
        ({"a": torch.zeros(1)}, "segbench", "0.0 %"),
        ({"a": torch.zeros(1)}, "uniseg_official", "not among them"),
        ({"a": torch.zeros(1)}, "uniseg_oficial", "did you mean 'uniseg_official'"),
    ],
)
def test_what_is_no_source_is_refused(state, source_format, message):
    with pytest.raises(InputError, match=message):
        transfer_weights(state, downstream(), source_format=source_format)


def test_tensors_of_another_size_are_named_where_too_little_matches():
    wide = downstream(seed=5, spec=replace(SPEC, base_features=2 * SPEC.base_features)).state_dict()
    with pytest.raises(InputError, match=r"tensor encoder\.stem\.conv\.channels_1\.weight: shape .* in the source"):
        transfer_weights(wide, downstream())


def test_whole_numbers_are_not_taken_for_weights():
    state = downstream(seed=5).state_dict()
    name = "encoder.stages.0.0.conv.weight"
    state[name] = (100 * state[name]).to(torch.int8)
    model = downstream()
    report = transfer_weights(state, model)
    assert name in report.missing
    assert name in report.unused
    assert report.reasons[name] == "int8 in the source, floats here"


def test_a_part_of_a_tensor_that_was_taken_is_unused():
    state = downstream(seed=5).state_dict()
    name = "encoder.stages.0.0.conv.weight"
    state |= {"part": state[name][:1], "alias": state[name]}
    report = transfer_weights(state, downstream())
    assert "part" in report.unused
    assert "alias" not in report.unused
