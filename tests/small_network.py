"""The `network` section of a config whose networks train in a second."""

from typing import Any

NETWORK: dict[str, Any] = {
    "patch_size_zyx": [16, 16, 16],
    "base_features": 4,
    "max_features": 8,
    "pool_kernels_zyx": [[2, 2, 2], [2, 2, 2]],
    "conv_kernels_zyx": [[3, 3, 3], [3, 3, 3], [3, 3, 3]],
}
