"""STU-Net as its layout says: sizes follow from shapes; damage is refused."""

import random

import pytest
import torch
from torch.nn import functional

from models.baselines import stunet
from models.baselines.stunet import STUNet, from_official
from segbench.core.errors import InputError
from tests.golden.models.damaged import over_kinds, refuses_each_damaged_tensor
from tests.golden.models.official import filled, load

TOLERANCE = 1e-4  # of the largest output


@pytest.mark.parametrize(("size", "millions"), [("S", 14.60), ("B", 58.26), ("L", 440.30), ("H", 1457.33)])
def test_sizes_are_those_of_the_paper(size, millions):
    """Table 1 of the paper, for 105 output channels (104 classes of TotalSegmentator and background)."""
    factor, blocks = stunet.SIZES[size]
    with torch.device("meta"):
        network = STUNet(
            channels=1,
            classes=105,
            widths=[16 * factor * min(2**stage, stunet.WIDEST) for stage in range(6)],
            blocks=[blocks] * 6,
            kernels_zyx=[(3, 3, 3)] * 6,
            pools_zyx=[(2, 2, 2)] * 5,
        )
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def shapes(*, widths=(4, 8, 6), blocks=(1, 2, 1), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)), channels=1, classes=3):
    """Shapes of a network of the released layout; with the golden file's sizes they are the golden file's."""
    found = {}

    def affine(name, *sizes):
        found[f"{name}.weight"], found[f"{name}.bias"] = list(sizes), [sizes[0]]

    def stage(name, inputs, width, count, kernel):
        for number in range(count):
            place, before = f"{name}.{number}", width if number else inputs
            for convolution, source in ((1, before), (2, width)):
                affine(f"{place}.conv{convolution}", width, source, *kernel)
                affine(f"{place}.norm{convolution}", width)
            if not number:
                affine(f"{place}.conv3", width, before, 1, 1, 1)

    for level, (width, count, kernel) in enumerate(zip(widths, blocks, kernels, strict=True)):
        stage(f"conv_blocks_context.{level}", widths[level - 1] if level else channels, width, count, kernel)
    for up, level in enumerate(reversed(range(len(widths) - 1))):
        width = widths[level]
        affine(f"upsample_layers.{up}.conv", width, widths[level + 1], 1, 1, 1)
        stage(f"conv_blocks_localization.{up}", 2 * width, width, blocks[level], kernels[level])
        affine(f"seg_outputs.{up}", classes, width, 1, 1, 1)
    return found


def test_the_layout_is_the_golden_file_s():
    facts, _ = load("stunet_official")
    constructor = facts["arch"]["constructor"]
    sizes = {
        "widths": constructor["dims"],
        "blocks": constructor["depth"],
        "kernels": constructor["conv_kernel_sizes"],
        "classes": constructor["num_classes"],
    }
    assert shapes(**sizes) == facts["parameters"]


def as_the_layout_says(state, x, pools):
    """The released layout computed from its state dict step by step, without any module of ours."""

    def convolution(name, x, stride=1):
        weight = state[f"{name}.weight"]
        return functional.conv3d(x, weight, state[f"{name}.bias"], stride, [size // 2 for size in weight.shape[2:]])

    def norm(name, x):
        mean, variance = x.mean(dim=(2, 3, 4), keepdim=True), x.var(dim=(2, 3, 4), keepdim=True, unbiased=False)
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return (x - mean) / (variance + 1e-5).sqrt() * weight.view(-1, 1, 1, 1) + bias.view(-1, 1, 1, 1)

    def stage(name, x, stride=1):
        number = 0
        while f"{name}.{number}.conv1.weight" in state:
            place, step = f"{name}.{number}", 1 if number else stride
            shortcut = x if number else convolution(f"{place}.conv3", x, step)
            x = functional.leaky_relu(norm(f"{place}.norm1", convolution(f"{place}.conv1", x, step)), 0.01)
            x = functional.leaky_relu(norm(f"{place}.norm2", convolution(f"{place}.conv2", x)) + shortcut, 0.01)
            number += 1
        return x

    skips = [stage("conv_blocks_context.0", x)]
    for level, pool in enumerate(pools, start=1):
        skips.append(stage(f"conv_blocks_context.{level}", skips[-1], pool))
    x = skips.pop()
    logits = []
    for up, pool in enumerate(reversed(pools)):
        for axis, factor in enumerate(pool, start=2):
            x = x.repeat_interleave(factor, dim=axis)
        x = stage(
            f"conv_blocks_localization.{up}", torch.cat([convolution(f"upsample_layers.{up}.conv", x), skips.pop()], 1)
        )
        logits.append(convolution(f"seg_outputs.{up}", x))
    return logits[::-1]


@pytest.mark.parametrize("seed", range(6))
def test_other_configurations_follow_from_the_shapes(seed):
    draw = random.Random(seed)
    stages = draw.randint(2, 5)
    sizes = {
        "widths": [draw.randint(2, 9) for _ in range(stages)],
        "blocks": [draw.randint(1, 3) for _ in range(stages)],
        "kernels": [draw.choice([(3, 3, 3), (1, 3, 3), (3, 1, 3)]) for _ in range(stages)],
        "channels": draw.choice([1, 2, 4]),
        "classes": draw.randint(1, 6),
    }
    pools = [draw.choice([(2, 2, 2), (1, 2, 2), (2, 1, 2), (1, 1, 3)]) for _ in range(stages - 1)]
    size = [2 * draw.choice([1, 2, 3]) for _ in range(3)]
    for pool in pools:
        size = [length * factor for length, factor in zip(size, pool, strict=True)]
    state = filled(shapes(**sizes))
    network = from_official({"state_dict": {f"module.{n}": t for n, t in state.items()}}, pool_op_kernel_sizes=pools)
    images = torch.randn(draw.randint(1, 2), sizes["channels"], *size, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        answers, expected = network(images), as_the_layout_says(state, images, pools)
        (finest,) = from_official(state, pool_op_kernel_sizes=pools, enable_deep_supervision=False)(images)
    assert torch.equal(finest, answers[0])
    for answer, truth in zip(answers, expected, strict=True):
        assert answer.shape == truth.shape
        assert (answer - truth).abs().max() <= TOLERANCE * truth.abs().max()


@over_kinds
def test_a_damaged_state_dict_is_refused(kind):
    refuses_each_damaged_tensor(from_official, filled(shapes(blocks=(2, 2, 2))), kind)


def test_another_network_is_refused():
    with pytest.raises(InputError, match="conv_blocks_context"):
        from_official({"conv1.weight": torch.zeros(4, 1, 3, 3, 3)})


@pytest.mark.parametrize(
    "pools",
    [
        [[2, 2, 2]],
        [[2, 2, 2], [2, 2]],
        [[2, 2, 2], [0, 2, 2]],
        2,
        [2, 2],
        "x",
        [[2, 2, 2], ["a", 2, 2]],
        [[2.5] * 3] * 2,
    ],
    ids=str,
)
def test_poolings_that_do_not_fit_are_refused(pools):
    with pytest.raises(InputError, match="2 triples"):
        from_official(filled(shapes()), pool_op_kernel_sizes=pools)
