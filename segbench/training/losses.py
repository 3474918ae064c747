"""Dice + cross-entropy with deep supervision. Axis legend: B batch, K class, Z Y X space.

The form is nnU-Net's (Isensee et al. 2021), as in the released UniSeg trainer: soft Dice over the foreground classes
per sample plus cross-entropy, summed over scales with weights 1, 1/2, 1/4, ... normalised to one, the coarsest scale
left out. Voxels whose label is `IGNORED` enter no term. A class that nobody looked for in a case enters no Dice; its
probability is that of the background there, the marginal loss of Shi et al. (Medical Image Analysis 70, 2021), and the
channel of a sigmoid model that would need it enters no term. A sigmoid model is trained with Dice + binary
cross-entropy over its foreground channels. A model may ask for MultiTalent's sums over classes instead, or for other
weights of the scales.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from models.blocks.placement import on_device
from models.interface import SegmentationModel
from segbench.core.task import IGNORED, Task

SMOOTH = 1e-5
NOT_THERE = -1e4
"""Logit of a channel that has no part in the softmax; finite, so that its target of 0 adds 0."""


def soft_dice_loss(
    probabilities_BKZYX: Tensor, targets_BKZYX: Tensor, known_BK: Tensor | None = None, *, batch_dice: bool = False
) -> Tensor:
    """Return 1 - mean soft Dice over samples and channels (a scalar in 0..1).

    An empty channel that is predicted empty has Dice 1 through the smoothing term. batch_dice: the samples of a batch
    are one volume, as in nnU-Net's `batch_dice`; the mean is over channels alone. known_BK: whether a channel counts in
    a sample; None when all do. Without any that counts the loss is 0.
    """
    if known_BK is not None:
        mask_BKZYX = known_BK[:, :, None, None, None]
        probabilities_BKZYX, targets_BKZYX = probabilities_BKZYX * mask_BKZYX, targets_BKZYX * mask_BKZYX
    axes = (0, 2, 3, 4) if batch_dice else (2, 3, 4)
    overlap = (probabilities_BKZYX * targets_BKZYX).sum(axes)
    size = probabilities_BKZYX.sum(axes) + targets_BKZYX.sum(axes)
    dice = (2 * overlap + SMOOTH) / (size + SMOOTH)
    if known_BK is None:
        return 1 - dice.mean()
    counted = known_BK.any(0) if batch_dice else known_BK
    return ((1 - dice) * counted).sum() / counted.sum().clamp(min=1)


def scale_loss(
    logits_BKZYX: Tensor,
    targets_BKZYX: Tensor,
    activation: str,
    known_B1ZYX: Tensor | None = None,
    known_BK: Tensor | None = None,
    *,
    batch_dice: bool = False,
) -> Tensor:
    """Return Dice + cross-entropy at one scale; the background channel does not enter the Dice term.

    Args:
        logits_BKZYX: answer of the network.
        targets_BKZYX: 0 or 1 per channel.
        activation: 'softmax' or 'sigmoid'.
        known_B1ZYX: 1 where a voxel counts, 0 where its label is ignored; None when all count.
        known_BK: whether a channel was looked for in a sample, background included; None when all were.
        batch_dice: Dice over the whole batch instead of per sample.
    """
    logits_BKZYX = logits_BKZYX.float()
    if known_BK is not None:
        return _partial_loss(logits_BKZYX, targets_BKZYX, activation, known_B1ZYX, known_BK, batch_dice=batch_dice)
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


def _partial_loss(
    logits_BKZYX: Tensor,
    targets_BKZYX: Tensor,
    activation: str,
    known_B1ZYX: Tensor | None,
    known_BK: Tensor,
    *,
    batch_dice: bool,
) -> Tensor:
    """Return the loss of `scale_loss` where some channels were not looked for in some samples."""
    known_B1ZYX = torch.ones_like(targets_BKZYX[:, :1]) if known_B1ZYX is None else known_B1ZYX
    mask_BKZYX = known_BK[:, :, None, None, None]
    if activation == "softmax":
        unknown_BKZYX = logits_BKZYX.masked_fill(mask_BKZYX, NOT_THERE)
        background_B1ZYX = torch.cat([logits_BKZYX[:, :1], unknown_BKZYX[:, 1:]], 1).logsumexp(1, keepdim=True)
        merged_BKZYX = torch.cat([background_B1ZYX, logits_BKZYX[:, 1:].masked_fill(~mask_BKZYX[:, 1:], NOT_THERE)], 1)
        probabilities_BKZYX = merged_BKZYX.softmax(1)[:, 1:]
        entropy = functional.cross_entropy(merged_BKZYX, targets_BKZYX, reduction="none")[:, None]
        counts = known_B1ZYX
    else:
        probabilities_BKZYX = logits_BKZYX[:, 1:].sigmoid()
        entropy = functional.binary_cross_entropy_with_logits(
            logits_BKZYX[:, 1:], targets_BKZYX[:, 1:], reduction="none"
        )
        counts = known_B1ZYX * mask_BKZYX[:, 1:]
    dice = soft_dice_loss(
        probabilities_BKZYX * known_B1ZYX, targets_BKZYX[:, 1:] * known_B1ZYX, known_BK[:, 1:], batch_dice=batch_dice
    )
    return (entropy * counts).sum() / counts.sum().clamp(min=1) + dice


def summed_loss(logits_BKZYX: Tensor, targets_BKZYX: Tensor, known_B1ZYX: Tensor | None = None) -> Tensor:
    """Return MultiTalent's loss at one scale (Ulrich et al., MICCAI 2023); channel 0 does not enter it.

    The sum over samples and classes of the mean binary cross-entropy, minus the sum over classes of the soft Dice of
    the batch, 2 TP / max(2 TP + FP + FN, 1e-7). An empty class that is predicted empty has Dice 0. known_B1ZYX: 0 where
    a voxel is ignored; it then adds nothing, and the mean is still over all voxels. It may have a channel per class.
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
    model: SegmentationModel,
    outputs: Sequence[Tensor],
    labels_BZYX: Tensor,
    task: Task,
    *,
    batch_dice: bool = False,
    annotated: Sequence[Sequence[int] | None] | None = None,
    ignored: bool | None = None,
    one_scale: Callable[..., Tensor] = scale_loss,
) -> Tensor:
    """Return the deep-supervision loss of one batch of one task.

    Coarser targets are taken by nearest neighbour from the full-resolution ones. batch_dice: Dice over the whole batch
    instead of per sample; the summed loss of MultiTalent always has it. annotated: per sample the class values that
    were looked for in its case, None for all of them. ignored: whether any voxel is `IGNORED`; None looks, for which a
    GPU is waited for. one_scale: `scale_loss`, or the same compiled.
    """
    known_BK = known_channels(model, task, annotated or [])
    known_BK = None if known_BK is None else on_device(known_BK, labels_BZYX.device)
    known_B1ZYX = None
    ignored = bool((labels_BZYX == IGNORED).any()) if ignored is None else ignored
    if ignored:
        ignored_BZYX = labels_BZYX == IGNORED
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
            if known_BK is not None:
                every = 1 if scaled_known_B1ZYX is None else scaled_known_B1ZYX
                scaled_known_B1ZYX = every * known_BK[:, 1:, None, None, None].to(torch.float32)
            total = total + weight * summed_loss(logits_BKZYX, scaled_BKZYX, scaled_known_B1ZYX)
        else:
            total = total + weight * one_scale(
                logits_BKZYX, scaled_BKZYX, model.activation, scaled_known_B1ZYX, known_BK, batch_dice=batch_dice
            )
    return total


def known_channels(model: SegmentationModel, task: Task, annotated: Sequence[Sequence[int] | None]) -> Tensor | None:
    """Return known_BK: whether what a channel of the network means was looked for in a sample's case.

    A channel that means several classes, such as an organ with its tumour, is known only where all of them are. The
    background channel is always known. None when all classes were looked for in all samples.
    """
    if all(values is None for values in annotated):
        return None
    every_class_1Z11 = torch.arange(task.num_classes, dtype=torch.uint8)[None, :, None, None]
    means_KC = model.targets(every_class_1Z11, task)[0, :, :, 0, 0] > 0
    rows = []
    for values in annotated:
        unknown = set() if values is None else set(range(1, task.num_classes)) - set(values)
        needs_K = means_KC[:, sorted(unknown)].any(1)
        needs_K[0] = False
        rows.append(~needs_K)
    return torch.stack(rows)


def _on_grid_of(logits_BKZYX: Tensor, values_BCZYX: Tensor) -> Tensor:
    if logits_BKZYX.shape[2:] == values_BCZYX.shape[2:]:
        return values_BCZYX
    return functional.interpolate(values_BCZYX, size=logits_BKZYX.shape[2:], mode="nearest")
