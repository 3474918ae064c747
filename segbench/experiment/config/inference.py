"""Section `inference`: the sliding window. Its ranges are all its checks."""

from __future__ import annotations

from pydantic import Field

from segbench.experiment.config.section import Axes, Precision, Section


class Inference(Section):
    """Settings of prediction. They change ranks by themselves, so that they belong to a result."""

    step: float = Field(0.5, gt=0, le=1, description="Step of the sliding window as a fraction of the patch.")
    mirror_axes: Axes = Field((), description="Axes (z, y, x) mirrored at test time and averaged.")
    precision: Precision = Field(
        "auto", description="Arithmetic of the network; auto: bfloat16 where the device computes in it."
    )
    keep_predictions: bool = Field(True, description="Write predicted label maps below results/.")
