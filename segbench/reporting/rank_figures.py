"""Figures of rankings: critical-difference diagram and the bootstrap distribution of ranks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scikit_posthocs
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from segbench.reporting.csv_text import file_stem
from segbench.reporting.figures import headline
from segbench.reporting.metrics import about
from segbench.reporting.run import Run
from segbench.reporting.statistics import RESAMPLES, Statistics, label_of, trained_rows
from segbench.reporting.style import INK, RC, SHADES, SMALLEST_PT, Plot, finish, ink_on, method_styles, new_figure
from segbench.stats.ranking import ALL_TASKS, nemenyi


def critical_difference_plot(run: Run, statistics: Statistics) -> Plot | None:
    """Return mean ranks over tasks; bars join methods that Nemenyi's test does not distinguish.

    None when untested, and where even the first and the last of all tasks would be joined: then it can show nothing.
    """
    table = statistics.friedman
    table = table[table["task"] == ALL_TASKS] if len(table) else table
    if table.empty:
        return None
    first, experiment, metric = table.iloc[0], statistics.experiment, statistics.metric
    if first.critical_difference >= first.n_methods - 1:
        return None
    rows = trained_rows(run, experiment)
    p_values = nemenyi(rows, metric=metric, missing_masks=run.record.missing_masks)[experiment, ALL_TASKS]
    styles = method_styles(run.methods + run.self_supervised)
    colours = {label_of(m): styles[experiment, *m.key]["color"] for m in run.methods_of(experiment) if m.trained}
    with plt.rc_context(RC | {"axes.grid": False}):
        ranks = table.set_index("method")["mean_rank"]
        figure = critical_difference_figure(ranks, p_values, titles=statistics.titles, colours=colours)
        title = f"{experiment}: mean rank over tasks by {about(metric).title} (1 is best)"
        headline(figure, run, experiment, title)
        caption = (
            f"{run.data_word(experiment)}Mean rank over {first.n_blocks} {experiment} tasks, 1 is best. A bar joins "
            f"methods that Nemenyi's test does not distinguish at {100 * run.alpha:g} % (critical difference "
            f"{first.critical_difference:.2f} ranks; Friedman p = {first.p_value:.2g}). Tasks are the blocks; methods "
            "without a value on every task are left out. A mean rank names no better method: the decision rule does."
        )
        return finish(figure, file_stem(f"{experiment}_{metric}_critical_difference"), caption)


def critical_difference_figure(
    ranks: pd.Series, p_values: pd.DataFrame, *, titles: Mapping[str, str], colours: Mapping[str, str]
) -> Figure:
    """Return the critical-difference diagram (Demsar 2006), drawn by scikit-posthocs.

    Args:
        ranks: mean rank by method label.
        p_values: p value of every pair, labels on both axes.
        titles: what each label is called in the figure.
        colours: the colour of each label.
    """
    numbers = {label: i for i, label in enumerate(ranks.index)}  # sets of text have another order in every process
    own = ranks.rename(index=numbers)
    matrix = p_values.loc[ranks.index, ranks.index].rename(index=numbers, columns=numbers)
    figure, axis = new_figure("double", 0.9 + 0.16 * len(ranks))
    drawn = scikit_posthocs.critical_difference_diagram(
        own,
        matrix,
        ax=axis,
        color_palette={numbers[label]: colours[label] for label in ranks.index},
        label_fmt_left="{label}",
        label_fmt_right="{label}",
        text_h_margin=0.06,
        crossbar_props={"color": INK, "linewidth": 2.5},
        elbow_props={"linewidth": 1.1},
    )
    left = (len(ranks) + 1) // 2
    for i, text in enumerate(drawn["labels"]):
        label = ranks.index[int(text.get_text())]
        title, rank = titles[label], f"{ranks[label]:.2f}"
        text.set(text=f"{title}  {rank} " if i < left else f" {rank}  {title}", color=INK)
    return figure


def rank_stability_plot(run: Run, statistics: Statistics) -> Plot | None:
    """Return how often each method takes each rank on the mean over tasks when patients and seeds are drawn again."""
    fractions = statistics.distribution
    fractions = fractions[fractions["task"] == ALL_TASKS] if len(fractions) else fractions
    if fractions.empty:
        return None
    experiment = statistics.experiment
    with plt.rc_context(RC | {"axes.grid": False}):
        figure = fraction_map(fractions, statistics.titles)
        headline(figure, run, experiment, f"{experiment}: rank stability")
        caption = (
            f"{run.data_word(experiment)}Fraction of {RESAMPLES} bootstrap samples (patients within tasks, seeds "
            f"within methods) in which a method takes a rank on the mean {about(statistics.metric).title} over "
            f"{experiment} tasks."
        )
        return finish(figure, file_stem(f"{experiment}_{statistics.metric}_rank_stability"), caption)


def fraction_map(fractions: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Return a map of `fraction` (per cent) by `method` (best mean rank on top) and `rank`."""
    grid = fractions.pivot(index="method", columns="rank", values="fraction")
    grid = grid.loc[(grid * grid.columns).sum(axis=1).sort_values(kind="stable").index]
    words = np.where(
        grid.to_numpy() >= 0.005, [[f"{100 * value:.0f} %" for value in row] for row in grid.to_numpy()], ""
    )
    figure, axis = new_figure("double", 0.75 + 0.21 * len(grid))
    sns.heatmap(
        grid,
        ax=axis,
        cmap=SHADES,
        vmin=0,
        vmax=1,
        cbar=False,
        annot=words,
        fmt="",
        annot_kws={"fontsize": SMALLEST_PT},
        yticklabels=False,
        xticklabels=False,
    )
    for text in axis.texts:
        x, y = text.get_position()
        text.set_color(ink_on(SHADES(grid.to_numpy()[int(y), int(x)])))
    axis.set(xlabel="", ylabel="")
    axis.set_yticks(np.arange(len(grid)) + 0.5, [titles[label] for label in grid.index])
    axis.set_xticks(np.arange(grid.shape[1]) + 0.5, [f"rank {rank}" for rank in grid.columns])
    axis.tick_params(length=0)
    return figure
