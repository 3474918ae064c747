"""Words that several packages use: columns and key of the score table, and statuses."""

from __future__ import annotations

from typing import Final

EQUAL: Final = "equal"
PUBLISHED: Final = "published"
TUNED: Final = "tuned"
OWN: Final = "own"
"""Values of the column `recipe`: the experiment's training recipe, that of the model's card, the experiment's with a
learning rate that was chosen on held-out training patients, the entry's own values."""
NO_RECIPE: Final = "none"
"""Value of the column `recipe` of what is not trained here: controls, external models, masks that were given."""
SCRATCH: Final = "scratch"
SCRATCH_COMBINED: Final = "scratch_combined"
FROM_SCRATCH = (SCRATCH, SCRATCH_COMBINED)
"""Random weights: trained for the steps of fine-tuning, and for those of pre-training and fine-tuning together."""
PREPROCESSING_RECIPES = (
    *("default", "ct", "verse", "prostate", "brats", "autopet"),
    *("phantom_ct", "phantom_mr", "phantom_brain", "phantom_petct"),
    *("hippocampus", "openkbp", "sts_petct", "sts_mr", "acdc", "brats2015"),
)
"""Names of the recipes in `segbench.data.preprocessing_recipes`, which the check of a config cannot import."""
ALL_TASKS: Final = "all tasks"
"""The mean over tasks in the column `task` of tables of statistics, so that it is the name of no task."""
EXPERIMENTS = ("upstream", "downstream")
KEY_COLUMNS = (
    "experiment",
    "model",
    "initialisation",
    "recipe",
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
    "diagonal_mm",
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
MISSED_STATUSES = ("prediction_empty", "prediction_missing", "failed")
"""Statuses of a structure that is in the reference and that a method did not find."""
WITHOUT_MASK_STATUSES = ("prediction_missing", "failed")
"""Statuses of a structure for which a method gave no mask at all."""
NEVER_COUNTED = ("not_defined", "skipped")
NOT_ANNOTATED = "not annotated in this case"
"""End of the reason of a row whose structure nobody looked for."""
