"""The encoder of DeSD as its layout says: sizes follow from shapes; damage is refused."""

import random

import pytest
import torch
from torch.nn import functional

from models.baselines.desd_resnet import from_official
from segbench.core.errors import InputError
from tests.golden.models.damaged import over_kinds, refuses_each_damaged_tensor
from tests.golden.models.official import filled, load

TOLERANCE = 1e-4  # of the largest output; the released depth rounds more (test_parity.py)
STAGES = 4


def shapes(*, stem=4, widths=(4, 6, 8, 10), blocks=(1, 2, 1, 1), channels=1, bottleneck=True):
    """Shapes of an encoder of the released layout; with the released sizes they are the golden file's."""
    found = {"conv1.weight": [stem, channels, 7, 7, 7], "norm1.weight": [stem], "norm1.bias": [stem]}

    def convolution(name, norm, outputs, inputs, edge):
        found[f"{name}.weight"] = [outputs, inputs, edge, edge, edge]
        found[f"{norm}.weight"] = found[f"{norm}.bias"] = [outputs]

    before = stem
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), start=1):
        outputs = 4 * width if bottleneck else width
        for number in range(count):
            place = f"layer{stage}.{number}"
            layers = [(width, before, 1), (width, width, 3), (outputs, width, 1)]
            if not bottleneck:
                layers = [(width, before, 3), (width, width, 3)]
            for layer, sizes in enumerate(layers, start=1):
                convolution(f"{place}.conv{layer}", f"{place}.norm{layer}", *sizes)
            if not number:
                convolution(f"{place}.downsample.0", f"{place}.downsample.1", outputs, before, 1)
            before = outputs
    return found


def test_the_layout_is_the_golden_file_s():
    facts, _ = load("desd_resnet_official")
    assert shapes(stem=64, widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3)) == facts["parameters"]


def as_the_layout_says(state, x, *, slope, groups, standardised):
    """The released layout computed from its state dict step by step, without any module of ours."""

    def normalised(convolution, norm, x, stride):
        weight = state[f"{convolution}.weight"]
        if standardised:
            flat = weight.flatten(1)
            flat = flat - flat.mean(dim=1, keepdim=True)
            weight = (flat / (flat.square().mean(dim=1, keepdim=True) + 1e-10).sqrt()).reshape(weight.shape)
        x = functional.conv3d(x, weight, None, stride, weight.shape[-1] // 2)
        parts = x.unflatten(1, (groups or x.shape[1], -1))
        mean = parts.mean(dim=(2, 3, 4, 5), keepdim=True)
        variance = parts.var(dim=(2, 3, 4, 5), keepdim=True, unbiased=False)
        scale, shift = state[f"{norm}.weight"], state[f"{norm}.bias"]
        return ((parts - mean) / (variance + 1e-5).sqrt()).flatten(1, 2) * scale.view(-1, 1, 1, 1) + shift.view(
            -1, 1, 1, 1
        )

    def activated(x):
        return torch.where(x > 0, x, slope * x)

    def block(name, x, stride):
        shortcut = x
        if f"{name}.downsample.0.weight" in state:
            shortcut = normalised(f"{name}.downsample.0", f"{name}.downsample.1", x, stride)
        layers = 3 if f"{name}.conv3.weight" in state else 2
        for layer in range(1, layers + 1):
            step = stride if layer == layers - 1 else 1
            x = normalised(f"{name}.conv{layer}", f"{name}.norm{layer}", x, step)
            x = activated(x if layer < layers else x + shortcut)
        return x

    x = activated(normalised("conv1", "norm1", x, (1, 2, 2)))
    x, stages = functional.max_pool3d(x, 3, 2, 1), []
    for stage in range(1, STAGES + 1):
        number = 0
        while f"layer{stage}.{number}.conv1.weight" in state:
            x = block(f"layer{stage}.{number}", x, 2 if stage > 1 and not number else 1)
            number += 1
        stages.append(x)
    return [*(x.mean(dim=(2, 3, 4)) for x in stages), *stages]


@pytest.mark.parametrize("seed", range(8))
def test_other_configurations_follow_from_the_shapes(seed):
    draw = random.Random(seed)
    grouped, standardised = seed % 4 > 1, draw.choice([True, False])
    step = 16 if grouped else 1
    sizes = {
        "stem": step * draw.randint(1, 3),
        "widths": [step * draw.randint(1, 3) for _ in range(STAGES)],
        "blocks": [draw.randint(1, 3) for _ in range(STAGES)],
        "channels": draw.choice([1, 2, 4]),
        "bottleneck": seed % 2 == 0,
    }
    activation, slope = draw.choice([("LeakyReLU", 0.01), ("ReLU", 0.0)])
    size = [draw.randint(17, 40), draw.randint(33, 70), draw.randint(33, 70)]
    state = filled(shapes(**sizes))
    wrapped = {"state_dict": {f"module.{name}": tensor.double() for name, tensor in state.items()}}
    norm = "GN" if grouped else draw.choice(["IN", "IN3"])
    encoder = from_official(wrapped, activation_cfg=activation, norm_cfg=norm, weight_std=standardised)
    images = torch.randn(draw.randint(1, 2), sizes["channels"], *size, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        answers, expected = (
            encoder(images),
            as_the_layout_says(state, images, slope=slope, groups=16 if grouped else None, standardised=standardised),
        )
    for answer, truth in zip(answers, expected, strict=True):
        assert answer.shape == truth.shape
        assert (answer - truth).abs().max() <= TOLERANCE * truth.abs().max()


@over_kinds
@pytest.mark.parametrize("bottleneck", [True, False])
def test_a_damaged_state_dict_is_refused(kind, bottleneck):
    whole = filled(shapes(blocks=(2, 2, 2, 2), bottleneck=bottleneck))
    refuses_each_damaged_tensor(from_official, whole, kind)


def test_another_network_or_argument_is_refused():
    with pytest.raises(InputError, match=r"no usable tensor conv1\.weight"):
        from_official({"stem.weight": torch.zeros(4, 1, 3, 3, 3)})
    with pytest.raises(InputError, match="norm_cfg = 'BN3'; expected 'IN'"):
        from_official(filled(shapes()), norm_cfg="BN3")
