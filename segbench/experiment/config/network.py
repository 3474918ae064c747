"""Section `network`: the size of every network."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydantic import Field

from segbench.core.errors import Problem
from segbench.experiment.config.section import Check, Section, Triple


class Network(Section):
    """Size of every network, so that only the concept under test differs."""

    patch_size_zyx: Triple = Field((64, 192, 192), description="Training and inference patch in voxels.")
    base_features: int = Field(32, ge=4, description="Width of the first stage.")
    max_features: int = Field(320, ge=4, description="Largest width, at least `base_features`.")
    pool_kernels_zyx: tuple[Triple, ...] = Field(
        ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)), description="One down-sampling kernel per stage."
    )
    conv_kernels_zyx: tuple[Triple, ...] = Field(
        ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        description="One convolution kernel of odd sizes per stage, one more than there are poolings.",
    )


def _features(network: Network) -> Iterator[Problem]:
    if network.max_features < network.base_features:
        expected = f"at least base_features, {network.base_features}"
        yield Problem(
            "network.max_features", str(network.max_features), expected, "widen it, or narrow the first stage"
        )


def _kernels(network: Network) -> Iterator[Problem]:
    key, stages = "network.conv_kernels_zyx", len(network.pool_kernels_zyx) + 1
    if len(network.conv_kernels_zyx) != stages:
        found, expected = f"{len(network.conv_kernels_zyx)} kernels", f"{stages}, one more than pool_kernels_zyx"
        yield Problem(key, found, expected, "add or remove a kernel")
    even = [kernel for kernel in network.conv_kernels_zyx if any(size % 2 == 0 for size in kernel)]
    if even:
        yield Problem(key, f"{list(even[0])}", "odd sizes, which keep the grid", "use 1 or 3 along each axis")


def _patch(network: Network) -> Iterator[Problem]:
    key = "network.patch_size_zyx"
    factors = [math.prod(kernel[axis] for kernel in network.pool_kernels_zyx) for axis in range(3)]
    if list(network.patch_size_zyx) == factors:
        found, expected = f"{factors}, pooled to one position", "at least two, to normalise over them"
        yield Problem(key, found, expected, "double one axis, or pool once less")
    for letter, size, factor in zip("zyx", network.patch_size_zyx, factors, strict=True):
        if size < factor or size % factor:
            fix = f"try {max(factor, round(size / factor) * factor)}"
            yield Problem(key, f"{size} along {letter}", f"a positive multiple of {factor}", fix)


CHECKS = (
    Check(("network.base_features", "network.max_features"), _features, "network"),
    Check(("network.conv_kernels_zyx", "network.pool_kernels_zyx"), _kernels, "network"),
    Check(("network.patch_size_zyx", "network.pool_kernels_zyx"), _patch, "network"),
)
