"""Figures of the scores: cases per task, differences to the reference, Dice against cost.

Drawn by seaborn where it has the figure (boxes, points, maps). Points with intervals of their own are Matplotlib's
error bars.
"""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import MatplotlibDeprecationWarning
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from segbench.reporting.csv_text import file_stem
from segbench.reporting.frames import groups_of, named_rows
from segbench.reporting.metrics import about
from segbench.reporting.run import MethodKey, Run
from segbench.reporting.style import (
    DIVERGING,
    GREY,
    INK,
    RC,
    SMALLEST_PT,
    VERMILLION,
    WIDTH_MM,
    Plot,
    finish,
    fixed_jitter,
    ink_on,
    method_styles,
    new_figure,
)
from segbench.reporting.tables import (
    STATE_WORDS,
    Table,
    coverage_text,
    factor_of,
    interval_text,
    points,
    shown,
    unit_of,
)

BOX_FROM = 8
"""Fewer cases than this are shown as points only: quartiles of them say little."""
CASE_PANELS = 3
LETTER_PT, BOLD_LETTER_PT = 3.9, 4.7
"""Mean width of a letter of a title and of a bold digit in figures, on the safe side."""
BAR_PT = 48
"""Width of a colour bar with its numbers."""
COST_COLUMNS = [
    "key",
    "title",
    "train_seconds",
    "iterations",
    "parameters",
    "networks",
    "complete",
    "predict_seconds",
]
DECIDED = ("positive", "negative")
"""Words of the column `transfer`: the decision rule named a better method."""


def case_plot(run: Run, table: Table) -> Plot | None:
    """Return one panel per task: a point per test case, the mean with its interval, boxes from BOX_FROM cases on.

    None where no cell has a value, such as distances of tasks whose spacing is nominal.
    """
    if not any(cell.state == "ok" for row in table.rows for cell in row.cells):
        return None
    methods = [row.method for row in table.rows]
    values = case_values(run, table)
    facts = about(table.metric)
    scale = "Logarithmic above 1 mm. " if facts.unit == "mm" else ""
    rows, columns = panel_grid(len(table.tasks), CASE_PANELS)
    styles = method_styles(run.methods + run.self_supervised)
    colours = [styles[table.experiment, *method.key]["color"] for method in methods]
    with plt.rc_context(RC), fixed_jitter():
        height = rows * (0.5 + 0.155 * len(methods)) + 0.45
        figure, axes = new_figure("double", height, nrows=rows, ncols=columns, sharey=True, sharex=True, squeeze=False)
        for i, axis in enumerate(axes.flat):
            if i >= len(table.tasks):
                axis.set_axis_off()
                continue
            _case_panel(axis, table, i, values, colours)
        _value_axis(axes[0, 0], table, values)
        panel_edges(axes, len(table.tasks), f"{facts.title} ({unit_of(table.metric)})")
        axes[0, 0].set_yticks(range(len(methods)), [method.title for method in methods])
        axes[0, 0].set_ylim(len(methods) - 0.4, -0.6)
        headline(
            figure, run, table.experiment, f"{table.experiment} test cases, {facts.title} ({facts.better} is better)"
        )
        caption = (
            f"{run.data_word(table.experiment)}{table.experiment.capitalize()} tasks, one point per test case (mean "
            "over structures and seeds; empty and missing masks count as in the table), diamond and line: mean over "
            f"cases with {run.level} interval, as in the table. {scale}Controls in grey."
        )
        return finish(figure, file_stem(f"{table.experiment}_{table.metric}_cases"), caption)


def case_values(run: Run, table: Table) -> pd.DataFrame:
    """Return one row per (model, initialisation, task, case): mean over structures and seeds in the table's unit."""
    keys = ["model", "initialisation", "task", "case"]
    rows = run.counted_rows(table.experiment, table.metric)
    values = rows.groupby(keys, sort=True)["scored"].mean().reset_index()
    return values.assign(scored=values["scored"] * factor_of(table.metric))


def _case_panel(axis: Axes, table: Table, position: int, values: pd.DataFrame, colours: Sequence[str]) -> None:
    task, order = table.tasks[position], [f"row {i}" for i in range(len(table.rows))]
    factor = factor_of(table.metric)
    numbers = {row.method.key: f"row {i}" for i, row in enumerate(table.rows) if row.cells[position].state == "ok"}
    here = values[values["task"] == task.name]
    rows = [numbers.get(key, "") for key in zip(here["model"], here["initialisation"], strict=True)]
    here = here.assign(row=rows)
    here = here[here["row"] != ""]
    palette = dict(zip(order, colours, strict=True))
    common = {"x": "scored", "y": "row", "hue": "row", "order": order, "hue_order": order, "legend": False, "ax": axis}
    many = here[here.groupby("row")["row"].transform("size") >= BOX_FROM]
    if len(many):
        with warnings.catch_warnings():  # seaborn 0.13.2 names an argument of Matplotlib by its old name
            warnings.filterwarnings("ignore", "vert: bool was deprecated", MatplotlibDeprecationWarning)
            sns.boxplot(many, **common, palette=palette, fill=False, linewidth=0.6, width=0.75, showfliers=False)
    if len(here):
        sns.stripplot(
            here, **common, palette=palette, size=2.4, alpha=0.45, jitter=0.22, linewidth=0, rasterized=len(here) > 400
        )
    for y, row in enumerate(table.rows):
        cell = row.cells[position]
        if cell.state != "ok":
            colour = VERMILLION if cell.state == "failed" else GREY
            across = axis.get_yaxis_transform()
            axis.text(0.02, y, STATE_WORDS[cell.state], color=colour, va="center", transform=across)
            continue
        if np.isfinite(cell.low) and np.isfinite(cell.high):
            axis.plot([cell.low * factor, cell.high * factor], [y, y], color=colours[y], lw=1.2, alpha=0.9)
        axis.plot(cell.mean * factor, y, marker="D", ms=3.6, mfc=colours[y], mec="white", mew=0.5, zorder=4)
    axis.set_title(wrapped(f"{task.title}, n\u00a0=\u00a0{task.n_test}", 30))
    axis.set(xlabel="", ylabel="")
    axis.grid(visible=False, axis="y")


def _value_axis(axis: Axes, table: Table, values: pd.DataFrame) -> None:
    """Set the limits of all panels at once, so that they hold every point and every interval of the figure."""
    if about(table.metric).unit == "1":
        axis.set_xlim(-2, 102)
        return
    highs = [cell.high * factor_of(table.metric) for row in table.rows for cell in row.cells]
    largest = max([1.0, *values["scored"], *(high for high in highs if np.isfinite(high))])
    if about(table.metric).unit == "mm":
        axis.set_xscale("symlog", linthresh=1, linscale=0.5)
        ticks = [0, *(10**power for power in range(0, math.ceil(math.log10(largest)) + 1))]
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(-0.1 if about(table.metric).unit == "mm" else -0.02 * largest, 1.08 * largest)


def difference_plot(
    run: Run, experiment: str, differences: pd.DataFrame, *, reference: str, metric: str = "dice"
) -> Plot:
    """Return the map of differences to a reference: tasks in rows and methods in columns, or the other way round.

    The fewer of both are the columns. A cell holds the interval too where that fits.

    Args:
        run: the run that the differences come from.
        experiment: upstream or downstream.
        differences: columns title, column (a task title or the mean, in order of appearance), difference, low, high,
            n_patients, transfer and the measured coverage (`coverage_text`); in the metric's own unit, positive where
            the method is better. `transfer` holds the decision (`DECIDED`), which alone makes a value bold.
        reference: title of the method that the others are compared with.
        metric: name of the metric.
    """
    titles, names = list(dict.fromkeys(differences["title"])), list(dict.fromkeys(differences["column"]))
    found: dict[tuple[str, str], Any] = {(row.column, row.title): row for row in named_rows(differences)}
    labels, heads = [_with_patients(differences, name) for name in names], titles
    keys = [[(name, title) for title in titles] for name in names]
    if len(titles) > len(names):
        labels, heads, keys = heads, labels, [list(column) for column in zip(*keys, strict=True)]
    cells = [[found.get(key) for key in line] for line in keys]
    grid = np.array([[getattr(cell, "difference", np.nan) for cell in line] for line in cells], float)
    grid *= factor_of(metric)
    limit = max(1.0, float(np.nanquantile(np.abs(grid), 0.95)) if np.isfinite(grid).any() else 1.0)
    room_pt = 72 * WIDTH_MM["double"] / 25.4 - LETTER_PT * max(map(len, labels)) - BAR_PT
    words, lines = _fitting_words(cells, metric, int(room_pt / len(heads) / BOLD_LETTER_PT))
    upright = room_pt / len(heads) < LETTER_PT * 12
    heads = heads if upright else [wrapped(head, int(room_pt / len(heads) / LETTER_PT)) for head in heads]
    above = LETTER_PT / 72 * max(map(len, heads)) if upright else 0.12 * max(head.count("\n") + 1 for head in heads)
    with plt.rc_context(RC | {"axes.grid": False}):
        figure, axis = new_figure("double", 0.6 + above + (0.1 + 0.12 * max(1, lines)) * len(labels))
        colours = plt.Normalize(-limit, limit)
        sns.heatmap(
            grid,
            ax=axis,
            cmap=DIVERGING,
            norm=colours,
            xticklabels=False,
            yticklabels=False,
            cbar_kws={"pad": 0.01},
        )
        for y, line in enumerate(cells):
            for x, cell in enumerate(line):
                axis.text(
                    x + 0.5,
                    y + 0.5,
                    words[y][x],
                    ha="center",
                    va="center",
                    color=ink_on(DIVERGING(colours(grid[y, x]))) if np.isfinite(grid[y, x]) else INK,
                    fontweight="bold" if getattr(cell, "transfer", "") in DECIDED else "normal",
                )
        axis.set_xticks(np.arange(len(heads)) + 0.5, heads, rotation=90 if upright else 0)
        axis.set_yticks(np.arange(len(labels)) + 0.5, labels)
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        title = f"{about(metric).title}: method minus {reference}, in {points(metric)}"
        headline(figure, run, experiment, title)
        interval = f"with {run.level} interval" if lines else f"whose {run.level} intervals are in the table of pairs"
        caption = (
            f"{run.data_word(experiment)}{about(metric).title} of each method minus {reference}, in "
            f"{points(metric)}, paired by patient (n), {interval}. Blue: the mean of the method is on "
            "the good side. Bold: the decision rule of this report names a better method on that task; nothing else is "
            f"a decision.{coverage_text(differences)}"
        )
        return finish(figure, file_stem(f"{experiment}_{metric}_differences"), caption)


def _with_patients(differences: pd.DataFrame, column: str) -> str:
    """Return the title of a row with its number of patients; the mean over tasks has none of its own."""
    patients = differences.loc[differences["column"] == column, "n_patients"].dropna()
    return f"{column} (n = {patients.max():g})" if len(patients) else column


def _fitting_words(cells: Sequence[Sequence[Any]], metric: str, letters: int) -> tuple[list[list[str]], int]:
    """Return what every cell says and on how many lines: the interval beside or below the value, or the value alone.

    Args:
        cells: rows of the table of differences, None where there is no pair.
        metric: name of the metric.
        letters: how many fit beside each other in a cell.
    """
    for lines, joint in ((1, " "), (2, "\n")):
        words = [[_difference_words(cell, metric, joint) for cell in row] for row in cells]
        if max(len(part) for row in words for text in row for part in text.split("\n")) <= letters:
            return words, lines
    return [[text.partition("\n")[0] for text in row] for row in words], 0


def _difference_words(found: Any, metric: str, joint: str) -> str:
    """Return the difference and its interval, or what there is of both."""
    if found is None or not np.isfinite(found.difference):
        return "no pair"
    value = shown(metric, found.difference, sign=True)
    if not (np.isfinite(found.low) and np.isfinite(found.high)):
        return value
    return f"{value}{joint}({interval_text(metric, found.low, found.high, sign=True)})"


def method_costs(run: Run, experiment: str) -> pd.DataFrame:
    """Return what each trained method and objective cost: means over seeds.

    Columns: key, title; train_seconds, iterations, parameters and networks are sums over the method's jobs of one seed:
    a single-task method pays for one network per task, a transferred one without its pre-training. predict_seconds is
    the time of a test case, NaN where none was predicted. `complete` is False when a job failed, whose cost is not
    known.
    """
    records, cases = [], _predicted_cases(run, experiment)
    for method in [*run.methods_of(experiment), *run.self_supervised_of(experiment)]:
        jobs = [job for job in run.jobs(experiment, method.key) if method.trained]
        if jobs:
            seeds = len({(job.seed, job.fold) for job in jobs})
            sums = {
                name: sum(getattr(job, name) for job in jobs) / seeds
                for name in ("train_seconds", "iterations", "parameters")
            }
            complete = all(job.status == "ok" for job in jobs)
            predicted = sum(job.predict_seconds for job in jobs)
            sums["predict_seconds"] = predicted / cases[method.key] if method.key in cases and predicted else math.nan
            records.append(
                {"key": method.key, "title": method.title, **sums, "networks": len(jobs) / seeds, "complete": complete}
            )
    return pd.DataFrame.from_records(records, columns=COST_COLUMNS)


def _predicted_cases(run: Run, experiment: str) -> dict[MethodKey, int]:
    """Return the number of predictions of each method: a case counts once per seed; failed and skipped ones do not."""
    rows = run.rows[(run.rows["experiment"] == experiment) & ~run.rows["status"].isin(("failed", "skipped"))]
    rows = rows.drop_duplicates(["model", "initialisation", "task", "case", "seed"])
    return {key: len(part) for key, part in groups_of(rows, ["model", "initialisation"])}


def cost_plot(run: Run, table: Table) -> Plot | None:
    """Return the mean over tasks against training seconds, iterations and parameters; None without trained methods."""
    costs = method_costs(run, table.experiment)
    means = {row.method.key: row.mean for row in table.rows if row.mean.state == "ok" and not row.mean.partial}
    costs = costs[[key in means for key in costs["key"]]] if len(costs) else costs
    if costs.empty:
        return None
    styles = method_styles(run.methods + run.self_supervised)
    factor = factor_of(table.metric)
    axes_of = {
        "train_seconds": "training time, all its jobs (s)",
        "iterations": "training iterations, all its jobs",
        "parameters": "parameters, all its networks",
    }
    with plt.rc_context(RC):
        figure, axes = new_figure("double", 2.6 + 0.14 * math.ceil(len(costs) / 3), ncols=3, sharey=True)
        for axis, (name, label) in zip(axes, axes_of.items(), strict=True):
            for row in named_rows(costs):
                cell, style = means[row.key], styles[table.experiment, *row.key]
                if not getattr(row, name) > 0:
                    continue
                errors = [[(cell.mean - cell.low) * factor], [(cell.high - cell.mean) * factor]]
                axis.errorbar(
                    getattr(row, name),
                    cell.mean * factor,
                    yerr=errors if np.isfinite(errors).all() else None,
                    fmt=style["marker"],
                    color=style["color"],
                    ms=5,
                    elinewidth=0.9,
                    mfc=style["color"] if row.complete else "white",
                )
            _count_axis(axis)
            axis.set_xlabel(label)
        if about(table.metric).unit == "1":
            axes[0].set_ylim(max(0.0, axes[0].get_ylim()[0]), min(101.0, axes[0].get_ylim()[1]))
        axes[0].set_ylabel(f"mean {about(table.metric).title} over tasks ({unit_of(table.metric)})")
        handles = []
        for row in named_rows(costs):
            style = styles[table.experiment, *row.key]
            filling = style["color"] if row.complete else "white"
            handles.append(
                Line2D([], [], ls="", ms=5, label=row.title, color=style["color"], marker=style["marker"], mfc=filling)
            )
        figure.legend(handles=handles, loc="outside lower center", ncols=_legend_columns(costs["title"].tolist()))
        headline(figure, run, table.experiment, f"{table.experiment}: {about(table.metric).title} against cost")
        caption = (
            f"{run.data_word(table.experiment)}Mean {about(table.metric).title} over {table.experiment} tasks with "
            f"{run.level} interval against what was spent on training, summed over the jobs of a method and averaged "
            "over seeds; pre-training is not counted in transferred methods. Open marker: a job of the method failed, "
            "so its cost is a lower bound."
        )
        return finish(figure, file_stem(f"{table.experiment}_{table.metric}_cost"), caption)


def _legend_columns(titles: Sequence[str]) -> int:
    """Return how many columns of a legend fit a figure of two journal columns, about 120 letters wide."""
    return max(1, min(len(titles), 120 // (max(map(len, titles)) + 7)))


def _count_axis(axis: Axes) -> None:
    """A logarithmic axis with plain numbers: 300, 2k, 1.5M."""
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    if high / low < 4:
        middle = math.sqrt(low * high)
        axis.set_xlim(middle / 2.2, middle * 2.2)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axis.xaxis.set_major_formatter(EngFormatter(sep="", places=None))
    axis.xaxis.set_minor_locator(NullLocator())


def panel_grid(panels: int, most: int) -> tuple[int, int]:
    """Return rows and columns of a figure with so many panels, at most `most` beside each other."""
    columns = min(most, panels)
    return math.ceil(panels / columns), columns


def panel_edges(axes: np.ndarray, panels: int, label: str) -> None:
    """Label the x axis below the last panel of every column, where an unused panel may lie beneath."""
    columns = axes.shape[1]
    for i in range(max(0, panels - columns), panels):
        axis = axes.flat[i]
        axis.set_xlabel(label, visible=True)
        axis.tick_params(labelbottom=True)


def headline(figure: Figure, run: Run, experiment: str, text: str) -> None:
    """Write the title above a figure; it says when the data are synthetic."""
    word = "Synthetic data \u00b7 " if run.synthetic(experiment) else ""
    figure.suptitle(f"{word}{text[0].upper()}{text[1:]}", x=0.005, ha="left", fontsize=SMALLEST_PT + 1, color=INK)


def wrapped(text: str, width: int) -> str:
    """Return a title on several lines of at most so many letters."""
    return "\n".join(textwrap.wrap(text, width)) or text
