"""Which arithmetic a device gets."""

import pytest
import torch
from torch import nn

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
    for device in (CUDA, torch.device("mps"), torch.device("meta")):
        assert Arithmetic(device, "fast", "bfloat16").memory_format == torch.contiguous_format


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


def test_values_go_to_the_device_in_its_memory_format():
    arithmetic = Arithmetic(CPU, "exact", "float32")
    images = torch.rand(2, 3, 4, 4, 4)
    moved = arithmetic.to_device(images, arithmetic.memory_format)
    assert moved.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(moved, images)
