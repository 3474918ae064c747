"""Convolutions that are undefined in bfloat16, and weight gradients from inputs padded beforehand."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from models.loader import build_model
from segbench.training.convolutions import QuickWeightGradient
from segbench.training.precision import Arithmetic
from tests.unit.models.small import LIVER, SPEC, TASKS, images

CPU = torch.device("cpu")
LAYOUT = torch.channels_last_3d


NARROW = [((2, 4, 4), (3, 3, 3)), ((4, 1, 4), (3, 3, 3)), ((4, 4, 1), (3, 3, 3)), ((9, 1, 9), (1, 3, 3))]
WIDE = [((3, 2, 2), (3, 3, 3)), ((1, 3, 3), (1, 3, 3)), ((1, 1, 1), (1, 1, 1)), ((16, 8, 4), (3, 3, 3))]


@pytest.mark.parametrize(
    ("size_zyx", "kernel_zyx", "dtype"),
    [(*item, torch.float32) for item in NARROW] + [(*item, torch.bfloat16) for item in WIDE],
)
@pytest.mark.parametrize("named", [False, True])
def test_an_input_too_small_for_the_kernel_stays_in_float32(size_zyx, kernel_zyx, dtype, named):
    images = torch.ones(1, 2, *size_zyx)
    weight = torch.ones(4, 2, *kernel_zyx, requires_grad=True)
    padding = [size // 2 for size in kernel_zyx]
    with Arithmetic(CPU, "exact", "bfloat16").autocast():
        if named:
            found = functional.conv3d(input=images, weight=weight, padding=padding)
        else:
            found = functional.conv3d(images, weight, None, 1, padding)
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16, "what follows is in bfloat16 again"
        assert torch.is_autocast_enabled("cpu")
    assert found.dtype == dtype


@pytest.mark.parametrize(("size_zyx", "stride"), [((16, 1, 6), 2), ((4, 6, 1), 2), ((2, 6, 6), 1), ((2, 8, 8), 1)])
@pytest.mark.parametrize("channels", [(8, 16), (4, 8)])
def test_gradients_of_small_layers_are_those_of_float32(size_zyx, stride, channels):
    """Where oneDNN's bfloat16 leaves memory unwritten; PyTorch fills it with NaN in deterministic mode."""
    inputs, outputs = channels
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, inputs, *size_zyx, generator=generator).contiguous(memory_format=torch.channels_last_3d)
    gradients = {}
    for precision in ("float32", "bfloat16"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layer = nn.Conv3d(inputs, outputs, 3, stride, 1).to(memory_format=torch.channels_last_3d)
        arithmetic = Arithmetic(CPU, "exact", precision)
        with arithmetic.switched_on():
            with arithmetic.autocast():
                found = layer(images)
            found.float().square().mean().backward()
        gradients[precision] = layer.weight.grad
    torch.testing.assert_close(gradients["bfloat16"], gradients["float32"], rtol=0.02, atol=0.02)


PADDED = "_PaddedWeightGradientBackward"


def convolved(values, *others, quick, dtype=torch.float32, **named):
    """Return the name of the backward pass, the result, and the gradient of each tensor."""
    own = [None if value is None else value.to(dtype, memory_format=torch.preserve_format) for value in values]
    own = [None if value is None else value.detach().clone().requires_grad_() for value in own]
    if quick:
        with QuickWeightGradient():
            found = functional.conv3d(*own, *others, **named)
    else:
        found = functional.conv3d(*own, *others, **named)
    found.square().sum().backward()
    return type(found.grad_fn).__name__, found.detach(), [None if value is None else value.grad for value in own]


@pytest.mark.parametrize("inputs", [1, 2, 8, 16])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    ("size_zyx", "kernel_zyx", "stride", "padding"),
    [
        ((6, 5, 7), (3, 3, 3), 1, 1),
        ((6, 8, 4), (3, 3, 3), 2, 1),
        ((6, 8, 4), (3, 3, 3), (1, 2, 2), (1, 1, 1)),
        ((1, 4, 4), (3, 3, 3), 1, 1),
        ((5, 6, 6), (5, 3, 3), 1, (2, 1, 1)),
        ((8, 8, 8), (7, 7, 7), 2, 3),
        ((4, 4, 4), (3, 1, 1), 1, (1, 0, 0)),
    ],
)
def test_only_the_weight_gradient_is_computed_another_way(inputs, with_bias, size_zyx, kernel_zyx, stride, padding):
    generator = torch.Generator().manual_seed(0)
    x_BIZYX = torch.randn(2, inputs, *size_zyx, generator=generator).contiguous(memory_format=LAYOUT)
    weight_OIZYX = torch.randn(8, inputs, *kernel_zyx, generator=generator).contiguous(memory_format=LAYOUT)
    bias_O = torch.randn(8, generator=generator) if with_bias else None
    values = (x_BIZYX, weight_OIZYX, bias_O)
    name, found, (of_x, *of_parameters) = convolved(values, stride, padding, quick=True)
    _, plain, (plain_of_x, *_) = convolved(values, stride, padding, quick=False)
    _, _, (_, *expected) = convolved(values, stride, padding, quick=False, dtype=torch.float64)
    assert name == PADDED
    assert torch.equal(found, plain)
    assert torch.equal(of_x, plain_of_x)
    for own, reference in zip(of_parameters, expected, strict=True):
        if reference is not None:
            torch.testing.assert_close(own.double(), reference, rtol=1e-4, atol=1e-5 * float(reference.abs().max()))
        else:
            assert own is None


@pytest.mark.parametrize(
    "changes",
    [
        {"padding": 0},
        {"padding": (0, 1, 1)},
        {"padding": "same"},
        {"padding": 1, "groups": 2},
        {"padding": 2, "dilation": 2},
    ],
)
def test_other_convolutions_stay_as_they_are(changes):
    x_BIZYX = torch.randn(1, 4, 6, 6, 6).contiguous(memory_format=LAYOUT)
    weight_OIZYX = torch.randn(4, 4 // changes.get("groups", 1), 3, 3, 3)
    name, found, _ = convolved((x_BIZYX, weight_OIZYX, None), quick=True, **changes)
    assert name != PADDED
    assert torch.equal(found, functional.conv3d(x_BIZYX, weight_OIZYX, **changes))


@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "padded"),
    [(16, 16, 24, True), (32, 16, 4, True), (64, 64, 4, True), (32, 16, 24, False), (64, 64, 10, False)],
)
def test_wide_convolutions_of_large_volumes_stay_as_they_are(inputs, outputs, size, padded):
    x_BIZYX = torch.randn(1, inputs, size, size, size).contiguous(memory_format=LAYOUT)
    name, *_ = convolved((x_BIZYX, torch.randn(outputs, inputs, 3, 3, 3), None), padding=1, quick=True)
    assert (name == PADDED) is padded


def test_without_a_gradient_nothing_is_kept():
    layer = nn.Conv3d(4, 4, 3, padding=1)
    x_BIZYX = torch.randn(1, 4, 6, 6, 6)
    with QuickWeightGradient(), torch.no_grad():
        assert layer(x_BIZYX).grad_fn is None
    layer.requires_grad_(False)
    with QuickWeightGradient():
        assert type(layer(x_BIZYX.requires_grad_()).grad_fn).__name__ != PADDED


@pytest.mark.parametrize(
    ("capability", "precision", "quick"),
    [("AVX2", "float32", True), ("AVX512", "float32", False), ("AVX2", "bfloat16", False)],
)
def test_processors_with_avx2_gain_in_float32(monkeypatch, capability, precision, quick):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    layer = nn.Conv3d(4, 4, 3, padding=1).to(memory_format=LAYOUT)
    with Arithmetic(CPU, "exact", precision).autocast():
        found = layer(torch.randn(1, 4, 6, 6, 6).contiguous(memory_format=LAYOUT))
    assert (type(found.grad_fn).__name__ == PADDED) is quick


@pytest.mark.parametrize("name", ["uniseg", "nnunet_plain"])
def test_networks_have_the_same_gradients(monkeypatch, name):
    found = {}
    for capability in ("AVX2", "AVX512"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        torch.manual_seed(0)
        model = build_model(name, TASKS if name == "uniseg" else [LIVER], SPEC).to(memory_format=LAYOUT).train()
        with Arithmetic(CPU, "exact", "float32").autocast():
            sum(logits.square().mean() for logits in model(images(), LIVER)).backward()
        found[capability] = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    assert len(found["AVX2"]) > 10
    torch.testing.assert_close(found["AVX2"], found["AVX512"], rtol=1e-3, atol=1e-5)
