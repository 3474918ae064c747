"""Time the weight gradient of 3D convolutions beside PyTorch's own, on one core.

    OMP_NUM_THREADS=1 python -m benchmarks.weight_gradient

Each row is a 3x3x3 convolution of two cubes in channels last; a time is the least of several. The last column says
whether a training takes the other way there (`segbench.training.convolutions`), which asks for AVX2 without AVX-512.
"""

from __future__ import annotations

import itertools
import timeit
from collections.abc import Callable

import torch
from tabulate import tabulate
from torch.nn import functional

from segbench.training.convolutions import LAYOUT, QuickWeightGradient, pays

CHANNELS = [(8, 8), (16, 16), (32, 16), (32, 32), (64, 64)]
SIZES = [8, 16, 32]
REPEATS = 9


def gradient(inputs: int, outputs: int, size: int, *, padded: bool) -> Callable[[], None]:
    """Return what computes one weight gradient, of an input that is padded along z beforehand or not."""
    x_BIZYX = torch.randn(2, inputs, size, size, size).contiguous(memory_format=LAYOUT)
    weight_OIZYX = torch.randn(outputs, inputs, 3, 3, 3).contiguous(memory_format=LAYOUT)
    of_result_BOZYX = torch.randn(2, outputs, size, size, size).contiguous(memory_format=LAYOUT)
    pad_z = int(padded)

    def compute() -> None:
        own_BIZYX = functional.pad(x_BIZYX, (0, 0, 0, 0, pad_z, pad_z)) if padded else x_BIZYX
        torch.nn.grad.conv3d_weight(own_BIZYX, weight_OIZYX.shape, of_result_BOZYX, 1, (1 - pad_z, 1, 1))

    return compute


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    rows = []
    for (inputs, outputs), size in itertools.product(CHANNELS, SIZES):
        computes = (gradient(inputs, outputs, size, padded=padded) for padded in (False, True))
        own, other = (1e3 * min(timeit.repeat(compute, number=1, repeat=REPEATS)) for compute in computes)
        taken = "yes" if pays(pairs=inputs * outputs, voxels=size**3) else "no"
        rows.append([f"{inputs} to {outputs}", f"{size}x{size}x{size}", own, other, other / own, taken])
    headers = ["channels", "voxels", "PyTorch ms", "padded beforehand ms", "ratio", "taken"]
    print(tabulate(rows, headers, tablefmt="github", floatfmt=".2f"))
    print(f"{torch.backends.cpu.get_cpu_capability()}; a training here gains: {QuickWeightGradient.fits_processor()}")


if __name__ == "__main__":
    main()
