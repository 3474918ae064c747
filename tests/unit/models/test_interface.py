"""The network size that config states."""

from models.interface import NetworkSpec


def test_sizes_of_the_paper():
    spec = NetworkSpec()
    assert spec.features == (32, 64, 128, 256, 320, 320)
    assert spec.downsampling_zyx == (16, 32, 32)
    assert spec.bottleneck_grid_zyx == (4, 6, 6)
