"""Convolutions that are undefined in bfloat16, weight gradients from padded inputs, and samples that are alone."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.profiler import profile

from models.loader import build_model
from segbench.inference.convolutions import QuickFloat32
from segbench.inference.precision import autocast
from segbench.training.precision import Arithmetic
from tests.unit.models.small import LIVER, SPEC, TASKS, images

CPU = torch.device("cpu")
LAYOUT = torch.channels_last_3d


@pytest.fixture(autouse=True)
def processor_with_avx2(monkeypatch):
    """What is computed another way depends on the processor; the tests do not."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


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


PADDED, OF_ONE = "_PaddedWeightGradientBackward", "_ConvolutionOfOneBackward"


def convolved(values, *others, quick, wanted=(True,) * 3, dtype=torch.float32, **named):
    """Return the name of the backward pass, the result, and the gradient of each tensor."""
    own = [None if value is None else value.to(dtype, memory_format=torch.preserve_format) for value in values]
    own = [None if value is None else value.detach().clone() for value in own]
    for value, needed in zip(own, wanted, strict=True):
        if value is not None:
            value.requires_grad_(needed)
    if quick:
        with QuickFloat32():
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


@pytest.mark.parametrize("layout", [LAYOUT, torch.contiguous_format])
@pytest.mark.parametrize("trained", ["all", "weight", "input"])
@pytest.mark.parametrize(
    ("size_zyx", "kernel_zyx", "stride", "padding"),
    [
        ((6, 5, 7), (3, 3, 3), 1, 1),
        ((7, 5, 6), (3, 3, 3), 1, 0),
        ((6, 8, 4), (3, 3, 3), 2, 1),
        ((7, 8, 4), (3, 3, 3), (3, 2, 2), (1, 1, 1)),
        ((1, 4, 4), (3, 3, 3), 1, 1),
        ((5, 6, 6), (1, 3, 3), 1, (0, 1, 1)),
        ((9, 6, 6), (5, 1, 3), (2, 1, 1), (2, 0, 1)),
    ],
)
def test_a_sample_that_is_alone_has_the_gradients_of_its_halves(size_zyx, kernel_zyx, stride, padding, trained, layout):
    generator = torch.Generator().manual_seed(0)
    x_BIZYX = torch.randn(1, 4, *size_zyx, generator=generator).contiguous(memory_format=layout)
    weight_OIZYX = torch.randn(8, 4, *kernel_zyx, generator=generator).contiguous(memory_format=layout)
    values = (x_BIZYX, weight_OIZYX, torch.randn(8, generator=generator) if trained == "all" else None)
    wanted = {"all": (True, True, True), "weight": (False, True, False), "input": (True, False, False)}[trained]
    name, found, gradients = convolved(values, stride, padding, quick=True, wanted=wanted)
    _, expected, others = convolved(values, stride, padding, quick=False, wanted=wanted, dtype=torch.float64)
    assert name == OF_ONE
    for own, reference in zip([found, *gradients], [expected, *others], strict=True):
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
@pytest.mark.parametrize("samples", [1, 2])
def test_other_convolutions_stay_as_they_are(samples, changes):
    x_BIZYX = torch.randn(samples, 4, 6, 6, 6).contiguous(memory_format=LAYOUT)
    weight_OIZYX = torch.randn(4, 4 // changes.get("groups", 1), 3, 3, 3)
    name, found, _ = convolved((x_BIZYX, weight_OIZYX, None), quick=True, **changes)
    expected = functional.conv3d(x_BIZYX, weight_OIZYX, **changes)
    if samples == 1 and not isinstance(changes["padding"], str) and len(changes) == 1:
        assert name == OF_ONE
        torch.testing.assert_close(found, expected)
    else:
        assert name not in (PADDED, OF_ONE)
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "padded"),
    [(16, 16, 24, True), (32, 16, 4, True), (64, 64, 4, True), (32, 16, 24, False), (64, 64, 10, False)],
)
def test_wide_convolutions_of_large_volumes_stay_as_they_are(inputs, outputs, size, padded):
    x_BIZYX = torch.randn(2, inputs, size, size, size).contiguous(memory_format=LAYOUT)
    name, *_ = convolved((x_BIZYX, torch.randn(outputs, inputs, 3, 3, 3), None), padding=1, quick=True)
    assert (name == PADDED) is padded


@pytest.mark.parametrize(
    ("size_zyx", "kernel_zyx", "alone"),
    [
        ((32, 40, 1), (3, 3, 3), True),
        ((32, 41, 1), (3, 3, 3), False),
        ((8, 8, 8), (1, 1, 1), False),
        ((8, 8, 8), (3, 1, 1), False),
        ((8, 8, 8), (5, 5, 5), False),
    ],
)
def test_what_pytorch_gives_to_onednn_by_itself_stays_as_it_is(size_zyx, kernel_zyx, alone):
    """The limit is that of PyTorch: 16 channels, 32 planes and 40 rows are computed without oneDNN."""
    x_BIZYX = torch.randn(1, 16, *size_zyx)
    padding = [size // 2 for size in kernel_zyx]
    name, *_ = convolved((x_BIZYX, torch.randn(1, 16, *kernel_zyx), None), padding=padding, quick=True)
    assert (name == OF_ONE) is alone
    with profile() as recorded:
        functional.conv3d(x_BIZYX, torch.randn(1, 16, *kernel_zyx), padding=padding)
    without = "aten::slow_conv3d" in {event.key for event in recorded.key_averages()}
    assert without is alone or max(kernel_zyx[1:]) == 1


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("two", [2, [2], (2,), torch.Size([2]), [2, 2, 2], np.int64(2), (np.int64(2),) * 3])
def test_numbers_of_the_axes_are_given_as_to_pytorch(two, samples):
    x_BIZYX = torch.randn(samples, 4, 7, 6, 8).contiguous(memory_format=LAYOUT)
    values = x_BIZYX, torch.randn(8, 4, 3, 3, 3), torch.randn(8)
    name, found, gradients = convolved(values, two, two, quick=True)
    _, expected, others = convolved(values, two, two, quick=False, dtype=torch.float64)
    assert name == (OF_ONE if samples == 1 else PADDED)
    for own, reference in zip([found, *gradients], [expected, *others], strict=True):
        torch.testing.assert_close(own.double(), reference, rtol=1e-4, atol=1e-5 * float(reference.abs().max()))


@pytest.mark.parametrize("shape", [(0, 4, 6, 6, 6), (1, 0, 6, 6, 6), (2, 0, 6, 6, 6)])
def test_nothing_is_convolved_as_by_pytorch(shape):
    x_BIZYX, weight_OIZYX = torch.zeros(shape), torch.zeros(8, shape[1], 3, 3, 3, requires_grad=True)
    with QuickFloat32():
        found = functional.conv3d(x_BIZYX, weight_OIZYX, padding=1)
    assert found.shape == functional.conv3d(x_BIZYX, weight_OIZYX, padding=1).shape


def test_without_a_gradient_nothing_is_kept():
    layer = nn.Conv3d(4, 4, 3, padding=1)
    for samples in (1, 2):
        x_BIZYX = torch.randn(samples, 4, 6, 6, 6)
        with QuickFloat32(), torch.no_grad():
            assert layer(x_BIZYX).grad_fn is None
    layer.requires_grad_(False)
    with QuickFloat32():
        assert type(layer(x_BIZYX.requires_grad_()).grad_fn).__name__ != PADDED


@pytest.mark.parametrize(
    ("capability", "precision", "quick"),
    [
        ("AVX2", "float32", {PADDED, OF_ONE}),
        ("AVX512", "float32", {OF_ONE}),
        ("DEFAULT", "float32", set()),
        ("AVX2", "bfloat16", set()),
    ],
)
def test_processors_of_x86_gain_in_float32(monkeypatch, capability, precision, quick):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    layer = nn.Conv3d(4, 4, 3, padding=1).to(memory_format=LAYOUT)
    for context in (Arithmetic(CPU, "exact", precision).autocast(), autocast(CPU, precision)):
        with context:
            found = [layer(torch.randn(n, 4, 6, 6, 6).contiguous(memory_format=LAYOUT)) for n in (1, 2)]
        assert {type(values.grad_fn).__name__ for values in found} & {PADDED, OF_ONE} == quick


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", [LAYOUT, torch.contiguous_format])
def test_pytorchs_instance_norm_of_one_sample_has_the_right_gradient(layout, precision):
    torch.manual_seed(0)
    norm, values_BCZYX, gradient_BCZYX = nn.InstanceNorm3d(3), torch.randn(1, 3, 4, 5, 6), torch.randn(1, 3, 4, 5, 6)
    exact_BCZYX = values_BCZYX.double().requires_grad_()
    norm(exact_BCZYX).backward(gradient_BCZYX.double())
    x_BCZYX = values_BCZYX.contiguous(memory_format=layout).requires_grad_()
    with Arithmetic(CPU, "exact", precision).autocast():
        normed_BCZYX = norm(x_BCZYX)
    normed_BCZYX.backward(gradient_BCZYX.contiguous(memory_format=LAYOUT))
    torch.testing.assert_close(x_BCZYX.grad, exact_BCZYX.grad.float())


def as_tokens_were(values_BCZYX):
    """Return the same numbers in a view of tokens, whose stride along the batch is another one."""
    return values_BCZYX.flatten(2).transpose(1, 2).contiguous().transpose(1, 2).reshape(values_BCZYX.shape)


LAYOUTS = [as_tokens_were, torch.Tensor.contiguous, lambda values: values.contiguous(memory_format=LAYOUT)]


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("of_gradient", LAYOUTS)
@pytest.mark.parametrize("of_input", LAYOUTS)
@pytest.mark.parametrize("norm", [nn.BatchNorm3d(8), nn.BatchNorm3d(8).eval(), nn.InstanceNorm3d(8)])
def test_pytorchs_norms_have_the_right_gradient_beside_tokens(norm, of_input, of_gradient, samples):
    torch.manual_seed(0)
    values_BCZYX, gradient_BCZYX = torch.randn(samples, 8, 3, 4, 5), torch.randn(samples, 8, 3, 4, 5)
    exact_BCZYX = values_BCZYX.double().requires_grad_()
    copy.deepcopy(norm).double()(exact_BCZYX).backward(gradient_BCZYX.double())
    x_BCZYX = of_input(values_BCZYX).detach().requires_grad_()
    with Arithmetic(CPU, "exact", "float32").autocast():
        normed_BCZYX = copy.deepcopy(norm)(x_BCZYX)
    normed_BCZYX.backward(of_gradient(gradient_BCZYX))
    torch.testing.assert_close(x_BCZYX.grad, exact_BCZYX.grad.float())


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
