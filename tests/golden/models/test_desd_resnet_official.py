"""The encoder of DeSD and ours give the same numbers; sizes follow from shapes; damage is refused."""

import random

import pytest
import torch
from torch.nn import functional

from models.baselines.desd_resnet import from_official
from segbench.core.errors import InputError
from tests.golden.models.damaged import over_kinds, refuses_each_damaged_tensor
from tests.golden.models.official import filled, load, seeded_input

TOLERANCE = 1e-3  # of the largest output: the original in float32 differs by 1.5e-4 from itself in float64
SMALL_TOLERANCE = 1e-4  # few layers round less
STRIDES = (7, 4, 3, 2)
STAGES = 4


def test_agreement_with_the_original():
    facts, arrays = load("desd_resnet_official")
    encoder = from_official(filled(facts["parameters"]), **facts["arch"]["constructor"])
    assert sum(p.numel() for p in encoder.parameters()) == facts["arch"]["parameters_total"] == 46_155_072
    for number, case in enumerate(facts["cases"]):
        with torch.no_grad():
            answers = encoder(seeded_input(case))
        maps = [x[:, :, ::step, ::step, ::step] for x, step in zip(answers[STAGES:], STRIDES, strict=True)]
        for position, answer in enumerate([*answers[:STAGES], *maps]):
            expected = torch.from_numpy(arrays[f"case{number}_output{position}"])
            assert answer.shape == expected.shape
            assert (answer - expected).abs().max() <= TOLERANCE * expected.abs().max()


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


def as_the_layout_says(state, x, slope):
    """The released layout computed from its state dict step by step, without any module of ours."""

    def normalised(convolution, norm, x, stride):
        weight = state[f"{convolution}.weight"]
        x = functional.conv3d(x, weight, None, stride, weight.shape[-1] // 2)
        mean, variance = x.mean(dim=(2, 3, 4), keepdim=True), x.var(dim=(2, 3, 4), keepdim=True, unbiased=False)
        scale, shift = state[f"{norm}.weight"], state[f"{norm}.bias"]
        return (x - mean) / (variance + 1e-5).sqrt() * scale.view(-1, 1, 1, 1) + shift.view(-1, 1, 1, 1)

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


@pytest.mark.parametrize("seed", range(6))
def test_other_configurations_follow_from_the_shapes(seed):
    draw = random.Random(seed)
    sizes = {
        "stem": draw.randint(2, 9),
        "widths": [draw.randint(2, 9) for _ in range(STAGES)],
        "blocks": [draw.randint(1, 3) for _ in range(STAGES)],
        "channels": draw.choice([1, 2, 4]),
        "bottleneck": seed % 2 == 0,
    }
    activation, slope = draw.choice([("LeakyReLU", 0.01), ("ReLU", 0.0)])
    size = [draw.randint(17, 40), draw.randint(33, 70), draw.randint(33, 70)]
    state = filled(shapes(**sizes))
    wrapped = {"state_dict": {f"module.{name}": tensor.double() for name, tensor in state.items()}}
    encoder = from_official(wrapped, activation_cfg=activation)
    images = torch.randn(draw.randint(1, 2), sizes["channels"], *size, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        answers, expected = encoder(images), as_the_layout_says(state, images, slope)
    for answer, told in zip(answers, expected, strict=True):
        assert answer.shape == told.shape
        assert (answer - told).abs().max() <= SMALL_TOLERANCE * told.abs().max()


@over_kinds
@pytest.mark.parametrize("bottleneck", [True, False])
def test_a_damaged_state_dict_is_refused(kind, bottleneck):
    whole = filled(shapes(blocks=(2, 2, 2, 2), bottleneck=bottleneck))
    refuses_each_damaged_tensor(from_official, whole, kind)


def test_another_network_or_argument_is_refused():
    with pytest.raises(InputError, match=r"no usable tensor conv1\.weight"):
        from_official({"stem.weight": torch.zeros(4, 1, 3, 3, 3)})
    with pytest.raises(InputError, match="norm_cfg = 'BN'; expected 'IN'"):
        from_official(filled(shapes()), norm_cfg="BN")
