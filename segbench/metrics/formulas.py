"""The arithmetic of each metric from what `MaskPair` knows; `METRICS` has the definitions in words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segbench.metrics.pair import MaskPair, pooled_percentile


def _dice(pair: MaskPair, *, smooth: int = 0) -> float:
    return 2 * pair.shared_voxels / (pair.reference_voxels + pair.prediction_voxels + smooth)


def _iou(pair: MaskPair) -> float:
    return pair.shared_voxels / (pair.reference_voxels + pair.prediction_voxels - pair.shared_voxels)


def _nsd_voxel(pair: MaskPair) -> float:
    return float(np.mean(np.concatenate(pair.distances_mm) <= pair.tolerance_mm))


def _volume_error_ml(pair: MaskPair) -> float:
    return abs(pair.prediction_voxels - pair.reference_voxels) * pair.voxel_mm3 / 1000


OF_TWO_MASKS: dict[str, Callable[[MaskPair], float]] = {
    "dice": _dice,
    "iou": _iou,
    "hd95": lambda pair: pooled_percentile(pair.distances_mm),
    "hd95_max": lambda pair: float(max(np.percentile(directed, 95) for directed in pair.distances_mm)),
    "hd": lambda pair: float(max(directed.max() for directed in pair.distances_mm)),
    "assd": lambda pair: float(np.concatenate(pair.distances_mm).mean()),
    "masd": lambda pair: float(np.mean([directed.mean() for directed in pair.distances_mm])),
    "nsd": lambda pair: pair.area_within_tolerance,
    "nsd_voxel": _nsd_voxel,
    "uniseg_dice": _dice,
    "uniseg_hd95": lambda pair: pair.hd95_voxels,
    "dodnet_dice": lambda pair: _dice(pair, smooth=1),
    "dodnet_hd95": lambda pair: pair.hd95_voxels,
}
"""Metrics of two masks that are not empty; with an empty one the registry's `empty` says what they are."""

OF_ANY_MASKS: dict[str, Callable[[MaskPair], float | None]] = {
    "volume_error_ml": _volume_error_ml,
    "lesion_f1": lambda pair: pair.detection.f1,
    "lesion_precision": lambda pair: pair.detection.precision,
    "lesion_recall": lambda pair: pair.detection.recall,
    "false_positive_volume_ml": lambda pair: pair.detection.false_positive_voxels * pair.voxel_mm3 / 1000,
    "autopet_false_positive_volume_ml": lambda pair: (
        pair.autopet_detection.false_positive_voxels * pair.voxel_mm3 / 1000
    ),
    "autopet_false_negative_volume_ml": lambda pair: (
        pair.autopet_detection.false_negative_voxels * pair.voxel_mm3 / 1000
    ),
}
"""Metrics that have a meaning for empty masks as well; None where a fraction has nothing to be a fraction of."""
