"""Words that several packages use: columns and key of the score table, statuses, metric names, default handling."""

from __future__ import annotations

KEY_COLUMNS = (
    "experiment",
    "model",
    "initialisation",
    "scope",
    "fold",
    "seed",
    "protocol",
    "dataset",
    "task",
    "case",
    "structure",
    "metric",
)
SCORE_COLUMNS = (
    *KEY_COLUMNS,
    "patient",
    "value",
    "unit_of_value",
    "status",
    "reason",
    "reference_volume_mm3",
    "prediction_volume_mm3",
)
STATUSES = (
    "ok",
    "both_empty",
    "reference_empty",
    "prediction_empty",
    "prediction_missing",
    "not_defined",
    "skipped",
    "failed",
)
HANDLED_STATUSES = ("both_empty", "reference_empty", "prediction_empty", "prediction_missing", "failed")
METRIC_NAMES = (
    "dice",
    "iou",
    "hd95",
    "hd95_max",
    "hd",
    "assd",
    "masd",
    "nsd",
    "nsd_voxel",
    "volume_error_ml",
    "lesion_f1",
    "lesion_precision",
    "lesion_recall",
    "false_positive_volume_ml",
    "uniseg_dice",
    "uniseg_hd95",
    "dodnet_dice",
    "dodnet_hd95",
)
