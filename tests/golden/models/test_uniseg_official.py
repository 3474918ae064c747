"""The released UniSeg network and ours give the same numbers; damaged state dicts are refused whole."""

import pytest
import torch

from models.uniseg.weights import from_official
from segbench.core.errors import InputFaults
from tests.golden.models.official import filled, load, seeded_input

TOLERANCE = 1e-4


@pytest.mark.parametrize("number", range(3))
def test_agreement_with_the_original(number):
    facts, arrays = load("uniseg_official")
    model = from_official(filled(facts["parameters"]))
    assert sum(p.numel() for p in model.parameters()) == facts["arch"]["parameters_total"] == 32_112_885
    case = facts["cases"][number]
    with torch.no_grad():
        scales = model.forward_index(seeded_input(case), case["task_id"])
    answers = [scales[0][:, :, ::4, ::4, ::4], *scales[2:]]
    for position, answer in enumerate(answers):
        expected = torch.from_numpy(arrays[f"case{number}_output{position}"])
        assert (answer - expected).abs().max() <= TOLERANCE


def shapes(
    base=4,
    tasks=3,
    classes=2,
    stems=(1, 3),
    pools=((2, 2, 2), (1, 2, 2)),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    grid=(2, 2, 4),
):
    """Shapes of a small network of the released layout."""
    widths = [base * 2**stage for stage in range(len(pools) + 1)]
    found = {"intermedia_prompt": [1, tasks, *grid]}

    def block(name, inputs, outputs, kernel, conv="conv"):
        found[f"{name}.{conv}.weight"] = [outputs, inputs, *kernel]
        found[f"{name}.{conv}.bias"] = [outputs]
        found[f"{name}.instnorm.weight"] = [outputs]
        found[f"{name}.instnorm.bias"] = [outputs]

    fused = widths[-1] + tasks
    for number, (inputs, outputs) in enumerate([(fused, fused // 4), (fused // 4, fused // 4), (fused // 4, tasks)]):
        block(f"fusion_layer.blocks.{number}", inputs, outputs, (3, 3, 3))
    for stem in stems:
        block("conv_blocks_context.0.blocks.0", stem, base, kernels[0], conv=f"conv_{stem}")
    block("conv_blocks_context.0.blocks.1", base, base, kernels[0])
    last = len(pools)
    for stage in range(1, last + 1):
        for part, inputs in enumerate((widths[stage - 1], widths[stage])):
            place = f"{part}.blocks.0" if stage == last else f"blocks.{part}"
            block(f"conv_blocks_context.{stage}.{place}", inputs, widths[stage], kernels[stage])
    for up in range(last):
        level = last - 1 - up
        found[f"tu.{up}.weight"] = [widths[level + 1] + (up == 0), widths[level], *pools[level]]
        found[f"seg_outputs.{up}.weight"] = [classes, widths[level], 1, 1, 1]
        for part, inputs in enumerate((2 * widths[level], widths[level])):
            block(f"conv_blocks_localization.{up}.{part}.blocks.0", inputs, widths[level], kernels[level + 1])
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"base": 8, "tasks": 5, "classes": 6, "stems": (2,)},
        {"pools": ((1, 1, 2),), "kernels": ((3, 3, 3), (1, 3, 3))},
    ],
)
def test_other_configurations_follow_from_the_shapes(options):
    state = filled(shapes(**options))
    model = from_official(state)
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == sum(t.numel() for t in state.values())
    channels = options.get("stems", (1, 3))[-1]
    size = model.spec.patch_size_zyx
    first, *_ = model.forward_index(torch.randn(1, channels, *size), 1)
    assert first.shape == (1, options.get("classes", 2), *size)


@pytest.mark.parametrize("spoil", ["missing", "reshaped", "unexpected"])
def test_a_damaged_state_dict_is_refused(spoil):
    state = filled(shapes())
    name = "conv_blocks_localization.1.0.blocks.0.conv.weight"
    if spoil == "missing":
        del state[name]
    elif spoil == "reshaped":
        state[name] = state[name][:-1]
    else:
        state["stranger.weight"] = torch.zeros(1)
    with pytest.raises(InputFaults) as caught:
        from_official(state)
    assert len(caught.value.faults) == 1


def test_another_network_is_refused():
    with pytest.raises(InputFaults, match="0 encoder stages"):
        from_official({"conv1.weight": torch.zeros(4, 1, 3, 3, 3)})


def test_an_unknown_channel_count_or_task_is_refused():
    model = from_official(filled(shapes()))
    with pytest.raises(InputFaults, match="2 channel"):
        model.forward_index(torch.zeros(1, 2, *model.spec.patch_size_zyx), 0)
    with pytest.raises(InputFaults, match="0 to 2"):
        model.forward_index(torch.zeros(1, 1, *model.spec.patch_size_zyx), 3)
