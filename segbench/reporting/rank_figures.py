"""Figures of rankings: critical-difference diagram and the bootstrap distribution of ranks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from segbench.metrics.registry import METRICS
from segbench.reporting.figures import headline
from segbench.reporting.run import Run
from segbench.reporting.statistics import RESAMPLES, Statistics, label_of
from segbench.reporting.style import BLUE, INK, RC, Plot, finish, method_styles
from segbench.stats.ranking import ALL_TASKS

SHADES = LinearSegmentedColormap.from_list("fraction", ["#ffffff", BLUE])


def critical_difference_plot(run: Run, statistics: Statistics) -> Plot | None:
    """Return mean ranks over tasks; bars join methods that Nemenyi's test does not tell apart. None when untested."""
    table = statistics.friedman
    table = table[table["task"] == ALL_TASKS] if len(table) else table
    if table.empty:
        return None
    table = table.sort_values("mean_rank", kind="stable")
    first, experiment = table.iloc[0], statistics.experiment
    styles = method_styles(run.methods_of(experiment))
    colours = {label_of(method): styles[method.key]["color"] for method in run.methods_of(experiment) if method.trained}
    with plt.rc_context(RC | {"axes.grid": False}):
        figure, axis = plt.subplots(figsize=(8.5, 1.4 + 0.2 * len(table)), layout="constrained")
        bars = indistinct(table["mean_rank"].to_numpy(), first.critical_difference)
        for level, (start, end) in enumerate(bars):
            limits = [table["mean_rank"].iloc[start] - 0.03, table["mean_rank"].iloc[end] + 0.03]
            axis.plot(limits, [-0.6 - 0.35 * level] * 2, color=INK, lw=3, solid_capstyle="butt")
        _rank_stems(axis, table, statistics.titles, colours, below=0.6 + 0.35 * len(bars))
        title = f"{experiment}: mean rank over tasks by {METRICS[statistics.metric].title} (1 is best)"
        headline(figure, run, experiment, title)
        caption = (
            f"{run.data_word(experiment)}Mean rank over {first.n_blocks} {experiment} tasks, 1 is best. A bar joins "
            "methods that Nemenyi's test does not tell apart at 5 % (critical difference "
            f"{first.critical_difference:.2f} ranks; Friedman p = {first.p_value:.2g}). Tasks are the blocks; methods "
            "without a figure on every task are left out."
        )
        return finish(figure, f"{experiment}_{statistics.metric}_critical_difference", caption)


def indistinct(ranks: np.ndarray, critical_difference: float) -> list[tuple[int, int]]:
    """Return (first, last) positions of the longest runs of ascending ranks that differ by less than the difference."""
    ends = [int(np.flatnonzero(ranks < rank + critical_difference)[-1]) for rank in ranks]
    return [(i, end) for i, end in enumerate(ends) if end > i and (i == 0 or end > ends[i - 1])]


def _rank_stems(axis: Axes, table: pd.DataFrame, titles: dict, colours: dict, *, below: float) -> None:
    """Draw the scale on top and one stem per method to its name, the better half on the left."""
    count = len(table)
    axis.plot([1, count], [0, 0], color=INK, lw=1)
    for rank in range(1, count + 1):
        axis.plot([rank, rank], [0, 0.18], color=INK, lw=1)
        axis.text(rank, 0.3, str(rank), ha="center", va="bottom", fontsize=7.5)
    left = (count + 1) // 2
    for i, row in enumerate(table.itertuples()):
        depth = -below - 0.55 * (i if i < left else count - 1 - i)
        edge, side = (0.8, "right") if i < left else (count + 0.2, "left")
        colour = colours[row.method]
        axis.plot([row.mean_rank, row.mean_rank, edge], [0, depth, depth], color=colour, lw=1.1)
        axis.plot(row.mean_rank, 0, "o", color=colour, ms=4.5)
        words = (f"{titles[row.method]}  {row.mean_rank:.2f}", f"{row.mean_rank:.2f}  {titles[row.method]}")
        axis.text(edge + (-0.05 if i < left else 0.05), depth, words[i >= left], ha=side, va="center", color=INK)
    margin = 0.45 * count
    axis.set_xlim(1 - margin, count + margin)
    axis.set_axis_off()


def rank_stability_plot(run: Run, statistics: Statistics) -> Plot | None:
    """Return how often each method takes each rank on the mean over tasks when patients and seeds are drawn again."""
    fractions = statistics.distribution
    fractions = fractions[fractions["task"] == ALL_TASKS]
    if fractions.empty:
        return None
    experiment = statistics.experiment
    with plt.rc_context(RC | {"axes.grid": False}):
        figure = fraction_map(fractions, statistics.titles)
        headline(figure, run, experiment, f"{experiment}: rank stability")
        caption = (
            f"{run.data_word(experiment)}Fraction of {RESAMPLES} bootstrap samples (patients within tasks, seeds "
            f"within methods) in which a method takes a rank on the mean {METRICS[statistics.metric].title} over "
            f"{experiment} tasks."
        )
        return finish(figure, f"{experiment}_{statistics.metric}_rank_stability", caption)


def fraction_map(fractions: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Return a map of `fraction` (per cent) by `method` (best mean rank on top) and `rank`."""
    grid = fractions.pivot(index="method", columns="rank", values="fraction")
    grid = grid.loc[(grid * grid.columns).sum(axis=1).sort_values(kind="stable").index]
    size = (max(4.2, 2.6 + 0.62 * grid.shape[1]), 1.1 + 0.3 * grid.shape[0])
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    axis.imshow(grid.to_numpy(), cmap=SHADES, vmin=0, vmax=1, aspect="auto")
    for (y, x), fraction in np.ndenumerate(grid.to_numpy()):
        if fraction >= 0.005:
            colour = "white" if fraction > 0.55 else INK
            axis.text(x, y, f"{100 * fraction:.0f} %", ha="center", va="center", fontsize=7, color=colour)
    axis.set_yticks(range(len(grid)), [titles[label] for label in grid.index])
    axis.set_xticks(range(grid.shape[1]), [f"rank {rank}" for rank in grid.columns])
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    return figure
