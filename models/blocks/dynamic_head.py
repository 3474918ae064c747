"""Output heads whose weights are generated. Axis legend: B batch, H head, C channel, P parameter, N voxel, Z Y X space.

Three 1x1x1 convolutions (8 -> 8 -> 8 -> outputs) with ReLU between; the generated vector holds the three weights,
then the three biases (DoDNet, CVPR 2021; also the CLIP-driven universal model, ICCV 2023).
"""

from __future__ import annotations

from torch import Tensor

HEAD_WIDTH = 8


def head_sizes(outputs: int) -> list[int]:
    """Return the sizes of the weights of the three layers, then of their biases."""
    return [HEAD_WIDTH**2, HEAD_WIDTH**2, HEAD_WIDTH * outputs, HEAD_WIDTH, HEAD_WIDTH, outputs]


def head_outputs(parameters: int) -> int:
    """Return how many outputs a head with so many parameters has, at least one."""
    return max(1, (parameters - sum(head_sizes(0))) // (HEAD_WIDTH + 1))


def dynamic_head(x_BCZYX: Tensor, parameters_BP: Tensor, outputs: int) -> Tensor:
    """Return logits (B, outputs, Z, Y, X) of each sample's own head on its features of width 8."""
    return dynamic_heads(x_BCZYX, parameters_BP.unsqueeze(1), outputs)[:, 0]


def dynamic_heads(x_BCZYX: Tensor, parameters_BHP: Tensor, outputs: int) -> Tensor:
    """Return logits (B, H, outputs, Z, Y, X) of several heads per sample on the same features of width 8."""
    batch, heads, _ = parameters_BHP.shape
    parts = parameters_BHP.split(head_sizes(outputs), dim=2)
    # the first layer sees the same features for all heads, so its heads are stacked instead of the features repeated
    weights_BOC = parts[0].reshape(batch, heads * HEAD_WIDTH, HEAD_WIDTH)
    x_BON = parts[3].reshape(batch, -1, 1).baddbmm(weights_BOC, x_BCZYX.flatten(2))
    x_BON = x_BON.reshape(batch * heads, HEAD_WIDTH, -1)
    for weights_BHP, biases_BHP in ((parts[1], parts[4]), (parts[2], parts[5])):
        weights_BOC = weights_BHP.reshape(batch * heads, -1, HEAD_WIDTH)
        x_BON = biases_BHP.reshape(batch * heads, -1, 1).baddbmm(weights_BOC, x_BON.relu())
    return x_BON.reshape(batch, heads, outputs, *x_BCZYX.shape[2:])
