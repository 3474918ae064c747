"""A preprocessing recipe in words, for tables."""

from __future__ import annotations

from segbench.core.task import Task
from segbench.data.preprocessing_recipes import PreprocessingRecipe


def described(recipe: PreprocessingRecipe, task: Task) -> str:
    """Return spacing and intensities of a recipe for a task, such as '3x1.5x1.5 mm, CT -325 to 325 HU as 0 to 1'."""
    spacing = recipe.spacing_mm_zyx
    words = ["native spacing" if spacing is None else "x".join(f"{value:g}" for value in spacing) + " mm"]
    modalities = {channel.modality for channel in task.channels}
    if "CT" in modalities and recipe.clip_hu is not None:
        low, high = recipe.clip_hu
        words.append(f"CT {low:g} to {high:g} HU as 0 to 1")
    elif "CT" in modalities:
        words.append("CT z-score by the foreground of the training cases")
    if modalities - {"CT"}:
        words.append(f"{'+'.join(sorted(modalities - {'CT'}))} z-score per case")
    return ", ".join(words)
