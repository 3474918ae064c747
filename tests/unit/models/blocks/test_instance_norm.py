"""Instance norm in any layout is PyTorch's, and the answer has the layout of the input."""

import pytest
import torch
from torch import nn

from models.blocks.instance_norm import InstanceNorm, instance_norm

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]


def both(batch, channels, layout, dtype, gradient_layout):
    torch.manual_seed(0)
    own, other = InstanceNorm(channels, eps=1e-5, affine=True), nn.InstanceNorm3d(channels, eps=1e-5, affine=True)
    nn.init.normal_(own.weight)
    nn.init.normal_(own.bias)
    assert other.load_state_dict(own.state_dict())
    values_BCZYX = torch.randn(batch, channels, 5, 4, 6).mul(3).add(2).to(dtype)
    gradient_BCZYX, found = torch.randn(batch, channels, 5, 4, 6), []
    for norm in (own, other.double()):
        x_BCZYX = values_BCZYX.to(norm.weight.dtype if norm is other else dtype, copy=True)
        x_BCZYX = x_BCZYX.to(memory_format=layout if norm is own else torch.contiguous_format).requires_grad_()
        y_BCZYX = norm(x_BCZYX)
        own_layout = gradient_layout if norm is own else torch.contiguous_format
        y_BCZYX.backward(gradient_BCZYX.to(y_BCZYX.dtype, memory_format=own_layout))
        found.append((y_BCZYX, x_BCZYX.grad, norm.weight.grad, norm.bias.grad))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gradient_layout", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 3, 8, 16, 40])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_answer_and_gradients_are_those_of_pytorch(batch, channels, layout, gradient_layout, dtype):
    own, expected = both(batch, channels, layout, dtype, gradient_layout)
    allowed = 1e-5 if dtype == torch.float32 else 1e-2
    for value, other in zip(own, expected, strict=True):
        assert (value - other).norm() <= allowed * other.norm()
    assert own[0].dtype == dtype
    assert own[0].is_contiguous(memory_format=layout)


def test_float64_in_channels_last_is_normed_by_pytorch():
    x_BCZYX = torch.randn(2, 16, 3, 4, 5, dtype=torch.float64).to(memory_format=torch.channels_last_3d)
    normed_BCZYX = instance_norm(x_BCZYX, eps=1e-5)
    torch.testing.assert_close(normed_BCZYX, nn.functional.instance_norm(x_BCZYX))
    assert normed_BCZYX.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [4, 32])
def test_one_voxel_is_refused(channels, layout):
    with pytest.raises(ValueError, match="more than 1"):
        instance_norm(torch.zeros(1, channels, 1, 1, 1).to(memory_format=layout), eps=1e-5)


def test_tokens_are_normed_as_well():
    tokens_BCN = torch.randn(2, 32, 7)
    torch.testing.assert_close(instance_norm(tokens_BCN, eps=1e-5).mean(2), torch.zeros(2, 32), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_large_and_constant_volumes_are_as_accurate(dtype, spread):
    torch.manual_seed(0)
    values_BCZYX = (1 / 3 + spread * torch.randn(1, 16, 60, 64, 64)).to(dtype)
    own_BCZYX = instance_norm(values_BCZYX.to(memory_format=torch.channels_last_3d), eps=1e-5)
    expected_BCZYX = nn.functional.instance_norm(values_BCZYX.double(), eps=1e-5)
    allowed = 1e-4 if dtype == torch.float32 else 1e-2
    assert (own_BCZYX - expected_BCZYX).abs().max() <= allowed * (1 + expected_BCZYX.abs().max())


def test_without_batch_axis_it_is_pytorchs_layer():
    x_CZYX = torch.randn(16, 3, 4, 5)
    own, other = InstanceNorm(16), nn.InstanceNorm3d(16)
    assert torch.equal(own(x_CZYX), other(x_CZYX))


def test_no_gradient_is_made_that_nobody_needs():
    x_BCZYX = torch.randn(2, 16, 3, 4, 5).to(memory_format=torch.channels_last_3d)
    norm = InstanceNorm(16, affine=True).requires_grad_(False)
    x_BCZYX.requires_grad_()
    norm(x_BCZYX).sum().backward()
    assert x_BCZYX.grad is not None
    assert norm.weight.grad is None


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("channels", [4, 16])
def test_an_activation_in_place_copies_no_gradient(layout, channels):
    x_BCZYX = torch.randn(2, channels, 3, 4, 5).to(memory_format=layout).requires_grad_()
    normed_BCZYX = InstanceNorm(channels, affine=True)(x_BCZYX)
    assert "LeakyRelu" in nn.functional.leaky_relu_(normed_BCZYX).grad_fn.name()  # of a view it is a chain of copies
