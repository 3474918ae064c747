"""Dice + cross-entropy with deep supervision. Axis legend: B batch, K class, Z Y X space.

The form is nnU-Net's (Isensee et al. 2021), as in the released UniSeg trainer: soft Dice over the foreground classes
per sample plus cross-entropy, summed over scales with weights 1, 1/2, 1/4, ... normalised to one, the coarsest scale
left out. Voxels whose label is `IGNORED` enter no term. A sigmoid model is trained with Dice + binary cross-entropy
over its foreground channels. A model may ask for MultiTalent's sums over classes instead, or for other weights of the
scales.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from models.interface import SegmentationModel
from segbench.core.task import IGNORED, Task

SMOOTH = 1e-5


def soft_dice_loss(probabilities_BKZYX: Tensor, targets_BKZYX: Tensor, *, batch_dice: bool = False) -> Tensor:
    """Return 1 - mean soft Dice over samples and channels (a scalar in 0..1).

    An empty channel that is predicted empty has Dice 1 through the smoothing term. batch_dice: the samples of a batch
    are one volume, as in nnU-Net's `batch_dice`; the mean is over channels alone.
    """
    axes = (0, 2, 3, 4) if batch_dice else (2, 3, 4)
    overlap = (probabilities_BKZYX * targets_BKZYX).sum(axes)
    size = probabilities_BKZYX.sum(axes) + targets_BKZYX.sum(axes)
    return 1 - ((2 * overlap + SMOOTH) / (size + SMOOTH)).mean()


def scale_loss(
    logits_BKZYX: Tensor,
    targets_BKZYX: Tensor,
    activation: str,
    known_B1ZYX: Tensor | None = None,
    *,
    batch_dice: bool = False,
) -> Tensor:
    """Return Dice + cross-entropy at one scale; the background channel does not enter the Dice term.

    Args:
        logits_BKZYX: answer of the network.
        targets_BKZYX: 0 or 1 per channel.
        activation: 'softmax' or 'sigmoid'.
        known_B1ZYX: 1 where a voxel counts, 0 where its label is ignored; None when all count.
        batch_dice: Dice over the whole batch instead of per sample.
    """
    logits_BKZYX = logits_BKZYX.float()
    if activation == "softmax":
        probabilities_BKZYX = logits_BKZYX.softmax(1)[:, 1:]
        entropy = functional.cross_entropy(logits_BKZYX, targets_BKZYX, reduction="none")[:, None]
    else:
        probabilities_BKZYX = logits_BKZYX[:, 1:].sigmoid()
        entropy = functional.binary_cross_entropy_with_logits(
            logits_BKZYX[:, 1:], targets_BKZYX[:, 1:], reduction="none"
        )
    targets_BKZYX = targets_BKZYX[:, 1:]
    if known_B1ZYX is None:
        return entropy.mean() + soft_dice_loss(probabilities_BKZYX, targets_BKZYX, batch_dice=batch_dice)
    counted = (known_B1ZYX.sum() * entropy.shape[1]).clamp(min=1)
    dice = soft_dice_loss(probabilities_BKZYX * known_B1ZYX, targets_BKZYX * known_B1ZYX, batch_dice=batch_dice)
    return (entropy * known_B1ZYX).sum() / counted + dice


def summed_loss(logits_BKZYX: Tensor, targets_BKZYX: Tensor, known_B1ZYX: Tensor | None = None) -> Tensor:
    """Return MultiTalent's loss at one scale (Ulrich et al., MICCAI 2023); channel 0 does not enter it.

    The sum over samples and classes of the mean binary cross-entropy, minus the sum over classes of the soft Dice of
    the batch, 2 TP / max(2 TP + FP + FN, 1e-7). An empty class that is predicted empty has Dice 0. known_B1ZYX: 0 where
    a voxel is ignored; it then adds nothing, and the mean is still over all voxels.
    """
    logits_BKZYX, targets_BKZYX = logits_BKZYX[:, 1:].float(), targets_BKZYX[:, 1:]
    entropy_BKZYX = functional.binary_cross_entropy_with_logits(logits_BKZYX, targets_BKZYX, reduction="none")
    probabilities_BKZYX = logits_BKZYX.sigmoid()
    if known_B1ZYX is not None:
        entropy_BKZYX = entropy_BKZYX * known_B1ZYX
        probabilities_BKZYX, targets_BKZYX = probabilities_BKZYX * known_B1ZYX, targets_BKZYX * known_B1ZYX
    axes = (0, 2, 3, 4)
    overlap_K = (probabilities_BKZYX * targets_BKZYX).sum(axes)
    size_K = probabilities_BKZYX.sum(axes) + targets_BKZYX.sum(axes)  # 2 TP + FP + FN
    return entropy_BKZYX.mean((2, 3, 4)).sum() - (2 * overlap_K / size_K.clamp(min=1e-7)).sum()


def scale_weights(count: int, *, rule: str = "nnunet") -> list[float]:
    """Return the weight of each scale, full resolution first; they sum to one.

    rule: 'nnunet' for 1, 1/2, 1/4, ... and nothing for the coarsest of several; 'halving' for the same with the
    coarsest; 'equal' for equal weights.
    """
    if rule == "equal":
        return [1 / count] * count
    used = count if rule == "halving" else max(1, count - 1)
    weights = [0.5**scale if scale < used else 0.0 for scale in range(count)]
    return [weight / sum(weights) for weight in weights]


def training_loss(
    model: SegmentationModel, outputs: Sequence[Tensor], labels_BZYX: Tensor, task: Task, *, batch_dice: bool = False
) -> Tensor:
    """Return the deep-supervision loss of one batch of one task.

    Coarser targets are taken by nearest neighbour from the full-resolution ones. batch_dice: Dice over the whole batch
    instead of per sample; the summed loss of MultiTalent always has it.
    """
    ignored_BZYX = labels_BZYX == IGNORED
    known_B1ZYX = None
    if ignored_BZYX.any():
        known_B1ZYX = (~ignored_BZYX)[:, None].to(torch.float32)
        labels_BZYX = labels_BZYX.masked_fill(ignored_BZYX, 0)
    targets_BKZYX = model.targets(labels_BZYX, task)
    total = outputs[0].new_zeros((), dtype=torch.float32)
    weights = scale_weights(len(outputs), rule=model.scale_rule)
    for weight, logits_BKZYX in zip(weights, outputs, strict=True):
        if weight == 0:
            continue
        scaled_BKZYX = _on_grid_of(logits_BKZYX, targets_BKZYX)
        scaled_known_B1ZYX = None if known_B1ZYX is None else _on_grid_of(logits_BKZYX, known_B1ZYX)
        if model.class_loss == "sum":
            total = total + weight * summed_loss(logits_BKZYX, scaled_BKZYX, scaled_known_B1ZYX)
        else:
            total = total + weight * scale_loss(
                logits_BKZYX, scaled_BKZYX, model.activation, scaled_known_B1ZYX, batch_dice=batch_dice
            )
    return total


def _on_grid_of(logits_BKZYX: Tensor, values_BCZYX: Tensor) -> Tensor:
    if logits_BKZYX.shape[2:] == values_BCZYX.shape[2:]:
        return values_BCZYX
    return functional.interpolate(values_BCZYX, size=logits_BKZYX.shape[2:], mode="nearest")
