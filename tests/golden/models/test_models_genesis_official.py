"""The U-Net of Models Genesis as its layout says: sizes follow from shapes; damage is refused."""

import itertools
import random

import pytest
import torch
from torch.nn import functional

from models.baselines.models_genesis import from_official
from segbench.core.errors import InputError
from tests.golden.models.damaged import over_kinds, refuses_each_damaged_tensor
from tests.golden.models.official import filled, load

TOLERANCE = 1e-4  # of the largest output
DOWN = [f"down_tr{width}" for width in (64, 128, 256, 512)]
UP = [f"up_tr{width}" for width in (256, 128, 64)]


def shapes(*, base=4, channels=1, outputs=1, slopes=None):
    """Shapes of a network of the released layout; with the released sizes they are the golden file's.

    slopes: per unit with a learned slope: one, or "all" for one per channel.
    """
    found = {}

    def affine(name, *sizes, width=None):
        found[f"{name}.weight"], found[f"{name}.bias"] = list(sizes), [width or sizes[0]]

    def two(name, *widths):
        for number, (before, width) in enumerate(itertools.pairwise(widths)):
            affine(f"{name}.ops.{number}.conv1", width, before, 3, 3, 3)
            affine(f"{name}.ops.{number}.bn1", width)
            if slopes:
                found[f"{name}.ops.{number}.activation.weight"] = [width if slopes == "all" else slopes]

    widths = [2 * base * 2**stage for stage in range(4)]
    for name, before, width in zip(DOWN, [channels, *widths], widths, strict=False):
        two(name, before, width // 2, width)
    for name, below, width in zip(UP, widths[:0:-1], widths[-2::-1], strict=True):
        affine(f"{name}.up_conv", below, below, 2, 2, 2)
        two(name, below + width, width, width)
    affine("out_tr.final_conv", outputs, 2 * base, 1, 1, 1)
    return found


def test_the_layout_is_the_golden_file_s():
    facts, _ = load("models_genesis_official")
    assert shapes(base=32) == facts["parameters"]


def as_the_layout_says(state, x, act):
    """The released layout computed from its state dict step by step, without any module of ours."""

    def affine(name):
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def activated(name, x):
        if act == "prelu":
            slope = state[f"{name}.activation.weight"].view(-1, 1, 1, 1)
            return x.clamp(min=0) + slope * x.clamp(max=0)
        return x.clamp(min=0) + x.clamp(max=0).exp() - 1 if act == "elu" else x.clamp(min=0)

    def two(name, x):
        for place in (f"{name}.ops.0", f"{name}.ops.1"):
            x = functional.conv3d(x, *affine(f"{place}.conv1"), padding=1)
            x = activated(place, functional.batch_norm(x, None, None, *affine(f"{place}.bn1"), training=True))
        return x

    skips = [two(DOWN[0], x)]
    for name in DOWN[1:]:
        skips.append(two(name, functional.max_pool3d(skips[-1], 2)))
    x = skips.pop()
    for name in UP:
        x = functional.conv_transpose3d(x, *affine(f"{name}.up_conv"), stride=2)
        x = two(name, torch.cat([x, skips.pop()], dim=1))
    return functional.conv3d(x, *affine("out_tr.final_conv")).sigmoid()


@pytest.mark.parametrize("seed", range(6))
def test_other_configurations_follow_from_the_shapes(seed):
    draw = random.Random(seed)
    act = ("relu", "elu", "prelu")[seed % 3]
    sizes = {"base": draw.randint(2, 6), "channels": draw.choice([1, 2, 4]), "outputs": draw.randint(1, 5)}
    slopes = (1 if seed > 2 else "all") if act == "prelu" else None
    state = filled(shapes(**sizes, slopes=slopes))
    network = from_official({"state_dict": {f"module.{n}": tensor.double() for n, tensor in state.items()}}, act=act)
    size = [8, 8 * draw.randint(1, 3), 16]
    images = torch.randn(draw.randint(1, 3), sizes["channels"], *size, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        (answer,), expected = network(images), as_the_layout_says(state, images, act)
    assert answer.shape == expected.shape == (len(images), sizes["outputs"], *size)
    assert (answer - expected).abs().max() <= TOLERANCE * expected.abs().max()


def test_running_statistics_are_not_missed_and_not_needed():
    state = filled(shapes())
    state["down_tr64.ops.0.bn1.running_mean"] = torch.full((4,), 7.0)
    state["down_tr64.ops.0.bn1.num_batches_tracked"] = torch.tensor(3)
    images = torch.randn(1, 1, 8, 8, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(from_official(state)(images)[0], from_official(filled(shapes()))(images)[0])


@over_kinds
@pytest.mark.parametrize("slopes", [None, "all"])
def test_a_damaged_state_dict_is_refused(kind, slopes):
    undecided = ["out_tr.final_conv"]
    refuses_each_damaged_tensor(from_official, filled(shapes(slopes=slopes)), kind, undecided=undecided)


def test_another_network_or_activation_is_refused():
    with pytest.raises(InputError, match="down_tr64"):
        from_official({"conv1.weight": torch.zeros(4, 1, 3, 3, 3)})
    with pytest.raises(InputError, match="act = 'gelu'"):
        from_official(filled(shapes()), act="gelu")
