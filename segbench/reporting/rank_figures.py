"""Figures of rankings: critical-difference diagram and the bootstrap distribution of ranks."""

from __future__ import annotations

import numpy as np
import scikit_posthocs
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap

from segbench.metrics.registry import METRICS
from segbench.reporting.figures import headline
from segbench.reporting.run import Run
from segbench.reporting.statistics import RESAMPLES, Statistics
from segbench.reporting.style import BLUE, INK, RC, Plot, finish, method_styles
from segbench.stats.ranking import ALL_TASKS

SHADES = LinearSegmentedColormap.from_list("share", ["#ffffff", BLUE])


def critical_difference_plot(run: Run, statistics: Statistics) -> Plot | None:
    """Return mean ranks over tasks; bars join methods that Nemenyi's test does not tell apart. None when untested."""
    table = statistics.friedman
    table = table[table["task"] == ALL_TASKS] if len(table) else table
    if statistics.nemenyi is None or table.empty:
        return None
    first = table.iloc[0]
    experiment = statistics.experiment
    ranks = {statistics.titles[row.method]: row.mean_rank for row in table.itertuples()}
    p_values = statistics.nemenyi.rename(index=statistics.titles, columns=statistics.titles)
    by_label = dict(zip(statistics.titles, [m for m in run.methods_of(experiment) if m.trained], strict=True))
    styles = method_styles(run.methods_of(experiment))
    palette = {statistics.titles[label]: styles[by_label[label].key]["color"] for label in table["method"]}
    with plt.rc_context(RC | {"axes.grid": False}):
        figure, axis = plt.subplots(figsize=(8.5, 1.5 + 0.17 * len(ranks)), layout="constrained")
        scikit_posthocs.critical_difference_diagram(
            ranks,
            p_values,
            ax=axis,
            color_palette=palette,
            label_fmt_left="{label}  {rank:.2f} ",
            label_fmt_right=" {rank:.2f}  {label}",
            text_h_margin=0.3,
            crossbar_props={"color": INK, "linewidth": 2.5},
        )
        headline(
            figure,
            run,
            experiment,
            f"{experiment}: mean rank over tasks by {METRICS[statistics.metric].title} (1 is best)",
        )
        caption = (
            f"{run.data_word(experiment)}Mean rank over {first.n_blocks} {experiment} tasks, 1 is best. A bar joins "
            "methods that Nemenyi's test does not tell apart at 5 % (critical difference "
            f"{first.critical_difference:.2f} ranks; Friedman p = {first.p_value:.2g}). Tasks are the blocks; "
            "methods without a figure on every task are left out."
        )
        return finish(figure, f"{experiment}_{statistics.metric}_critical_difference", caption)


def rank_stability_plot(run: Run, statistics: Statistics) -> Plot | None:
    """Return how often each method takes each rank on the mean over tasks when patients and seeds are drawn again."""
    shares = statistics.distribution
    shares = shares[shares["task"] == ALL_TASKS]
    if shares.empty:
        return None
    grid = shares.pivot(index="method", columns="rank", values="share")
    grid = grid.loc[(grid * grid.columns).sum(axis=1).sort_values(kind="stable").index]
    experiment = statistics.experiment
    with plt.rc_context(RC | {"axes.grid": False}):
        size = (2.6 + 0.62 * grid.shape[1], 1.1 + 0.3 * grid.shape[0])
        figure, axis = plt.subplots(figsize=(max(4.2, size[0]), size[1]), layout="constrained")
        axis.imshow(grid.to_numpy(), cmap=SHADES, vmin=0, vmax=1, aspect="auto")
        for (y, x), share in np.ndenumerate(grid.to_numpy()):
            if share >= 0.005:
                axis.text(
                    x,
                    y,
                    f"{100 * share:.0f} %",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if share > 0.55 else INK,
                )
        axis.set_yticks(range(len(grid)), [statistics.titles[label] for label in grid.index])
        axis.set_xticks(range(grid.shape[1]), [f"rank {rank}" for rank in grid.columns])
        axis.tick_params(length=0)
        for side in axis.spines.values():
            side.set_visible(False)
        headline(figure, run, experiment, f"{experiment}: rank stability")
        caption = (
            f"{run.data_word(experiment)}Share of {RESAMPLES} bootstrap samples (patients within tasks, seeds within "
            f"methods) in which a method takes a rank on the mean {METRICS[statistics.metric].title} over "
            f"{experiment} tasks."
        )
        return finish(figure, f"{experiment}_{statistics.metric}_rank_stability", caption)
