"""The original CLIP-driven network and ours give the same numbers; sizes follow from shapes; damage is refused."""

import pytest
import torch

from models.baselines.clip_driven_original import ClipDrivenOriginal, from_official
from models.interface import NetworkSpec
from segbench.core.errors import InputFaults
from segbench.core.task import TaskSet
from tests.golden.models.official import filled, load, seeded_input

TOLERANCE = 1e-4


def test_agreement_with_the_original():
    facts, arrays = load("clip_driven_official")
    model = from_official(filled(facts["parameters"]))
    assert sum(p.numel() for p in model.parameters()) == facts["arch"]["parameters_total"] == 19_416_417
    (case,) = facts["cases"]
    with torch.no_grad():
        answer = model.forward_all(seeded_input(case))[:, :, ::4, ::4, ::4]
    assert (answer - torch.from_numpy(arrays["case0_output0"])).abs().max() <= TOLERANCE


def small_state(*, classes=3, length=7, **options):
    """State dict of a small network of the layout, filled by the rule."""
    sizes = {"base": 8, "width": 6} | options
    vectors_KE = torch.zeros(classes, length)
    model = ClipDrivenOriginal(TaskSet([]), NetworkSpec(), vectors_KE=vectors_KE, channels_of={}, **sizes)
    return filled({name: list(tensor.shape) for name, tensor in model.state_dict().items()})


@pytest.mark.parametrize(
    "options", [{}, {"classes": 5, "length": 12, "channels": 2, "width": 9}, {"base": 16}], ids=str
)
def test_other_configurations_follow_from_the_shapes(options):
    state = small_state(**options)
    model = from_official(state)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    size_zyx = (8, 16, 16)
    with torch.no_grad():
        answer = model.forward_all(torch.randn(1, options.get("channels", 1), *size_zyx))
    assert answer.shape == (1, options.get("classes", 3), *size_zyx)


def test_running_statistics_are_not_missed_and_not_needed():
    state = small_state()
    state["backbone.down_tr64.ops.0.bn1.running_mean"] = torch.full((8,), 7.0)
    state["backbone.down_tr64.ops.0.bn1.num_batches_tracked"] = torch.tensor(3)
    assert from_official(state).organ_embedding.shape == (3, 7)


@pytest.mark.parametrize("spoil", ["missing", "reshaped", "unexpected", "not a number"])
def test_a_damaged_state_dict_is_refused(spoil):
    whole = small_state()
    for name in sorted(whole.keys() - {"organ_embedding"} if spoil == "reshaped" else whole):
        state, named = dict(whole), name
        if spoil == "missing":
            del state[name]
        elif spoil == "reshaped":
            state[name] = state[name][:-1]
        elif spoil == "unexpected":
            named = f"{name}_"
            state[named] = state[name]
        else:
            state[name] = state[name] * float("nan")
        with pytest.raises(InputFaults) as caught:
            from_official(state)
        assert any(named in fault.line() for fault in caught.value.faults)


def test_another_network_is_refused():
    with pytest.raises(InputFaults, match="down_tr64"):
        from_official({"conv1.weight": torch.zeros(4, 1, 3, 3, 3)})
