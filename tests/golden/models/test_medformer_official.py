"""MedFormer and both forms of Hermes at other sizes than the golden ones, against their layout step by step."""

from dataclasses import replace

import pytest
import torch

from models.baselines import hermes_original, medformer
from models.blocks.medformer import Sizes
from segbench.core.errors import InputError
from tests.golden.models import medformer_layout as plain
from tests.golden.models.official import TOLERANCE, filled

FLAT, CUBE = (1, 2, 2), (2, 2, 2)
SMALL = Sizes(
    base=4,
    widths=(6, 10, 12, 14, 12, 10, 6, 4),
    convolutions=(1, 0, 1, 2, 1, 0, 1, 2),
    attentions=(0, 1, 2, 1, 2, 2, 0, 0),
    heads=(1, 3, 2, 4, 5, 2, 1, 1),  # 3 of 10, 4 of 14 and 5 of 12 leave channels over
    tokens=5,
    fusion_width=9,
    fusion_depth=3,
    fusion_heads=2,
    expansion=2,
    kernels_zyx=((1, 3, 3), (3, 3, 3), (3, 3, 1), (3, 5, 3), (1, 1, 3)),
    scales_zyx=(FLAT, CUBE, (2, 1, 2), CUBE),
)
SIZES = [SMALL, replace(SMALL, expansion=1, activation="gelu", scales_zyx=(CUBE,) * 4)]
over_sizes = pytest.mark.parametrize("sizes", SIZES, ids=["kernels, scales and heads of all kinds", "GELU"])
TASKS, MODALITIES = [[3, 0, -1], [1, 1, 2]], [[1], [0]]


def images(channels, size_zyx=(16, 32, 32)):
    return torch.randn(2, channels, *size_zyx, generator=torch.Generator().manual_seed(1))


def state_of(network):
    """Return a filled state dict of the network's layout, whose names the golden files confirm."""
    return filled({name: list(tensor.shape) for name, tensor in network.state_dict().items()})


def arguments(sizes):
    """Return what shapes do not tell, by the names of the original's constructor."""
    return {
        "num_heads": list(sizes.heads),
        "fusion_heads": sizes.fusion_heads,
        "scale": [list(scale) for scale in sizes.scales_zyx],
        "act": sizes.activation,
    }


def layout_of(state, sizes, *, lists):
    return plain.Layout(
        state,
        scales=sizes.scales_zyx,
        heads=sizes.heads,
        fusion_heads=sizes.fusion_heads,
        lists=lists,
        gelu=sizes.activation == "gelu",
    )


def check(answers, expected):
    assert len(answers) == len(expected)
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer.shape == wanted.shape
        assert (answer - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


@over_sizes
@pytest.mark.parametrize("auxiliary", [True, False])
def test_medformer(sizes, auxiliary):
    state = state_of(medformer.MedFormer(sizes, channels=2, classes=3, auxiliary=auxiliary))
    network = medformer.from_official({"state_dict": state}, aux_loss=auxiliary, **arguments(sizes))
    with torch.no_grad():
        check(network(images(2)), plain.medformer(layout_of(state, sizes, lists=False), images(2)))


@over_sizes
def test_hermes_on_medformer(sizes):
    state = state_of(hermes_original.HermesMedFormer(sizes, channel_counts=[1], tasks=5, modalities=2))
    network = hermes_original.from_official({"state_dict": state}, **arguments(sizes))
    assert isinstance(network, hermes_original.HermesMedFormer)
    with torch.no_grad():
        expected = plain.medformer(layout_of(state, sizes, lists=True), images(1), TASKS, MODALITIES)
        check(network(images(1), TASKS, MODALITIES), expected)


@pytest.mark.parametrize("pool", [True, False])
def test_hermes_on_the_unet(pool):
    scales = (FLAT, CUBE, CUBE, (1, 1, 2))
    built = hermes_original.HermesUNet(
        base=10,
        channel_counts=[2],
        tasks=5,
        modalities=3,
        kernels_zyx=SMALL.kernels_zyx,
        scales_zyx=scales,
        blocks=(1, 2, 1, 3, 1, 2, 1, 1),
        exchanges=(1, 2, 1, 1, 2),
        pool=pool,
    )
    state = state_of(built)
    network = hermes_original.from_official(state, scale=[list(scale) for scale in scales], pool=pool, act="relu")
    assert isinstance(network, hermes_original.HermesUNet)
    with torch.no_grad():
        layout = plain.Layout(state, scales=scales, heads=(), fusion_heads=0, lists=True)
        expected = plain.unet(layout, images(2), TASKS, MODALITIES, pool=pool)
        check(network(images(2), TASKS, MODALITIES), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act": "swish"}, "act = 'swish'"),
        ({"norm": "bn"}, "norm = 'bn'"),
        ({"num_heads": [1, 2, 3]}, r"num_heads: found \[1, 2, 3\]; expected 8 whole numbers of at least 1"),
        ({"num_heads": 4}, "num_heads: found 4"),
        ({"num_heads": ["a"] * 8}, "num_heads: found"),
        ({"fusion_heads": "2"}, "fusion_heads: found '2'; expected a whole number"),
        ({"scale": 2}, "scale: found 2; expected 4 triples"),
        ({"scale": [[2, 2]] * 4}, "scale: found"),
        ({"num_heads": [1] * 7 + [99]}, "99 heads in up4"),
        ({"scale": [[2, 2, 2]] * 4}, r"scale \[2, 2, 2\] of down1"),
    ],
)
def test_what_shapes_cannot_tell_is_checked(change, message):
    state = state_of(medformer.MedFormer(SMALL, channels=1, classes=3))
    with pytest.raises(InputError, match=message):
        medformer.from_official(state, **(arguments(SMALL) | change))


@pytest.mark.parametrize("scale", [2, [[2, 2, 2]] * 3, [[2, 2]] * 4], ids=str)
def test_scales_of_hermes_on_the_unet_are_checked(scale):
    state = state_of(hermes_original.HermesUNet(base=4, channel_counts=[1], tasks=2, modalities=1))
    with pytest.raises(InputError, match=r"scale: found .*; expected 4 triples of whole numbers"):
        hermes_original.from_official(state, scale=scale)
