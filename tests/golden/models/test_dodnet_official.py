"""The original DoDNet and ours give the same numbers; other sizes follow from shapes; damage is refused whole."""

import pytest
import torch

from models.baselines.dodnet_original import DoDNetOriginal, from_official
from models.interface import NetworkSpec
from segbench.core.errors import InputFaults
from segbench.core.task import TaskSet
from tests.golden.models.official import filled, load, seeded_input

TOLERANCE = 1e-4


def test_agreement_with_the_original():
    facts, arrays = load("dodnet_official")
    model = from_official(filled(facts["parameters"]))
    assert sum(p.numel() for p in model.parameters()) == facts["arch"]["parameters_total"] == 17_329_528
    (case,) = facts["cases"]
    with torch.no_grad():
        answer = model.forward_index(seeded_input(case), case["task_id"])[:, :, ::2, ::2, ::2]
    assert (answer - torch.from_numpy(arrays["case0_output0"])).abs().max() <= TOLERANCE


def small_state(**options):
    """State dict of a small network of the layout, filled by the rule."""
    sizes = {"widths": (16, 16, 32, 16, 32), "task_count": 3} | options
    model = DoDNetOriginal(TaskSet([]), NetworkSpec(), **sizes)
    return filled({name: list(tensor.shape) for name, tensor in model.state_dict().items()})


@pytest.mark.parametrize(
    "options", [{}, {"blocks": (1, 1, 3, 1, 1), "task_count": 11}, {"channels": 4, "outputs": 5}], ids=str
)
def test_other_configurations_follow_from_the_shapes(options):
    state = small_state(**options)
    model = from_official(state)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    images_BCZYX = torch.randn(2, options.get("channels", 1), 16, 16, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        both = model.forward_index(images_BCZYX, [2, 0])
        alone = model.forward_index(images_BCZYX[1:], 0)
    assert both.shape == (2, options.get("outputs", 2), 16, 16, 32)
    torch.testing.assert_close(both[1:], alone, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("spoil", ["missing", "reshaped", "unexpected", "not a number"])
def test_a_damaged_state_dict_is_refused(spoil):
    whole = small_state()
    for name in sorted(whole):
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
    with pytest.raises(InputFaults, match=r"layer0\.0"):
        from_official({"conv1.weight": torch.zeros(4, 1, 3, 3, 3)})


def test_an_unknown_task_is_refused():
    model = from_official(small_state())
    for indices in (3, [0, 1, 2], [-1]):
        with pytest.raises(InputFaults, match="0 to 2"):
            model.forward_index(torch.zeros(1, 1, 16, 16, 32), indices)
