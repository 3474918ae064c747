"""Other sizes of 3D UX-Net than the golden ones, against its layout computed from the state dict step by step."""

import random

import pytest
import torch
from torch.nn import functional

from models.baselines.ux_net import from_official
from segbench.core.errors import InputError
from tests.golden.models.official import TOLERANCE, filled, load


def shapes(*, channels=1, classes=4, depths=(2, 2, 2, 2), widths=(48, 64, 80, 96), hidden=112, residual=True):
    """Shapes of a network of the released layout; with the golden sizes they are the golden file's."""
    found = {}

    def affine(name, *sizes):
        found[f"{name}.weight"], found[f"{name}.bias"] = list(sizes), [sizes[0]]

    affine("uxnet_3d.downsample_layers.0.0", widths[0], channels, 7, 7, 7)
    affine("uxnet_3d.downsample_layers.0.1", widths[0])
    for number in (1, 2, 3):
        affine(f"uxnet_3d.downsample_layers.{number}.0", widths[number - 1])
        affine(f"uxnet_3d.downsample_layers.{number}.1", widths[number], widths[number - 1], 2, 2, 2)
    for number, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for block in range(depth):
            name = f"uxnet_3d.stages.{number}.{block}"
            found[f"{name}.gamma"] = [width]
            affine(f"{name}.dwconv", width, 1, 7, 7, 7)
            affine(f"{name}.norm", width)
            affine(f"{name}.pwconv1", 4 * width, 1, 1, 1, 1)
            affine(f"{name}.pwconv2", width, 4, 1, 1, 1)
    for number, width in enumerate(widths):
        affine(f"uxnet_3d.norm{number}", width)

    def pair(name, inputs, outputs):
        found[f"{name}.conv1.conv.weight"] = [outputs, inputs, 3, 3, 3]
        found[f"{name}.conv2.conv.weight"] = [outputs, outputs, 3, 3, 3]
        if inputs != outputs and residual:
            found[f"{name}.conv3.conv.weight"] = [outputs, inputs, 1, 1, 1]

    pyramid = [channels, *widths, hidden]
    for number in range(5):
        pair(f"encoder{number + 1}.layer", pyramid[number], pyramid[number + 1])
    for number in (5, 4, 3, 2):
        below, width = pyramid[number], pyramid[number - 1]
        found[f"decoder{number}.transp_conv.conv.weight"] = [below, width, 2, 2, 2]
        pair(f"decoder{number}.conv_block", 2 * width, width)
    pair("decoder1.layer", widths[0], widths[0])
    affine("out.conv.conv", classes, widths[0], 1, 1, 1)
    return found


def test_the_layout_is_the_golden_file_s():
    facts, _ = load("uxnet3d_official")
    assert shapes() == facts["parameters"]


def as_the_layout_says(state, x):
    """The released layout step by step."""

    def affine(name):
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def norm(name, x):
        mean = x.mean(dim=1, keepdim=True)
        variance = (x - mean).square().mean(dim=1, keepdim=True)
        weight, bias = (part.view(1, -1, 1, 1, 1) for part in affine(name))
        return (x - mean) / (variance + 1e-6).sqrt() * weight + bias

    def residual(name, x):
        y = functional.conv3d(x, state[f"{name}.conv1.conv.weight"], padding=1)
        y = functional.leaky_relu(functional.instance_norm(y), 0.01)
        y = functional.instance_norm(functional.conv3d(y, state[f"{name}.conv2.conv.weight"], padding=1))
        if "encoder1.layer.conv3.conv.weight" not in state:
            return functional.leaky_relu(y, 0.01)
        if f"{name}.conv3.conv.weight" in state:
            x = functional.instance_norm(functional.conv3d(x, state[f"{name}.conv3.conv.weight"]))
        return functional.leaky_relu(x + y, 0.01)

    image, skips = x, []
    for number in range(4):
        place = f"uxnet_3d.downsample_layers.{number}"
        if number == 0:
            x = norm(f"{place}.1", functional.conv3d(x, *affine(f"{place}.0"), stride=2, padding=3))
        else:
            x = functional.conv3d(norm(f"{place}.0", x), *affine(f"{place}.1"), stride=2)
        block = 0
        while f"uxnet_3d.stages.{number}.{block}.gamma" in state:
            name = f"uxnet_3d.stages.{number}.{block}"
            y = functional.conv3d(x, *affine(f"{name}.dwconv"), padding=3, groups=x.shape[1])
            y = functional.gelu(
                functional.conv3d(norm(f"{name}.norm", y), *affine(f"{name}.pwconv1"), groups=x.shape[1])
            )
            y = functional.conv3d(y, *affine(f"{name}.pwconv2"), groups=x.shape[1])
            x = x + state[f"{name}.gamma"].view(1, -1, 1, 1, 1) * y
            block += 1
        skips.append(norm(f"uxnet_3d.norm{number}", x))
    refined = [residual(f"encoder{number + 1}.layer", part) for number, part in enumerate([image, *skips])]
    x = refined.pop()
    for number in (5, 4, 3, 2):
        x = functional.conv_transpose3d(x, state[f"decoder{number}.transp_conv.conv.weight"], stride=2)
        x = residual(f"decoder{number}.conv_block", torch.cat([x, refined.pop()], dim=1))
    return functional.conv3d(residual("decoder1.layer", x), *affine("out.conv.conv"))


@pytest.mark.parametrize("seed", range(3))
def test_other_configurations_follow_from_the_shapes(seed):
    draw = random.Random(seed)
    sizes = {
        "channels": draw.choice([1, 2, 4]),
        "classes": draw.randint(1, 9),
        "depths": [draw.randint(1, 3) for _ in range(4)],
        "widths": [draw.randint(2, 9) for _ in range(4)],
        "hidden": draw.randint(2, 9),
        "residual": seed != 2,
    }
    state = filled(shapes(**sizes))
    network = from_official({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}})
    images_BCZYX = torch.randn(2, sizes["channels"], 32, 16, 48, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        answer, expected = network(images_BCZYX), as_the_layout_says(state, images_BCZYX)
    assert answer.shape == expected.shape == (2, sizes["classes"], 32, 16, 48)
    assert (answer - expected).abs().max() <= TOLERANCE * expected.abs().max()


def test_another_norm_is_refused():
    with pytest.raises(InputError, match="norm_name = 'batch'"):
        from_official(filled(shapes()), norm_name="batch")
