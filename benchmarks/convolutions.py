"""Time 3D convolutions in float32 beside PyTorch's own, on one core.

    OMP_NUM_THREADS=1 python -m benchmarks.convolutions

Each row is a 3x3x3 convolution of cubes in channels last; a time is the least of several. The first table is of one
cube, forward and with all gradients. The second is of the weight gradient of two cubes; its last column says whether a
training takes the other way there (`segbench.inference.convolutions`), which asks for AVX2 without AVX-512.
"""

from __future__ import annotations

import contextlib
import itertools
import timeit
from collections.abc import Callable

import torch
from tabulate import tabulate
from torch import Tensor
from torch.nn import functional

from segbench.inference.convolutions import LAYOUT, UNPADDED, QuickFloat32, pays

CHANNELS = [(8, 8), (16, 16), (32, 16), (32, 32), (64, 64)]
SIZES = [8, 16, 32]
REPEATS = 9


def cubes(samples: int, channels: int, size: int) -> Tensor:
    """Return random features."""
    return torch.randn(samples, channels, size, size, size).contiguous(memory_format=LAYOUT)


def kernels(inputs: int, outputs: int) -> Tensor:
    """Return random weights."""
    return torch.randn(outputs, inputs, 3, 3, 3).contiguous(memory_format=LAYOUT)


def one_cube(inputs: int, outputs: int, size: int, *, trained: bool, quick: bool) -> Callable[[], None]:
    """Return what computes a convolution of one cube, and its gradients where it is trained."""
    x_BIZYX, weight_OIZYX = cubes(1, inputs, size), kernels(inputs, outputs)
    of_result_BOZYX = cubes(1, outputs, size)
    if trained:
        x_BIZYX.requires_grad_()
        weight_OIZYX.requires_grad_()

    def compute() -> None:
        with QuickFloat32() if quick else contextlib.nullcontext():
            result_BOZYX = functional.conv3d(x_BIZYX, weight_OIZYX, padding=1)
        if trained:
            torch.autograd.grad(result_BOZYX, (x_BIZYX, weight_OIZYX), of_result_BOZYX)

    return compute


def weight_gradient(inputs: int, outputs: int, size: int, *, padded: bool) -> Callable[[], None]:
    """Return what computes the weight gradient of two cubes, padded along z beforehand or not."""
    x_BIZYX, of_result_BOZYX = cubes(2, inputs, size), cubes(2, outputs, size)
    shape, pad_z = kernels(inputs, outputs).shape, int(padded)

    def compute() -> None:
        own_BIZYX = functional.pad(x_BIZYX, (0, 0, 0, 0, pad_z, pad_z)) if padded else x_BIZYX
        torch.nn.grad.conv3d_weight(own_BIZYX, shape, of_result_BOZYX, 1, (1 - pad_z, 1, 1))

    return compute


def milliseconds(compute: Callable[[], None]) -> float:
    """Return the least of several times."""
    return 1e3 * min(timeit.repeat(compute, number=1, repeat=REPEATS))


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    of_one, of_gradient = [], []
    for (inputs, outputs), size in itertools.product(CHANNELS, SIZES):
        names, sizes = [f"{inputs} to {outputs}", size], (inputs, outputs, size)
        row = []
        for trained in (False, True):
            own, other = (milliseconds(one_cube(*sizes, trained=trained, quick=quick)) for quick in (False, True))
            row += [own, other, other / own]
        of_one.append(names + row)
        own, other = (milliseconds(weight_gradient(*sizes, padded=padded)) for padded in (False, True))
        taken = "yes" if pays(pairs=inputs * outputs, voxels=size**3) else "no"
        of_gradient.append([*names, own, other, other / own, taken])
    forward, trained = ["forward ms", "segbench ms", "ratio"], ["with gradients ms", "segbench ms", "ratio"]
    print(tabulate(of_one, ["channels", "cube", *forward, *trained], tablefmt="github", floatfmt=".2f"))
    print()
    headers = ["channels", "cube", "PyTorch ms", "padded beforehand ms", "ratio", "taken"]
    print(tabulate(of_gradient, headers, tablefmt="github", floatfmt=".2f"))
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"{capability}; weight gradients of a training are padded beforehand here: {capability == UNPADDED}")


if __name__ == "__main__":
    main()
