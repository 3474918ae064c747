"""MedNeXt as its layout says: sizes follow from shapes; damage is refused."""

import random

import pytest
import torch
from torch.nn import functional

from models.baselines.mednext import VARIANTS, MedNeXt, from_official
from models.loader import build_model
from segbench.core.errors import InputError
from segbench.core.task import TaskSet
from tests.golden.models.damaged import over_kinds, refuses_each_damaged_tensor
from tests.golden.models.official import filled, load
from tests.unit.models.small import SPEC, make_task

TOLERANCE = 1e-4  # of the largest output
POOLINGS = 4


@pytest.mark.parametrize(("variant", "millions"), [("S", 5.6), ("B", 10.5), ("M", 17.6), ("L", 61.8)])
def test_variants_are_those_of_the_paper(variant, millions):
    """Table 1 of the paper, kernel 3; it counts without the coarser heads, which change nothing at this precision."""
    ratios, blocks = VARIANTS[variant]
    with torch.device("meta"):
        network = MedNeXt(
            channels=1, classes=3, width=32, ratios=[*ratios, *ratios[-2::-1]], blocks=[*blocks, *blocks[-2::-1]]
        )
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


def shapes(
    *,
    width=4,
    ratios=(2,) * 9,
    blocks=(1,) * 9,
    channels=1,
    classes=3,
    kernels=(3, 3),
    resampling_residual=True,
    deep_supervision=True,
    grn=False,
):
    """Shapes of a network of the released layout; with the golden file's sizes they are the golden file's."""
    found = {"dummy_tensor": [1]}

    def affine(name, *sizes, outputs=None):
        found[f"{name}.weight"], found[f"{name}.bias"] = list(sizes), [outputs or sizes[0]]

    def block(name, inputs, outputs, ratio, kernel, shortcut=None):
        if grn:
            found[f"{name}.grn_beta"] = found[f"{name}.grn_gamma"] = [1, ratio * inputs, 1, 1, 1]
        affine(f"{name}.conv1", inputs, 1, kernel, kernel, kernel)
        affine(f"{name}.norm", inputs)
        affine(f"{name}.conv2", ratio * inputs, inputs, 1, 1, 1)
        affine(f"{name}.conv3", outputs, ratio * inputs, 1, 1, 1)
        if shortcut and resampling_residual:
            affine(f"{name}.res_conv", *shortcut, 1, 1, 1, outputs=outputs)

    def stage(name, features, place, kernel):
        for number in range(blocks[place]):
            block(f"{name}.{number}", features, features, ratios[place], kernel)

    widths = [width * 2**level for level in range(POOLINGS + 1)]
    affine("stem", width, channels, 1, 1, 1)
    for level in range(POOLINGS):
        fine, coarse = widths[level], widths[level + 1]
        stage(f"enc_block_{level}", fine, level, kernels[0])
        block(f"down_{level}", fine, coarse, ratios[level + 1], kernels[0], shortcut=(coarse, fine))
        stage(f"dec_block_{level}", fine, 8 - level, kernels[1])
        block(f"up_{level}", coarse, fine, ratios[8 - level], kernels[1], shortcut=(coarse, fine))
    stage("bottleneck", widths[-1], POOLINGS, kernels[1])
    for level in range(POOLINGS + 1 if deep_supervision else 1):
        affine(f"out_{level}.conv_out", widths[level], classes, 1, 1, 1, outputs=classes)
    return found


def test_the_layout_is_the_golden_file_s():
    facts, _ = load("mednext_official")
    assert shapes(width=32, blocks=(2,) * 9, classes=4) == facts["parameters"]


def as_the_layout_says(state, x, *, residual, norm):
    """The released layout computed from its state dict step by step, without any module of ours."""

    def affine(name):
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def normalised(name, x):
        axes = (1,) if norm == "layer" else (2, 3, 4)
        mean, variance = x.mean(dim=axes, keepdim=True), x.var(dim=axes, keepdim=True, unbiased=False)
        weight, bias = (tensor.view(-1, 1, 1, 1) for tensor in affine(name))
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def body(name, x):
        x = functional.gelu(functional.conv3d(normalised(f"{name}.norm", x), *affine(f"{name}.conv2")))
        if f"{name}.grn_beta" in state:
            size = x.square().sum(dim=(2, 3, 4), keepdim=True).sqrt()
            relative = size / (size.mean(dim=1, keepdim=True) + 1e-6)
            x = x * (1 + state[f"{name}.grn_gamma"] * relative) + state[f"{name}.grn_beta"]
        return functional.conv3d(x, *affine(f"{name}.conv3"))

    def depthwise(name, x, function, stride):
        weight, bias = affine(f"{name}.conv1")
        return function(x, weight, bias, stride=stride, padding=weight.shape[-1] // 2, groups=x.shape[1])

    def stage(name, x):
        number = 0
        while f"{name}.{number}.conv1.weight" in state:
            change = body(f"{name}.{number}", depthwise(f"{name}.{number}", x, functional.conv3d, 1))
            x = x + change if residual else change
            number += 1
        return x

    def down(name, x):
        change = body(name, depthwise(name, x, functional.conv3d, 2))
        if f"{name}.res_conv.weight" in state:
            change = change + functional.conv3d(x[:, :, ::2, ::2, ::2], *affine(f"{name}.res_conv"))
        return change

    def up(name, x):
        change = body(name, depthwise(name, x, functional.conv_transpose3d, 2))
        if f"{name}.res_conv.weight" in state:
            weight, bias = affine(f"{name}.res_conv")
            shortcut = bias.view(-1, 1, 1, 1).expand_as(change).clone()
            shortcut[:, :, ::2, ::2, ::2] += torch.einsum("bizyx,io->bozyx", x, weight[:, :, 0, 0, 0])
            change = change + shortcut
        whole = torch.zeros(*change.shape[:2], *(size + 1 for size in change.shape[2:]))
        whole[:, :, 1:, 1:, 1:] = change
        return whole

    x, skips = functional.conv3d(x, *affine("stem")), []
    for level in range(POOLINGS):
        skips.append(stage(f"enc_block_{level}", x))
        x = down(f"down_{level}", skips[-1])
    features = [stage("bottleneck", x)]
    for level in reversed(range(POOLINGS)):
        features.append(stage(f"dec_block_{level}", skips[level] + up(f"up_{level}", features[-1])))
    return [
        functional.conv_transpose3d(features[POOLINGS - level], *affine(f"out_{level}.conv_out"))
        for level in range(POOLINGS + 1)
        if f"out_{level}.conv_out.weight" in state
    ]


@pytest.mark.parametrize("seed", range(8))
def test_other_configurations_follow_from_the_shapes(seed):
    draw = random.Random(seed)
    sizes = {
        "width": draw.randint(2, 6),
        "ratios": [draw.randint(1, 4) for _ in range(9)],
        "blocks": [draw.randint(1, 2) for _ in range(9)],
        "channels": draw.choice([1, 2, 4]),
        "classes": draw.randint(1, 6),
        "kernels": draw.choice([(3, 3), (5, 5), (3, 5), (1, 7)]),
        "resampling_residual": draw.choice([True, True, False]),
        "deep_supervision": draw.choice([True, False]),
        "grn": seed % 4 == 3,
    }
    residual, norm = draw.choice([True, False]), draw.choice(["group", "layer"])
    size = [16, 16 * draw.randint(1, 2), 32]
    state = filled(shapes(**sizes))
    wrapped = {"state_dict": {f"module.{name}": tensor.double() for name, tensor in state.items()}}
    network = from_official(wrapped, do_res=residual, norm_type=norm)
    images = torch.randn(draw.randint(1, 2), sizes["channels"], *size, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        answers = network(images)
        expected = as_the_layout_says(state, images, residual=residual, norm=norm)
    assert len(answers) == len(expected) == (5 if sizes["deep_supervision"] else 1)
    for answer, truth in zip(answers, expected, strict=True):
        assert answer.shape == truth.shape
        assert (answer - truth).abs().max() <= TOLERANCE * truth.abs().max()


@over_kinds
def test_a_damaged_state_dict_is_refused(kind):
    refuses_each_damaged_tensor(from_official, filled(shapes(blocks=(2,) * 9)), kind)


def test_another_network_is_refused():
    with pytest.raises(InputError, match=r"stem\.bias"):
        from_official({"conv1.weight": torch.zeros(4, 1, 3, 3, 3)})


def test_an_even_kernel_is_refused():
    with pytest.raises(InputError, match="kernel_size of mednext: found 4; expected an odd number"):
        build_model("mednext", TaskSet([make_task("toy", ("spleen",))]), SPEC, kernel_size=4)


def test_another_argument_is_refused():
    with pytest.raises(InputError, match="dim = '2d'; expected '3d'"):
        from_official(filled(shapes()), dim="2d")
