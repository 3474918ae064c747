"""The released UniSeg network at other sizes follows from the shapes; damaged state dicts are refused whole."""

import random

import pytest
import torch
from torch.nn import functional

from models.uniseg.weights import from_official
from segbench.core.errors import InputError
from tests.golden.models.damaged import over_kinds, refuses_each_damaged_tensor
from tests.golden.models.official import filled

TOLERANCE = 1e-4


def shapes(
    base=4,
    tasks=3,
    classes=2,
    stems=(1, 3),
    pools=((2, 2, 2), (1, 2, 2)),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    grid=(2, 2, 4),
    widths=None,
    fusion=((3, 3, 3),) * 3,
):
    """Shapes of a small network of the released layout."""
    widths = widths or [base * 2**stage for stage in range(len(pools) + 1)]
    found = {"intermedia_prompt": [1, tasks, *grid]}

    def block(name, inputs, outputs, kernel, conv="conv"):
        found[f"{name}.{conv}.weight"] = [outputs, inputs, *kernel]
        found[f"{name}.{conv}.bias"] = [outputs]
        found[f"{name}.instnorm.weight"] = [outputs]
        found[f"{name}.instnorm.bias"] = [outputs]

    fused = widths[-1] + tasks
    for number, (inputs, outputs) in enumerate([(fused, fused // 4), (fused // 4, fused // 4), (fused // 4, tasks)]):
        block(f"fusion_layer.blocks.{number}", inputs, outputs, fusion[number])
    for stem in stems:
        block("conv_blocks_context.0.blocks.0", stem, widths[0], kernels[0], conv=f"conv_{stem}")
    block("conv_blocks_context.0.blocks.1", widths[0], widths[0], kernels[0])
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
        {"pools": ((2, 2, 2),) * 3, "kernels": ((3, 3, 3),) * 4, "stems": (1,), "grid": (2, 2, 2)},
        {"widths": (6, 10, 10), "fusion": ((1, 3, 3), (3, 3, 3), (1, 1, 1))},
    ],
)
def test_other_configurations_follow_from_the_shapes(options):
    state = filled(shapes(**options))
    model = from_official(state)
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == sum(t.numel() for t in state.values())
    channels = options.get("stems", (1, 3))[-1]
    size = model.spec.patch_size_zyx
    images_BCZYX = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scales = model.forward_index(images_BCZYX, 1)
    for answer, expected in zip(scales, as_the_layout_says(state, images_BCZYX, 1), strict=True):
        assert answer.shape == expected.shape
        assert (answer - expected).abs().max() <= TOLERANCE


def random_sizes(draw):
    """Sizes as another trainer might choose them: capped widths, flat kernels and poolings, any tasks and channels."""
    poolings, base, cap = draw.randint(2, 6), draw.randint(4, 8), draw.choice([8, 20, 320])
    flat = [(1, 1, 2), (1, 2, 1), (2, 1, 1), (1, 2, 2)]
    return {
        "widths": [min(base * 2**stage, cap) for stage in range(poolings + 1)],
        "pools": [draw.choice(flat) if stage > 1 else (2, 2, 2) for stage in range(poolings)],
        "kernels": [tuple(draw.choice([1, 3, 3]) for _ in range(3)) for _ in range(poolings + 1)],
        "grid": draw.choice([(1, 1, 2), (2, 1, 2), (1, 2, 3)]),
        "tasks": draw.randint(1, 20),
        "classes": draw.randint(2, 14),
        "stems": draw.choice([(1,), (2,), (3,), (1, 2, 4)]),
    }


@pytest.mark.parametrize("seed", range(8))
def test_random_configurations_follow_from_the_shapes(seed):
    draw = random.Random(seed)
    sizes = random_sizes(draw)
    state = filled(shapes(**sizes))
    model = from_official({name: tensor.double() for name, tensor in state.items()})
    batch, task = draw.randint(1, 2), draw.randrange(sizes["tasks"])
    size = (batch, draw.choice(sizes["stems"]), *model.spec.patch_size_zyx)
    images_BCZYX = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        scales = model.forward_index(images_BCZYX, draw.choice([task, [task] * batch, torch.tensor(task)]))
        expected = as_the_layout_says(state, images_BCZYX, task)
    assert [answer.shape for answer in scales] == [answer.shape for answer in expected]
    for answer, computed in zip(scales, expected, strict=True):
        assert (answer - computed).abs().max() <= TOLERANCE


def test_another_patch_size_interpolates_the_prompt():
    """The released network would fail here; ours answers as one whose prompt was made for that patch."""
    state = filled(shapes())
    model = from_official(state)
    larger = functional.interpolate(state["intermedia_prompt"], size=(3, 5, 2), mode="trilinear")
    images_BCZYX = torch.randn(2, 1, 6, 20, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answer = model.forward_index(images_BCZYX, 2)[0]
        expected = as_the_layout_says(state | {"intermedia_prompt": larger}, images_BCZYX, 2)[0]
    assert (answer - expected).abs().max() <= TOLERANCE


def as_the_layout_says(state, images_BCZYX, task_index):
    """The released layout computed from its state dict step by step, without any module of ours."""

    def block(name, x, stride=1, conv="conv"):
        weight, bias = state[f"{name}.{conv}.weight"], state[f"{name}.{conv}.bias"]
        x = functional.conv3d(x, weight, bias, stride, [size // 2 for size in weight.shape[2:]])
        x = functional.instance_norm(x, weight=state[f"{name}.instnorm.weight"], bias=state[f"{name}.instnorm.bias"])
        return functional.leaky_relu(x, 0.01)

    ups = sum(name.startswith("tu.") for name in state)
    pools = [state[f"tu.{up}.weight"].shape[2:] for up in reversed(range(ups))]
    x = block("conv_blocks_context.0.blocks.0", images_BCZYX, conv=f"conv_{images_BCZYX.shape[1]}")
    skips = [block("conv_blocks_context.0.blocks.1", x)]
    for stage, pool in enumerate(pools[:-1], start=1):
        x = block(f"conv_blocks_context.{stage}.blocks.0", skips[-1], pool)
        skips.append(block(f"conv_blocks_context.{stage}.blocks.1", x))
    x = block(f"conv_blocks_context.{ups}.0.blocks.0", skips[-1], pools[-1])
    x = block(f"conv_blocks_context.{ups}.1.blocks.0", x)
    prompt = torch.cat([x, state["intermedia_prompt"].repeat(x.shape[0], 1, 1, 1, 1)], dim=1)
    for number in range(3):
        prompt = block(f"fusion_layer.blocks.{number}", prompt)
    x = torch.cat([x, prompt[:, task_index : task_index + 1]], dim=1)
    outputs = []
    for up, pool in enumerate(reversed(pools)):
        x = torch.cat([functional.conv_transpose3d(x, state[f"tu.{up}.weight"], stride=pool), skips.pop()], dim=1)
        x = block(f"conv_blocks_localization.{up}.0.blocks.0", x)
        x = block(f"conv_blocks_localization.{up}.1.blocks.0", x)
        outputs.append(functional.conv3d(x, state[f"seg_outputs.{up}.weight"]))
    return outputs[::-1]


@over_kinds
def test_a_damaged_state_dict_is_refused(kind):
    whole = filled(shapes(tasks=5, pools=((1, 1, 2),) * 3, kernels=((3, 3, 3),) * 4))
    refuses_each_damaged_tensor(from_official, whole, kind, names=whole.keys() - {"intermedia_prompt"})


def test_a_checkpoint_may_wrap_the_state_dict():
    state = filled(shapes())
    model = from_official({"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}})
    torch.testing.assert_close(model.prompt.prompt.data, state["intermedia_prompt"])


def test_another_network_is_refused():
    with pytest.raises(InputError, match="not among them"):
        from_official({"conv1.weight": torch.zeros(4, 1, 3, 3, 3)})


def test_an_unknown_channel_count_or_task_is_refused():
    model = from_official(filled(shapes()))
    with pytest.raises(InputError, match="2 channel"):
        model.forward_index(torch.zeros(1, 2, *model.spec.patch_size_zyx), 0)
    with pytest.raises(InputError, match="0 to 2"):
        model.forward_index(torch.zeros(1, 1, *model.spec.patch_size_zyx), 3)
    with pytest.raises(InputError, match="one task for the batch"):
        model.forward_index(torch.zeros(2, 1, *model.spec.patch_size_zyx), [0, 1])
