"""Figures of the scores: cases per task, differences to the single-task model, training curves, Dice against cost."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from segbench.metrics.registry import METRICS
from segbench.reporting.run import Method, Run
from segbench.reporting.style import DIVERGING, GREY, INK, RC, VERMILLION, Plot, finish, method_styles
from segbench.reporting.tables import STATE_WORDS, Table, shown, unit_of
from segbench.stats.aggregate import apply_policies

BOX_FROM = 8
PANELS_PER_ROW = 4
SMOOTH = 9


def case_plot(run: Run, table: Table) -> Plot:
    """Return one panel per task: a point per test case, the mean with its interval, boxes from BOX_FROM cases on."""
    methods = [row.method for row in table.rows]
    values = case_values(run, table)
    about = METRICS[table.metric]
    logarithmic = about.unit == "mm"
    rows, columns = _grid(len(table.tasks))
    with plt.rc_context(RC):
        height = rows * (0.62 + 0.2 * len(methods)) + 0.5
        figure, axes = plt.subplots(
            rows, columns, figsize=(11, height), sharey=True, sharex=True, squeeze=False, layout="constrained"
        )
        for i, axis in enumerate(axes.flat):
            if i >= len(table.tasks):
                axis.set_axis_off()
                continue
            _case_panel(axis, table, i, values, logarithmic=logarithmic)
        _panel_edges(axes, len(table.tasks), f"{about.title} ({unit_of(table.metric)})")
        axes[0, 0].set_yticks(range(len(methods)), [method.title for method in methods])
        axes[0, 0].set_ylim(len(methods) - 0.4, -0.6)
        headline(
            figure, run, table.experiment, f"{table.experiment} test cases, {about.title} ({about.better} is better)"
        )
        caption = (
            f"{run.data_word(table.experiment)}{table.experiment.capitalize()} tasks, one point per test case (mean "
            "over structures and seeds, policy applied), diamond and line: mean over cases with 95 % interval, as "
            f"in the table{'; logarithmic above 1 mm' if logarithmic else ''}. Controls in grey."
        )
        return finish(figure, f"{table.experiment}_{table.metric}_cases", caption)


def case_values(run: Run, table: Table) -> pd.DataFrame:
    """Return one row per (model, initialisation, task, case): mean over structures and seeds in the table's unit."""
    rows = run.rows[(run.rows["experiment"] == table.experiment) & (run.rows["metric"] == table.metric)]
    rows = apply_policies(rows, run.record["policies"])
    keys = ["model", "initialisation", "task", "case"]
    values = rows[rows["counted"]].groupby(keys, sort=True)["scored"].mean().reset_index()
    return values.assign(scored=values["scored"] * _factor(table.metric))


def _case_panel(axis, table: Table, position: int, values: pd.DataFrame, *, logarithmic: bool) -> None:
    task = table.tasks[position]
    styles = method_styles([row.method for row in table.rows])
    here = values[values["task"] == task["name"]]
    factor = _factor(table.metric)
    for y, row in enumerate(table.rows):
        style, cell = styles[row.method.key], row.cells[position]
        if cell.state != "ok":
            axis.text(
                0.02,
                y,
                STATE_WORDS[cell.state],
                color=VERMILLION if cell.state == "failed" else GREY,
                fontsize=6.5,
                va="center",
                transform=axis.get_yaxis_transform(),
            )
            continue
        points = here[(here["model"] == row.method.model) & (here["initialisation"] == row.method.initialisation)][
            "scored"
        ]
        points = points.to_numpy()
        if len(points) >= BOX_FROM:
            axis.boxplot(
                points,
                positions=[y],
                orientation="horizontal",
                widths=0.6,
                showfliers=False,
                manage_ticks=False,
                medianprops={"color": style["color"]},
                boxprops={"color": "#bbbbbb"},
                whiskerprops={"color": "#bbbbbb"},
                capprops={"color": "#bbbbbb"},
            )
        offsets = 0.22 * (((np.arange(len(points)) * 0.618) % 1) - 0.5) * 2  # even spread, the same every time
        axis.scatter(
            points, y + offsets, s=9, color=style["color"], alpha=0.45, linewidths=0, rasterized=len(points) > 60
        )
        if np.isfinite(cell.low) and np.isfinite(cell.high):
            axis.plot([cell.low * factor, cell.high * factor], [y, y], color=style["color"], lw=1.2, alpha=0.9)
        axis.plot(cell.mean * factor, y, marker="D", ms=4.2, mfc=style["color"], mec="white", mew=0.6)
    axis.set_title(_wrapped(f"{task['title']}, n\u00a0=\u00a0{task['n_test']}", 34))
    if logarithmic:
        axis.set_xscale("symlog", linthresh=1, linscale=0.5)
        axis.set_xlim(left=0)
        axis.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.set_xlim(-2, 102)
    axis.grid(visible=False, axis="y")


def difference_plot(
    run: Run, experiment: str, differences: pd.DataFrame, *, reference: str, metric: str = "dice"
) -> Plot:
    """Return the heat map of differences to a reference: columns title, column, difference, low, high, n.

    Differences are in the metric's own unit and positive where the method is better; `column` is a task title or the
    mean, in order of appearance. An interval that excludes 0 is printed in bold.
    """
    factor = _factor(metric)
    titles, names = list(dict.fromkeys(differences["title"])), list(dict.fromkeys(differences["column"]))
    found = {(row.title, row.column): row for row in differences.itertuples()}
    grid = np.array([[getattr(found.get((t, c)), "difference", np.nan) * factor for c in names] for t in titles], float)
    limit = max(1.0, float(np.nanquantile(np.abs(grid), 0.95)) if np.isfinite(grid).any() else 1.0)
    with plt.rc_context(RC | {"axes.grid": False}):
        figure, axis = plt.subplots(
            figsize=(max(5.5, 2.1 + 0.92 * len(names)), 1.55 + 0.52 * len(titles)), layout="constrained"
        )
        image = axis.imshow(grid, cmap=DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
        for y, title in enumerate(titles):
            for x, name in enumerate(names):
                _difference_text(axis, x, y, found.get((title, name)), metric, limit)
        axis.set_yticks(range(len(titles)), titles)
        axis.set_xticks(range(len(names)), [_with_patients(differences, name) for name in names], fontsize=7)
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        for side in axis.spines.values():
            side.set_visible(False)
        figure.colorbar(
            image, ax=axis, shrink=0.9, pad=0.01, label=f"{METRICS[metric].title} difference ({_points(metric)})"
        )
        headline(figure, run, experiment, f"{METRICS[metric].title}: method minus {reference}")
        caption = (
            f"{run.data_word(experiment)}{METRICS[metric].title} of each method minus {reference}, in "
            f"{_points(metric)}, paired by patient, with 95 % interval. Blue: the method is better; bold: the "
            "interval excludes 0 (not corrected for the number of tasks)."
        )
        return finish(figure, f"{experiment}_{metric}_differences", caption)


def _with_patients(differences: pd.DataFrame, column: str) -> str:
    """Return the wrapped title of a column with its number of patients; the mean over tasks has none of its own."""
    patients = differences.loc[differences["column"] == column, "n_patients"].dropna()
    count = f"\nn = {patients.max():g}" if len(patients) else ""
    return _wrapped(column, 14) + count


def _difference_text(axis, x: int, y: int, found, metric: str, limit: float) -> None:
    if found is None or not np.isfinite(found.difference):
        axis.text(x, y, "no pair", ha="center", va="center", fontsize=6, color=GREY)
        return
    colour = "white" if abs(found.difference * _factor(metric)) > 0.7 * limit else INK
    sure = found.low > 0 or found.high < 0
    axis.text(
        x,
        y - 0.13,
        shown(metric, found.difference, sign=True),
        ha="center",
        va="center",
        color=colour,
        fontsize=8,
        fontweight="bold" if sure else "normal",
    )
    if np.isfinite(found.low) and np.isfinite(found.high):
        limits = f"{shown(metric, found.low, sign=True)} to {shown(metric, found.high, sign=True)}"
        axis.text(x, y + 0.22, limits, ha="center", va="center", color=colour, fontsize=5.8)


def training_plot(run: Run, experiment: str) -> Plot | None:
    """Return the loss over each job's own training, one panel per method; None when no log was written."""
    caption = (
        f"{run.data_word(experiment)}Training loss (Dice and cross-entropy, deep supervision included) of every "
        f"finished job, one line per job and seed, running mean over {SMOOTH} points; methods with one job "
        "per task have one line per task."
    )
    methods = [method for method in run.methods_of(experiment) if method.trained]
    return _loss_plot(run, methods, name=f"{experiment}_training", title="training curves", caption=caption)


def self_supervised_plot(run: Run, experiment: str) -> Plot | None:
    """Return the loss of the self-supervised objectives, one panel each; None when no log was written."""
    caption = (
        f"{run.data_word(experiment)}Loss of every finished self-supervised objective, one line per seed, running mean "
        f"over {SMOOTH} points. Each objective has a loss of its own, so that levels are not compared."
    )
    title = "self-supervised training curves"
    methods = run.self_supervised_of(experiment)
    return _loss_plot(
        run, methods, name=f"{experiment}_self_supervised", title=title, caption=caption, same_levels=False
    )


def _loss_plot(
    run: Run, methods: Sequence[Method], *, name: str, title: str, caption: str, same_levels: bool = True
) -> Plot | None:
    curves = {method.key: _curves(run, method.experiment, method) for method in methods}
    styles = method_styles(methods)
    methods = [method for method in methods if curves[method.key]]
    if not methods:
        return None
    experiment = methods[0].experiment
    rows, columns = _grid(len(methods))
    with plt.rc_context(RC):
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(11, 0.5 + 1.75 * rows),
            sharex=True,
            sharey=same_levels,
            squeeze=False,
            layout="constrained",
        )
        for i, axis in enumerate(axes.flat):
            if i >= len(methods):
                axis.set_axis_off()
                continue
            for fraction, loss in curves[methods[i].key]:
                axis.plot(100 * fraction, loss, color=styles[methods[i].key]["color"], lw=0.9, alpha=0.75)
            axis.set_title(_wrapped(methods[i].title, 34))
        _panel_edges(axes, len(methods), "fraction of the job's iterations (%)")
        for axis in axes[:, 0]:
            axis.set_ylabel("training loss")
        headline(figure, run, experiment, f"{experiment} {title}")
        return finish(figure, name, caption)


def _curves(run: Run, experiment: str, method: Method) -> list[tuple[np.ndarray, np.ndarray]]:
    curves = []
    for job in run.jobs(experiment, method.key):
        if job["curve"] and job["curve"]["loss"]:
            iteration = np.asarray(job["curve"]["iteration"])
            loss = pd.Series(job["curve"]["loss"]).rolling(SMOOTH, min_periods=1, center=True).mean()
            curves.append((iteration / iteration[-1], loss.to_numpy()))
    return curves


def method_costs(run: Run, experiment: str) -> pd.DataFrame:
    """Return train_seconds, iterations, parameters and complete of each trained method and objective, means over seeds.

    Figures are sums over the method's jobs of one seed: a single-task method pays for one network per task, a
    transferred one without its pre-training. `complete` is False when a job failed, whose cost is not known.
    """
    records = []
    for method in [*run.methods_of(experiment), *run.self_supervised_of(experiment)]:
        jobs = [job for job in run.jobs(experiment, method.key) if method.trained]
        if jobs:
            seeds = len({(job["seed"], job.get("fold", 0)) for job in jobs})
            sums = {
                name: sum(job[name] for job in jobs) / seeds for name in ("train_seconds", "iterations", "parameters")
            }
            complete = all(job["status"] == "ok" for job in jobs)
            records.append(
                {"key": method.key, "title": method.title, **sums, "networks": len(jobs) / seeds, "complete": complete}
            )
    return pd.DataFrame.from_records(
        records, columns=["key", "title", "train_seconds", "iterations", "parameters", "networks", "complete"]
    )


def cost_plot(run: Run, table: Table) -> Plot | None:
    """Return the mean over tasks against training seconds, iterations and parameters; None without trained methods."""
    costs = method_costs(run, table.experiment)
    means = {row.method.key: row.mean for row in table.rows if row.mean.state == "ok" and not row.mean.partial}
    costs = costs[[key in means for key in costs["key"]]] if len(costs) else costs
    if costs.empty:
        return None
    styles = method_styles([row.method for row in table.rows])
    factor = _factor(table.metric)
    axes_of = {
        "train_seconds": "training time, all its jobs (s)",
        "iterations": "training iterations, all its jobs",
        "parameters": "parameters, all its networks",
    }
    with plt.rc_context(RC):
        figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
        for axis, (name, label) in zip(axes, axes_of.items(), strict=True):
            for row in costs.itertuples():
                cell, style = means[row.key], styles[row.key]
                if not getattr(row, name) > 0:
                    continue
                errors = [[(cell.mean - cell.low) * factor], [(cell.high - cell.mean) * factor]]
                axis.errorbar(
                    getattr(row, name),
                    cell.mean * factor,
                    yerr=errors if np.isfinite(errors).all() else None,
                    fmt=style["marker"],
                    color=style["color"],
                    ms=6.5,
                    elinewidth=0.9,
                    mfc=style["color"] if row.complete else "white",
                )
            _count_axis(axis)
            axis.set_xlabel(label)
        if METRICS[table.metric].unit == "1":
            axes[0].set_ylim(max(0.0, axes[0].get_ylim()[0]), min(101.0, axes[0].get_ylim()[1]))
        axes[0].set_ylabel(f"mean {METRICS[table.metric].title} over tasks ({unit_of(table.metric)})")
        handles = [
            Line2D(
                [],
                [],
                ls="",
                ms=6,
                label=row.title,
                **styles[row.key],
                mfc=styles[row.key]["color"] if row.complete else "white",
            )
            for row in costs.itertuples()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
        headline(figure, run, table.experiment, f"{table.experiment}: {METRICS[table.metric].title} against cost")
        caption = (
            f"{run.data_word(table.experiment)}Mean {METRICS[table.metric].title} over {table.experiment} tasks with "
            "95 % interval against what was spent on training, summed over the jobs of a method and averaged over "
            "seeds; pre-training is not counted in transferred methods. Open marker: a job of the method failed, so "
            "its cost is a lower bound."
        )
        return finish(figure, f"{table.experiment}_{table.metric}_cost", caption)


def _count_axis(axis) -> None:
    """A logarithmic axis with plain numbers: 300, 2k, 1.5M."""
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    if high / low < 4:
        middle = math.sqrt(low * high)
        axis.set_xlim(middle / 2.2, middle * 2.2)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axis.xaxis.set_major_formatter(EngFormatter(sep="", places=None))
    axis.xaxis.set_minor_locator(NullLocator())


def _grid(panels: int) -> tuple[int, int]:
    columns = min(PANELS_PER_ROW, panels)
    return math.ceil(panels / columns), columns


def _panel_edges(axes: np.ndarray, panels: int, label: str) -> None:
    """Label the x axis below the last panel of every column, where an unused panel may lie beneath."""
    columns = axes.shape[1]
    for i in range(max(0, panels - columns), panels):
        axis = axes.flat[i]
        axis.set_xlabel(label)
        axis.tick_params(labelbottom=True)


def headline(figure: Figure, run: Run, experiment: str, text: str) -> None:
    """Write the title above a figure; it says when the data are synthetic."""
    word = "Synthetic data \u00b7 " if run.synthetic(experiment) else ""
    figure.suptitle(f"{word}{text[0].upper()}{text[1:]}", x=0.005, ha="left", fontsize=9.5, color=INK)


def _factor(metric: str) -> float:
    return 100.0 if METRICS[metric].unit == "1" else 1.0


def _points(metric: str) -> str:
    return "points" if METRICS[metric].unit == "1" else unit_of(metric)


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width)) or text
