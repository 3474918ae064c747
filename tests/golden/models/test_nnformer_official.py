"""Other sizes of nnFormer than the golden ones, against its layout computed token by token from the state dict.

The reference knows no windows as tensors: it loops over the tokens of each window and looks up each bias and mask.
"""

import itertools

import pytest
import torch
from torch.nn import functional

from models.baselines.nnformer import from_official
from segbench.core.errors import InputError
from tests.golden.models.official import TOLERANCE, filled, load


def shapes(*, channels=1, classes=3, width=24, depths=(2, 2, 2, 2), heads=(2, 4, 8, 16), windows=(4, 4, 4, 2)):
    """Shapes of a network of the released layout; with the golden sizes they are the golden file's."""
    found = {}

    def affine(name, *sizes):
        found[f"{name}.weight"], found[f"{name}.bias"] = list(sizes), [sizes[0]]

    def block(name, width, heads, window, projection="qkv"):
        affine(f"{name}.norm1", width)
        found[f"{name}.attn.relative_position_bias_table"] = [(2 * window - 1) ** 3, heads]
        affine(f"{name}.attn.{projection}", len(projection) * width, width)
        affine(f"{name}.attn.proj", width, width)
        affine(f"{name}.norm2", width)
        affine(f"{name}.mlp.fc1", 4 * width, width)
        affine(f"{name}.mlp.fc2", width, 4 * width)

    embed = "model_down.patch_embed"
    affine(f"{embed}.proj1.conv1", width // 2, channels, 3, 3, 3)
    affine(f"{embed}.proj1.conv2", width // 2, width // 2, 3, 3, 3)
    affine(f"{embed}.proj1.norm1", width // 2)
    affine(f"{embed}.proj1.norm2", width // 2)
    affine(f"{embed}.proj2.conv1", width, width // 2, 3, 3, 3)
    affine(f"{embed}.proj2.conv2", width, width, 3, 3, 3)
    affine(f"{embed}.proj2.norm1", width)
    affine(f"{embed}.norm", width)
    for level, depth in enumerate(depths):
        name, own = f"model_down.layers.{level}", width * 2**level
        for number in range(depth):
            block(f"{name}.blocks.{number}", own, heads[level], windows[level])
        if level < len(depths) - 1:
            affine(f"{name}.downsample.reduction", 2 * own, own, 3, 3, 3)
            affine(f"{name}.downsample.norm", own)
        affine(f"model_down.norm{level}", own)
    for level, depth in enumerate(depths[:-1]):
        name, own = f"decoder.layers.{level}", width * 2**level
        for number in range(depth):
            kind = "kv" if number == 0 else "qkv"
            block(f"{name}.blocks.{number}", own, heads[level], windows[level], kind)
        affine(f"{name}.Upsample.norm", 2 * own)
        found[f"{name}.Upsample.up.weight"], found[f"{name}.Upsample.up.bias"] = [2 * own, own, 2, 2, 2], [own]
        found[f"final.{level}.up.weight"], found[f"final.{level}.up.bias"] = [own, classes, 2, 4, 4], [classes]
    return found


def test_the_layout_is_the_golden_file_s():
    facts, _ = load("nnformer_official")
    assert shapes() == facts["parameters"]


def attended(state, name, queries, keys, *, window, shift, skips):
    """Attention of one block on (Z, Y, X, C): `queries` and `keys` are normalised, of one sample."""
    size = queries.shape[:3]
    padded = [edge + -edge % window for edge in size]
    heads = state[f"{name}.attn.relative_position_bias_table"].shape[1]
    table = state[f"{name}.attn.relative_position_bias_table"]

    def cut(x):
        full = torch.zeros(*padded, x.shape[-1])
        full[: size[0], : size[1], : size[2]] = x
        return full.roll((-shift,) * 3, (0, 1, 2))

    def region(place):
        return tuple(
            (at >= edge - window) + (at >= edge - shift) if shift else 0 for at, edge in zip(place, padded, strict=True)
        )

    queries, keys = cut(queries), cut(keys)
    result = torch.zeros_like(queries)
    for corner in itertools.product(*(range(0, edge, window) for edge in padded)):
        places = [
            tuple(a + b for a, b in zip(corner, at, strict=True)) for at in itertools.product(range(window), repeat=3)
        ]
        query_NC = torch.stack([queries[place] for place in places])
        key_NC = torch.stack([keys[place] for place in places])
        if skips:
            key, value = functional.linear(
                key_NC, state[f"{name}.attn.kv.weight"], state[f"{name}.attn.kv.bias"]
            ).chunk(2, -1)
            query = query_NC
        else:
            query, key, value = functional.linear(
                query_NC, state[f"{name}.attn.qkv.weight"], state[f"{name}.attn.qkv.bias"]
            ).chunk(3, -1)
        bias_NNH = torch.zeros(len(places), len(places), heads)
        for i, a in enumerate(places):
            for j, b in enumerate(places):
                z, y, x = (p - q + window - 1 for p, q in zip(a, b, strict=True))
                bias_NNH[i, j] = table[z * (3 * window - 1) + y * (2 * window - 1) + x]
                if region(a) != region(b):
                    bias_NNH[i, j] -= 100
        width = query.shape[1] // heads
        parts = []
        for head in range(heads):
            of = slice(head * width, (head + 1) * width)
            scores = query[:, of] * width**-0.5 @ key[:, of].T + bias_NNH[:, :, head]
            parts.append(scores.softmax(-1) @ value[:, of])
        out = functional.linear(torch.cat(parts, 1), state[f"{name}.attn.proj.weight"], state[f"{name}.attn.proj.bias"])
        for place, token in zip(places, out, strict=True):
            result[place] = token
    return result.roll((shift,) * 3, (0, 1, 2))[: size[0], : size[1], : size[2]]


def as_the_layout_says(state, image_CZYX, *, depths, windows, grid):
    """The released layout step by step, on one sample, with channels last."""

    def affine(name):
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def norm(name, x):
        return functional.layer_norm(x, x.shape[-1:], *affine(name))

    def conv(name, x, stride):
        return functional.conv3d(x.movedim(-1, 0)[None], *affine(name), stride=stride, padding=1)[0].movedim(0, -1)

    def block(name, x, level, *, odd, skip=None):
        window = windows[level]
        smallest = min(edge // 2**level for edge in grid)
        shift = window // 2 if odd and smallest > window else 0
        keys = norm(f"{name}.norm1", x if skip is None else skip)
        y = attended(state, name, norm(f"{name}.norm1", x), keys, window=window, shift=shift, skips=skip is not None)
        x = y + (x if skip is None else x + skip)
        y = functional.gelu(functional.linear(norm(f"{name}.norm2", x), *affine(f"{name}.mlp.fc1")))
        return x + functional.linear(y, *affine(f"{name}.mlp.fc2"))

    embed = "model_down.patch_embed"
    x = functional.gelu(conv(f"{embed}.proj1.conv1", image_CZYX.movedim(0, -1), (2, 2, 2)))
    x = functional.gelu(conv(f"{embed}.proj1.conv2", norm(f"{embed}.proj1.norm1", x), 1))
    x = functional.gelu(conv(f"{embed}.proj2.conv1", norm(f"{embed}.proj1.norm2", x), (1, 2, 2)))
    x = norm(f"{embed}.norm", conv(f"{embed}.proj2.conv2", norm(f"{embed}.proj2.norm1", x), 1))
    skips = []
    for level, depth in enumerate(depths):
        for number in range(depth):
            x = block(f"model_down.layers.{level}.blocks.{number}", x, level, odd=number % 2 == 1)
        skips.append(norm(f"model_down.norm{level}", x))
        if level < len(depths) - 1:
            name = f"model_down.layers.{level}.downsample"
            x = conv(f"{name}.reduction", norm(f"{name}.norm", functional.gelu(x)), 2)
    x, outputs = skips.pop(), []
    for level in reversed(range(len(depths) - 1)):
        name = f"decoder.layers.{level}"
        up = norm(f"{name}.Upsample.norm", x).movedim(-1, 0)[None]
        x = functional.conv_transpose3d(up, *affine(f"{name}.Upsample.up"), stride=2)[0].movedim(0, -1)
        x = block(f"{name}.blocks.0", x, level, odd=False, skip=skips[level])
        for number in range(1, depths[level]):
            x = block(f"{name}.blocks.{number}", x, level, odd=True)
        outputs.append(
            functional.conv_transpose3d(x.movedim(-1, 0)[None], *affine(f"final.{level}.up"), stride=(2, 4, 4))
        )
    return outputs[::-1]


@pytest.mark.parametrize(
    "sizes",
    [
        {"channels": 2, "width": 12, "depths": (3, 1, 2, 1), "heads": (1, 2, 2, 4), "windows": (3, 2, 2, 1)},
        {"classes": 5, "width": 8, "depths": (1, 2, 1, 2), "heads": (4, 2, 4, 8), "windows": (5, 4, 2, 1)},
    ],
    ids=["padded and shifted", "windows as large as their stage"],
)
def test_other_configurations_follow_from_the_shapes(sizes):
    """Grids of 8x8x16 tokens: windows of 3 and 5 need padding; 4 of 4 and 2 of 2 are not shifted."""
    state = filled(shapes(**sizes))
    crop, grid = (16, 32, 64), (8, 8, 16)
    state["model_down.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(2, dtype=torch.long)
    network = from_official({"state_dict": state}, crop_size=crop)
    images_BCZYX = torch.randn(2, sizes.get("channels", 1), *crop, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answers = network(images_BCZYX)
        expected = as_the_layout_says(
            state, images_BCZYX[1], depths=sizes["depths"], windows=sizes["windows"], grid=grid
        )
    assert len(answers) == len(expected) == 3
    for answer_BKZYX, wanted_BKZYX in zip(answers, expected, strict=True):
        assert (answer_BKZYX[1:] - wanted_BKZYX).abs().max() <= TOLERANCE * wanted_BKZYX.abs().max()


def test_a_crop_smaller_than_its_windows_is_refused():
    with pytest.raises(InputError, match="window 4 in stage 1"):
        from_official(filled(shapes()), crop_size=(8, 32, 32))


@pytest.mark.parametrize("crop", [None, 64, "abc", [32, 64], [32.5, 64, 64], [0, 64, 64]], ids=str)
def test_a_crop_that_is_no_size_is_refused(crop):
    with pytest.raises(InputError, match=r"crop_size: found .*; expected three whole numbers of at least 1"):
        from_official(filled(shapes()), crop_size=crop)
