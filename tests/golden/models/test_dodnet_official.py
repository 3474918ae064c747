"""The original DoDNet at other sizes follows from the shapes; damage is refused whole."""

import random

import pytest
import torch
from torch.nn import functional

from models.baselines.dodnet_original import from_official
from segbench.core.errors import InputError
from tests.golden.models.damaged import over_kinds, refuses_each_damaged_tensor
from tests.golden.models.official import filled, load

TOLERANCE = 1e-4


def shapes(*, widths=(16, 16, 32, 16, 32), blocks=(1, 2, 2, 2, 2), channels=1, tasks=3, outputs=2):
    """Shapes of a network of the released layout; with the released sizes they are the golden file's."""
    found = {"conv1.weight": [widths[0], channels, 3, 3, 3]}

    def norm(name, width):
        found[f"{name}.weight"] = found[f"{name}.bias"] = [width]

    def block(name, inputs, width, strided=False):
        for number, size in enumerate((inputs, width), start=1):
            norm(f"{name}.gn{number}", size)
            found[f"{name}.conv{number}.weight"] = [width, size, 3, 3, 3]
        if strided or inputs != width:
            norm(f"{name}.downsample.0", inputs)
            found[f"{name}.downsample.2.weight"] = [width, inputs, 1, 1, 1]

    before = widths[0]
    for stage, width in enumerate(widths):
        for number in range(blocks[stage]):
            block(f"layer{stage}.{number}", before, width, strided=stage > 0 and number == 0)
            before = width
    norm("fusionConv.0", before)
    found["fusionConv.2.weight"] = [widths[3], before, 1, 1, 1]
    ups = [widths[3], widths[2], widths[1], widths[0], widths[0]]
    for scale, inputs, width in zip((8, 4, 2, 1), ups[:-1], ups[1:], strict=True):
        block(f"x{scale}_resb.0", inputs, width)
    norm("precls_conv.0", widths[0])
    norm("GAP.0", widths[3])
    parameters = 64 + 64 + 8 * outputs + 8 + 8 + outputs
    found |= {"precls_conv.2.weight": [8, widths[0], 1, 1, 1], "precls_conv.2.bias": [8]}
    found |= {"controller.weight": [parameters, widths[3] + tasks, 1, 1, 1], "controller.bias": [parameters]}
    return found


def test_the_layout_is_the_golden_file_s():
    facts, _ = load("dodnet_official")
    assert shapes(widths=(32, 64, 128, 256, 256), tasks=7) == facts["parameters"]


def as_the_layout_says(state, images_BCZYX, tasks, *, standardised=True):
    """The released layout computed from its state dict step by step, without any module of ours."""

    def conv(name, x, stride=1):
        if not standardised:
            return functional.conv3d(x, state[f"{name}.weight"], None, stride, state[f"{name}.weight"].shape[-1] // 2)
        weight = state[f"{name}.weight"] - state[f"{name}.weight"].mean(dim=(1, 2, 3, 4), keepdim=True)
        scale = (weight.flatten(1).var(dim=1) + 1e-12).sqrt().reshape(-1, 1, 1, 1, 1)
        return functional.conv3d(x, weight / scale, None, stride, weight.shape[-1] // 2)

    def active(name, x):
        return functional.group_norm(x, 16, state[f"{name}.weight"], state[f"{name}.bias"]).relu()

    def block(name, x, stride=1):
        shortcut = x
        if f"{name}.downsample.0.weight" in state:
            shortcut = conv(f"{name}.downsample.2", active(f"{name}.downsample.0", x), stride)
        x = conv(f"{name}.conv1", active(f"{name}.gn1", x), stride)
        return conv(f"{name}.conv2", active(f"{name}.gn2", x)) + shortcut

    x, skips = conv("conv1", images_BCZYX), []
    for stage in range(5):
        for number in range(sum(name.startswith(f"layer{stage}.") and ".conv1." in name for name in state)):
            x = block(f"layer{stage}.{number}", x, 2 if stage and not number else 1)
        skips.append(x)
    x = conv("fusionConv.2", active("fusionConv.0", x))
    pooled_BC = active("GAP.0", x).mean(dim=(2, 3, 4))
    code_BT = torch.eye(state["controller.weight"].shape[1] - pooled_BC.shape[1])[tasks]
    weight_PC = state["controller.weight"][:, :, 0, 0, 0]
    parameters_BP = functional.linear(torch.cat([pooled_BC, code_BT], dim=1), weight_PC, state["controller.bias"])
    for scale, skip in zip((8, 4, 2, 1), skips[-2::-1], strict=True):
        x = functional.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False) + skip
        x = block(f"x{scale}_resb.0", x)
    x = functional.conv3d(active("precls_conv.0", x), state["precls_conv.2.weight"], state["precls_conv.2.bias"])
    return torch.cat([head(x[[sample]], parameters_BP[sample]) for sample in range(len(x))])


def head(x, parameters_P):
    """The generated 8-8-outputs head of one sample: three weights, then three biases."""
    outputs = (len(parameters_P) - 64 - 64 - 8 - 8) // 9
    w1, w2, w3, b1, b2, b3 = parameters_P.split([64, 64, 8 * outputs, 8, 8, outputs])
    x = functional.conv3d(x, w1.reshape(8, 8, 1, 1, 1), b1).relu()
    x = functional.conv3d(x, w2.reshape(8, 8, 1, 1, 1), b2).relu()
    return functional.conv3d(x, w3.reshape(outputs, 8, 1, 1, 1), b3)


@pytest.mark.parametrize("seed", range(6))
def test_other_configurations_follow_from_the_shapes(seed):
    draw = random.Random(seed)
    sizes = {
        "widths": [16 * draw.randint(1, 3) for _ in range(5)],
        "blocks": [draw.randint(1, 3) for _ in range(5)],
        "channels": draw.choice([1, 2, 4]),
        "tasks": draw.randint(1, 20),
        "outputs": draw.choice([1, 2, 5]),
    }
    state = filled(shapes(**sizes))
    model = from_official({"state_dict": {f"module.{name}": tensor.double() for name, tensor in state.items()}})
    batch, size_zyx = draw.randint(1, 3), [16, 16 * draw.randint(1, 2), 32]
    images_BCZYX = torch.randn(batch, sizes["channels"], *size_zyx, generator=torch.Generator().manual_seed(seed))
    tasks = [draw.randrange(sizes["tasks"]) for _ in range(batch)]
    with torch.no_grad():
        answer = model.forward_index(images_BCZYX, tasks)
        assert torch.equal(answer, model.forward_index(images_BCZYX, torch.tensor(tasks)))
        expected = as_the_layout_says(state, images_BCZYX, tasks)
    assert answer.shape == expected.shape == (batch, sizes["outputs"], *size_zyx)
    assert (answer - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("name", ["weight_standardisation", "weight_std"])
def test_weights_may_be_used_as_they_are(name):
    state, images_BCZYX = filled(shapes()), torch.randn(2, 1, 16, 16, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, released = (
            from_official(state, **{name: on}).forward_index(images_BCZYX, [0, 2]) for on in (False, True)
        )
        expected = as_the_layout_says(state, images_BCZYX, [0, 2], standardised=False)
    assert (plain - expected).abs().max() <= TOLERANCE * expected.abs().max()
    assert not torch.allclose(plain, released)
    with pytest.raises(InputError, match=f"{name} = 'no'"):
        from_official(state, **{name: "no"})


@over_kinds
def test_a_damaged_state_dict_is_refused(kind):
    whole = filled(shapes(blocks=(1, 1, 2, 1, 1)))
    refuses_each_damaged_tensor(from_official, whole, kind, undecided=("controller",))


def test_another_network_is_refused():
    with pytest.raises(InputError, match=r"layer0\.0"):
        from_official({"conv1.weight": torch.zeros(4, 1, 3, 3, 3)})


@pytest.mark.parametrize("numbers", [3, [0, 1, 2], [-1], 0.5, []], ids=str)
def test_an_unknown_task_is_refused(numbers):
    with pytest.raises(InputError, match="0 to 2"):
        from_official(filled(shapes())).forward_index(torch.zeros(1, 1, 16, 16, 32), numbers)
