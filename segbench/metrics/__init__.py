"""Scores of segmentations: one definition per name, computed once per structure on a crop.

Usable alone: `score_pair(reference_XYZ, prediction_XYZ, spacing_mm_xyz, structures)`. `METRICS` says what each name
means and is importable without numpy, which is why `score_pair` is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segbench.core.metric_facts import METRICS

if TYPE_CHECKING:
    from segbench.metrics.score import ScoreValue, score_pair

__all__ = ["METRICS", "ScoreValue", "score_pair"]


def __getattr__(name: str) -> Any:
    if name in ("ScoreValue", "score_pair"):
        from segbench.metrics import score

        return getattr(score, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
