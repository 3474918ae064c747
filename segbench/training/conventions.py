"""Which images the pre-trained weights of a job expect, computed from the format's card and the task's recipe."""

from __future__ import annotations

from models.weights.conventions import Convention, Scale, scale_between
from segbench.core.task import Task
from segbench.data.preprocessing_recipes import preprocessing_recipe
from segbench.experiment.context import JobContext
from segbench.experiment.weights import axes


def convention_of(context: JobContext, *, scaled: bool = True) -> Convention | None:
    """Return the convention of the job's weights; None where images already are what they expect.

    Args:
        context: the job.
        scaled: whether intensities count; they may need the preprocessed cases.
    """
    if context.job.experiment != "downstream" or context.job.control:
        return None
    item = context.job.weights(context.config)
    if item.file is None:
        return None
    stated = context.config.format_cards[item.format]["intensities"]
    scales: tuple[Scale | None, ...] = ()
    if scaled and isinstance(stated, dict):
        (task,) = context.tasks
        scales = tuple(
            scale_between(_own_scale(context, task, number), stated["window_hu"], stated["scaled_to"])
            if channel.modality == "CT"
            else None
            for number, channel in enumerate(task.channels)
        )
    convention = Convention(axes(context.config, item), scales)
    return None if convention.changes_nothing else convention


def _own_scale(context: JobContext, task: Task, channel: int) -> tuple[float, float]:
    """Return HU at the preprocessed value 0, and HU per unit, of a CT channel."""
    recipe = preprocessing_recipe(task, context.config.preprocessing_recipes)
    if recipe.clip_hu is not None:
        return recipe.clip_hu[0], recipe.clip_hu[1] - recipe.clip_hu[0]
    measured = context.preprocessed[task.name].intensities
    assert measured is not None, "a recipe without a window measures the training cases"
    _, _, mean, deviation = measured["foreground"][channel]
    return mean, deviation
