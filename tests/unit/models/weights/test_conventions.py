"""Weights that saw other axes and intensities see them again; outputs come back in z, y, x."""

import numpy as np
import pytest
import torch

from models.interface import NetworkSpec
from models.loader import build_model
from models.weights.conventions import Convention, InConvention, Scale, scale_between
from segbench.core.task import TaskSet
from tests.unit.models.small import make_task

TASK = make_task("toy", ("spleen",), channels=1)
SPEC = NetworkSpec(
    patch_size_zyx=(8, 16, 24),
    base_features=4,
    max_features=8,
    pool_kernels_zyx=((1, 2, 2), (2, 2, 2)),
    conv_kernels_zyx=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
)


def pair(axes, scales=()):
    convention = Convention(axes, scales)
    torch.manual_seed(1)
    network = build_model("single_task", TaskSet([TASK]), convention.spec(SPEC)).eval()
    return network, InConvention(network, SPEC, convention).eval()


@pytest.mark.parametrize(("axes", "order"), [("xyz", (4, 3, 2)), ("zxy", (2, 4, 3)), ("yxz", (3, 4, 2))])
def test_the_network_sees_its_own_order_and_answers_in_ours(axes, order):
    network, wrapped = pair(axes)
    images_BCZYX = torch.randn(1, 1, 8, 16, 24)
    expected = network(images_BCZYX.permute(0, 1, *order), TASK)
    back = [0, 1, *(2 + order.index(axis) for axis in (2, 3, 4))]
    for found, other in zip(wrapped(images_BCZYX, TASK), expected, strict=True):
        torch.testing.assert_close(found, other.permute(back))
    assert wrapped(images_BCZYX, TASK)[0].shape[2:] == (8, 16, 24)


def test_kernels_are_turned_with_the_patch():
    assert Convention("xyz").spec(SPEC).pool_kernels_zyx[0] == (2, 2, 1)
    assert Convention("zxy").spec(SPEC).patch_size_zyx == (8, 24, 16)


@pytest.mark.parametrize("own", [(-325.0, 650.0), (100.0, 80.0)])
def test_ct_gets_the_values_that_the_weights_saw(own):
    hu = np.array([-1000.0, -175.0, 0.0, 250.0, 900.0])
    values = torch.as_tensor((hu - own[0]) / own[1])
    scale = scale_between(own, (-175, 250), (-1, 1))
    assert isinstance(scale, Scale)
    found = (values * scale.factor + scale.offset).clamp(scale.low, scale.high)
    np.testing.assert_allclose(found, np.interp(hu, [-175, 250], [-1, 1]), atol=1e-9)


def test_the_same_window_needs_no_scale():
    assert scale_between((-325.0, 650.0), (-325, 325), (0, 1)) is None
    assert Convention("zyx", (None,)).changes_nothing


def test_channels_are_scaled_apart_inside_the_wrapper():
    network, wrapped = pair("zyx", (Scale(2.0, -1.0, -1.0, 1.0),))
    images_BCZYX = torch.rand(1, 1, 8, 16, 24) * 2
    expected = network((images_BCZYX * 2 - 1).clamp(-1, 1), TASK)[0]
    torch.testing.assert_close(wrapped(images_BCZYX, TASK)[0], expected)
