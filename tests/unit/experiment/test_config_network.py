"""Section `network`: sizes that a network can have."""

import pytest

from tests.unit.experiment.configs import changed, only


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("patch_size_zyx", [8, 8, 8], "pooled to one position"),
        ("patch_size_zyx", [32, 36, 32], "36 along y; expected a positive multiple of 8; try 32"),
        ("conv_kernels_zyx", [[3, 3, 3], [3, 3, 3], [3, 2, 3], [3, 3, 3]], "odd sizes"),
        ("conv_kernels_zyx", [[3, 3, 3]], "found 1 kernels; expected 4"),
        ("pool_kernels_zyx", [[2, 2, 2], [0, 2, 2], [2, 2, 2]], "greater than 0"),
        ("max_features", 7, "at least base_features, 8"),
    ],
)
def test_a_network_that_cannot_run_is_refused(key, value, expected):
    line = only(changed(f"network.{key}", value))
    assert f"network.{key}" in line
    assert expected in line
