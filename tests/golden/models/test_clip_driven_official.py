"""The original CLIP-driven network at other sizes follows from the shapes; damage is refused."""

import itertools
import random

import pytest
import torch
from torch.nn import functional

from models.baselines.clip_driven_original import from_official
from segbench.core.errors import InputError
from tests.golden.models.damaged import over_kinds, refuses_each_damaged_tensor
from tests.golden.models.official import filled, load

TOLERANCE = 1e-4
DOWN = [f"backbone.down_tr{width}" for width in (64, 128, 256, 512)]
UP = [f"backbone.up_tr{width}" for width in (256, 128, 64)]


def shapes(*, base=8, classes=3, length=7, width=6, channels=1):
    """Shapes of a network of the released layout; with the released sizes they are the golden file's."""
    found = {"organ_embedding": [classes, length]}

    def affine(name, *sizes):
        found[f"{name}.weight"], found[f"{name}.bias"] = list(sizes), [sizes[0]]

    def two(name, *widths):
        for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            affine(f"{name}.ops.{number}.conv1", outputs, inputs, 3, 3, 3)
            affine(f"{name}.ops.{number}.bn1", outputs)

    widths = [2 * base * 2**stage for stage in range(4)]
    for name, inputs, outputs in zip(DOWN, [channels, *widths], widths, strict=False):
        two(name, inputs, outputs // 2, outputs)
    for name, below, outputs in zip(UP, widths[:0:-1], widths[-2::-1], strict=True):
        affine(f"{name}.up_conv", below, below, 2, 2, 2)
        two(name, below + outputs, outputs, outputs)
    affine("precls_conv.0", 2 * base)
    affine("precls_conv.2", 8, 2 * base, 1, 1, 1)
    affine("GAP.0", 16 * base)
    affine("GAP.3", width, 16 * base, 1, 1, 1)
    affine("controller", 153, 2 * width, 1, 1, 1)
    affine("text_to_vision", width, length)
    return found


def test_the_layout_is_the_golden_file_s():
    facts, _ = load("clip_driven_official")
    assert shapes(base=32, classes=32, length=512, width=256) == facts["parameters"]


def as_the_layout_says(state, images_BCZYX):
    """The released layout computed from its state dict step by step, without any module of ours."""

    def affine(name):
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def two(name, x):
        for place in (f"{name}.ops.0", f"{name}.ops.1"):
            x = functional.conv3d(x, *affine(f"{place}.conv1"), padding=1)
            x = functional.batch_norm(x, None, None, *affine(f"{place}.bn1"), training=True).relu()
        return x

    skips = [two(DOWN[0], images_BCZYX)]
    for name in DOWN[1:]:
        skips.append(two(name, functional.max_pool3d(skips[-1], 2)))
    x = skips[-1]
    pooled = functional.group_norm(x, 16, *affine("GAP.0")).relu().mean(dim=(2, 3, 4), keepdim=True)
    image_BC = functional.conv3d(pooled, *affine("GAP.3")).flatten(1)
    for name, skip in zip(UP, skips[-2::-1], strict=True):
        x = functional.conv_transpose3d(x, *affine(f"{name}.up_conv"), stride=2)
        x = two(name, torch.cat([x, skip], dim=1))
    x = functional.conv3d(functional.group_norm(x, 16, *affine("precls_conv.0")).relu(), *affine("precls_conv.2"))
    text_KC = functional.linear(state["organ_embedding"], *affine("text_to_vision")).relu()
    return torch.cat(
        [
            torch.cat([head(state, x[[sample]], torch.cat([image_BC[sample], text_C])) for text_C in text_KC], dim=1)
            for sample in range(len(x))
        ]
    )


def head(state, x, pair_C):
    """The generated 8-8-1 head of one sample and class: three weights, then three biases."""
    parameters_P = functional.linear(pair_C, state["controller.weight"][:, :, 0, 0, 0], state["controller.bias"])
    w1, w2, w3, b1, b2, b3 = parameters_P.split([64, 64, 8, 8, 8, 1])
    x = functional.conv3d(x, w1.reshape(8, 8, 1, 1, 1), b1).relu()
    x = functional.conv3d(x, w2.reshape(8, 8, 1, 1, 1), b2).relu()
    return functional.conv3d(x, w3.reshape(1, 8, 1, 1, 1), b3)


@pytest.mark.parametrize("seed", range(6))
def test_other_configurations_follow_from_the_shapes(seed):
    draw = random.Random(seed)
    sizes = {
        "base": 8 * draw.randint(1, 3),
        "classes": draw.randint(1, 20),
        "length": draw.choice([5, 256, 768]),
        "width": draw.choice([6, 64]),
        "channels": draw.choice([1, 2, 4]),
    }
    state = filled(shapes(**sizes))
    model = from_official({"net": {f"module.{name}": tensor.double() for name, tensor in state.items()}})
    batch = 1 + seed % 3
    size_zyx = [8, 8, 8] if batch > 1 else [8, 16, 24]  # one position at the bottleneck is enough for several samples
    images_BCZYX = torch.randn(batch, sizes["channels"], *size_zyx, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        answer, expected = model.forward_all(images_BCZYX), as_the_layout_says(state, images_BCZYX)
    assert answer.shape == expected.shape == (batch, sizes["classes"], *size_zyx)
    assert (answer - expected).abs().max() <= TOLERANCE


def test_running_statistics_are_not_missing_and_not_needed():
    state = filled(shapes())
    state["backbone.down_tr64.ops.0.bn1.running_mean"] = torch.full((8,), 7.0)
    state["backbone.down_tr64.ops.0.bn1.num_batches_tracked"] = torch.tensor(3)
    assert from_official(state).organ_embedding.shape == (3, 7)


@over_kinds
def test_a_damaged_state_dict_is_refused(kind):
    whole = filled(shapes())
    names = whole.keys() - {"organ_embedding"} if kind == "reshaped" else None
    refuses_each_damaged_tensor(from_official, whole, kind, names=names)


def test_another_network_is_refused():
    with pytest.raises(InputError, match="down_tr64"):
        from_official({"conv1.weight": torch.zeros(4, 1, 3, 3, 3)})
