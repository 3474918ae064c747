"""Numbers of the host on the device of a network; that a GPU is not waited for is seen on a GPU only."""

import torch

from models.blocks.placement import on_device


def test_whole_numbers_and_tensors_arrive_as_they_are():
    assert torch.equal(on_device([2, 0], torch.device("cpu")), torch.tensor([2, 0]))
    values = torch.rand(2, 3)
    assert on_device(values, torch.device("cpu")) is values
    assert on_device(values, torch.device("cpu"), dtype=torch.float64).dtype == torch.float64
    assert on_device(values, torch.device("meta")).device.type == "meta"


def test_a_copy_to_a_gpu_starts_from_page_locked_memory_and_waits_for_nothing():
    class Values:
        device = torch.device("cpu")
        calls: list = []

        def pin_memory(self):
            self.calls.append("pinned")
            return self

        def to(self, device, **options):
            self.calls.append((device, options))
            return self

    on_device(Values(), torch.device("cuda"), memory_format=torch.contiguous_format)
    converted = ("cpu", {"memory_format": torch.contiguous_format})
    assert Values.calls == [converted, "pinned", (torch.device("cuda"), {"non_blocking": True})]
