"""How alike the tasks' parts of a learned prompt are: before training, after it, and in between."""

from __future__ import annotations

import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from segbench.core.run_record import PromptSimilarity
from segbench.reporting.csv_text import file_stem
from segbench.reporting.figures import headline
from segbench.reporting.run import Run
from segbench.reporting.style import DIVERGING, RC, SMALLEST_PT, Plot, finish, method_styles, new_figure

MOST_WRITTEN = 6
"""Most tasks whose cosines are written into the map: more do not fit."""


def prompt_similarity_plot(run: Run, experiment: str) -> Plot | None:
    """Return the first and the last map of cosines and their mean by step; None where no job has several tasks.

    The maps are those of the first job; the lines are those of every job.
    """
    found = [
        (method, job.seed, job.prompt_similarity)
        for method in run.methods_of(experiment)
        for job in run.jobs(experiment, method.key)
        if job.prompt_similarity is not None and len(job.prompt_similarity.tasks) > 1 and job.prompt_similarity.steps
    ]
    if not found:
        return None
    method, seed, first = found[0]
    styles = method_styles(run.methods + run.self_supervised)
    titles = {task.name: task.title for task in run.record.tasks}
    names = [titles.get(name, name) for name in first.tasks]
    with plt.rc_context(RC | {"axes.grid": False}):
        height = 1.3 + 0.11 * max(6, len(names))
        figure, axes = new_figure("double", height, ncols=3, width_ratios=(1, 1, 1.05))
        for axis, position, word in ((axes[0], 0, "before training"), (axes[1], -1, "after training")):
            _map(axis, first, position, bar=position == -1)
            axis.set_title(f"{word}\nstep {first.steps[position]}")
        axes[0].set_yticks(np.arange(len(names)) + 0.5, [f"{name}  {i + 1}" for i, name in enumerate(names)])
        for other, _, similarity in found:
            style = styles[experiment, *other.key]
            axes[2].plot(
                similarity.steps,
                mean_similarity(similarity),
                color=style["color"],
                marker=style["marker"],
                ms=3.5,
                lw=1,
                label=other.title,
            )
        axes[2].set(ylim=(0, 1.02), xlabel="step of training", ylabel="mean absolute cosine")
        axes[2].set_box_aspect(1)
        lines = {line.get_label(): line for line in axes[2].lines}
        if len(lines) > 1:
            axes[2].legend(handles=list(lines.values()))
        headline(figure, run, experiment, f"{method.title}: similarity of the tasks' prompts")
        caption = (
            f"{run.data_word(experiment)}Cosine between the channels of two tasks in the learned prompt of "
            f"{method.title}, before and after training (seed {seed}), and the mean of its "
            "absolute value over all pairs of tasks at each measured step, one line per job. 0: unrelated; 1: equal."
        )
        return finish(figure, file_stem(f"{experiment}_prompt_similarity"), caption)


def mean_similarity(similarity: PromptSimilarity) -> np.ndarray:
    """Return the mean absolute cosine of two different tasks at each step; at least two tasks are needed."""
    cosine_STT = np.abs(np.array(similarity.cosine, float))
    return cosine_STT[:, ~np.eye(len(similarity.tasks), dtype=bool)].mean(axis=1)


def _map(axis: Axes, similarity: PromptSimilarity, position: int, *, bar: bool) -> None:
    """Draw one matrix of cosines; tasks are numbered, so that their names stand once."""
    cosine_TT = np.array(similarity.cosine[position], float)
    count = len(similarity.tasks)
    sns.heatmap(
        cosine_TT,
        ax=axis,
        cmap=DIVERGING,
        vmin=-1,
        vmax=1,
        square=True,
        annot=count <= MOST_WRITTEN,
        fmt=".2f",
        annot_kws={"fontsize": SMALLEST_PT},
        cbar=bar,
        cbar_kws={"label": "cosine", "fraction": 0.046, "pad": 0.04} if bar else None,
        xticklabels=False,
        yticklabels=False,
    )
    axis.set_xticks(np.arange(count) + 0.5, [str(i + 1) for i in range(count)])
    axis.set_yticks(np.arange(count) + 0.5, [str(i + 1) for i in range(count)])
    axis.tick_params(length=0, rotation=0)
    axis.tick_params(axis="x", rotation=90 if count > 9 else 0)
