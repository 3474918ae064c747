"""Section `training`: the training recipe. Its ranges are all its checks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from segbench.experiment.config.section import Axes, Section


class Training(Section):
    """The training recipe, the same for every model."""

    iterations_per_task: int = Field(50000, ge=1, description="Optimiser steps per task: the compute budget.")
    batch_size: int = Field(2, ge=1, description="Patches per step, all of one task.")
    schedule: Literal["equal", "proportional", "sqrt"] = Field(
        "equal", description="Fraction of each task in the steps: equal as published, by size, or by its square root."
    )
    initial_learning_rate: float = Field(0.01, gt=0, description="Learning rate of the first step.")
    momentum: float = Field(0.99, ge=0, lt=1, description="Nesterov momentum of SGD.")
    weight_decay: float = Field(3e-5, ge=0, description="Weight decay of SGD.")
    poly_exponent: float = Field(0.9, ge=0, description="Exponent of the polynomial decay of the learning rate.")
    gradient_clip: float = Field(12.0, gt=0, description="Largest norm of the gradient.")
    foreground_fraction: float = Field(
        0.33,
        ge=0,
        le=1,
        description="Fraction of a batch, its last samples, that is forced to foreground, rounded as in nnU-Net: 0.33 "
        "of 2 is one sample.",
    )
    augmentation: Literal["none", "light", "full"] = Field("full", description="Augmentation of the nnU-Net family.")
    mirror_axes: Axes = Field((0, 1, 2), description="Axes (z, y, x) mirrored at random in training.")
    mirror_sides: bool = Field(
        False,
        description="Mirror the left-right axis, in training and at test time, also for tasks with classes that differ "
        "by side (`sides` of the card), as published recipes do.",
    )
    batch_dice: bool = Field(
        False, description="Dice of the loss over the whole batch instead of the mean over its samples."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Arithmetic of the forward pass. auto: bfloat16 where the device multiplies it itself, else "
        "float16 on a GPU and float32 on a processor.",
    )
    mode: Literal["auto", "exact", "fast"] = Field(
        "auto",
        description="exact: the same bytes on one machine, interrupted or not; fast: no such promise. auto: exact on a "
        "processor, fast on a GPU (docs/performance.md).",
    )
    save_every_seconds: float = Field(120.0, gt=0, description="Interval between resumable states.")
    time_limit_hours: float | None = Field(
        None, gt=0, description="A job that has trained for longer is saved and recorded as failed; null: no limit."
    )
