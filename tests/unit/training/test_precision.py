"""Which arithmetic a device gets, and convolutions that are undefined in bfloat16."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from segbench.experiment.config import Training
from segbench.training.precision import Arithmetic, chosen_arithmetic

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Machine:
    """A processor and a GPU with or without bfloat16."""

    def __init__(self, monkeypatch, *, processor: bool, gpu: bool):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: processor, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: gpu or including_emulation
        )


@pytest.mark.parametrize(
    ("device", "has_bfloat16", "mode", "precision"),
    [
        (CPU, True, "exact", "bfloat16"),
        (CPU, False, "exact", "float32"),
        (CUDA, True, "fast", "bfloat16"),
        (CUDA, False, "fast", "float16"),
        (torch.device("mps"), True, "fast", "float32"),
    ],
)
def test_auto_follows_the_device(monkeypatch, device, has_bfloat16, mode, precision):
    Machine(monkeypatch, processor=has_bfloat16, gpu=has_bfloat16)
    assert chosen_arithmetic(Training(), device) == Arithmetic(device, mode, precision)


def test_amx_counts_as_bfloat16(monkeypatch):
    Machine(monkeypatch, processor=False, gpu=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert chosen_arithmetic(Training(), CPU).precision == "bfloat16"


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_what_is_asked_for_is_taken(precision, mode):
    found = chosen_arithmetic(Training(precision=precision, mode=mode), CPU)
    assert (found.precision, found.mode) == (precision, mode)


def test_the_memory_format_follows_the_device():
    assert chosen_arithmetic(Training(), CPU).memory_format == torch.channels_last_3d
    assert Arithmetic(CUDA, "fast", "bfloat16").memory_format == torch.contiguous_format


@pytest.mark.parametrize(("mode", "deterministic"), [("exact", True), ("fast", False)])
def test_the_switches_of_a_mode_are_set_and_set_back(mode, deterministic):
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with Arithmetic(CPU, mode, "float32").switched_on():
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert torch.backends.cudnn.benchmark is not deterministic
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_convolution_is_computed_in_the_precision(precision):
    layer = nn.Conv3d(2, 4, 3, padding=1)
    with Arithmetic(CPU, "exact", precision).autocast():
        assert layer(torch.ones(1, 2, 4, 4, 4)).dtype == getattr(torch, precision)
    assert layer(torch.ones(1, 2, 4, 4, 4)).dtype == torch.float32


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


def test_values_go_to_the_device_in_its_memory_format():
    arithmetic = Arithmetic(CPU, "exact", "float32")
    images = torch.rand(2, 3, 4, 4, 4)
    moved = arithmetic.to_device(images, arithmetic.memory_format)
    assert moved.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(moved, images)
