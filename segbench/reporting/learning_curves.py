"""Learning curves: training loss and Dice of held-out training cases, and whether the loss has flattened at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from segbench.core.run_record import Curve, ValidationDice
from segbench.reporting.figures import headline, panel_edges, panel_grid, wrapped
from segbench.reporting.frames import groups_of, named_rows
from segbench.reporting.run import Method, Run
from segbench.reporting.sections import SmallTable
from segbench.reporting.sentences import number
from segbench.reporting.style import RC, Plot, Style, finish, method_styles, new_figure
from segbench.reporting.tables import DASH, shown

PANELS = 4
SMOOTH = 9
FLAT = 0.05
"""A loss has flattened when the last fifth of the steps brings less than this fraction of its fall, interval included.

A loss that falls along a straight line brings 0.25: a quarter of what lies between the first fifth and the last.
"""
FIFTHS = ((0.0, 0.2), (0.6, 0.8), (0.8, 1.0))
"""First, last but one and last fifth of the steps. Of tenths the noise of a batch would hide a change of this size."""
LEAST_POINTS = 5
"""Fewest points of a curve in a fifth from which its noise is estimated."""
NORMAL, MINUS = 1.96, "\u2212"
FLATTENED, FALLS, RISES, UNCLEAR = "flattened", "still falls", "rises", "not clear"
NO_FALL, TOO_FEW = "does not fall", "too few points"
VALIDATION_COLUMNS = [
    "model",
    "initialisation",
    "title",
    "task",
    "cases",
    "fold",
    "seed",
    "step",
    "progress",
    "dice",
    "seen_dice",
]
DiceOfTasks = tuple[float | None, ...]
LOSS_COLUMNS = [
    "model",
    "initialisation",
    "title",
    "jobs",
    "before",
    "last",
    "fraction_of_fall",
    "low",
    "high",
    "state",
]


def training_plot(run: Run, experiment: str) -> Plot | None:
    """Return loss and validation Dice over each job's own training, a panel per method; None without any log."""
    caption = (
        f"{run.data_word(experiment)}Training loss (Dice and cross-entropy, deep supervision included) of every "
        f"finished job, one line per job and seed, running mean over {SMOOTH} points; methods with one job "
        "per task have one line per task."
    )
    validation = validation_frame(run, experiment)
    if len(validation):
        caption += (
            " Dashed, right axis: Dice of training cases that no method learnt from, mean over tasks, one line per "
            f"fold and seed ({held_out_text(run, experiment)}). It is never used to choose anything."
        )
    methods = [method for method in run.methods_of(experiment) if method.trained]
    name, title = f"{experiment}_training", "training curves"
    return _loss_plot(run, methods, name=name, title=title, caption=caption, validation=validation)


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


def validation_frame(run: Run, experiment: str) -> pd.DataFrame:
    """Return the Dice of held-out training cases: a row per method, job, task and step; empty where none was measured.

    Columns: model, initialisation, title, task (its title), cases, fold, seed, step, progress (per cent of the steps of
    the job), dice (0 to 1, NaN where nothing was to be compared), seen_dice (of cases that were trained on, at the last
    step; NaN at others).
    """
    titles = {task.name: task.title for task in run.tasks(experiment)}
    records = [
        (*method.key, method.title, titles.get(task, task), cases, job.fold, job.seed, step, progress, dice, seen)
        for method in run.methods_of(experiment)
        for job in run.jobs(experiment, method.key)
        if job.validation is not None and job.status == "ok"
        for step, row, seen_row in _points(job.validation)
        for progress in [100 * step / job.validation.steps[-1]]  # iterations count the trials of tuning as well
        for task, cases, dice, seen in zip(job.validation.tasks, job.validation.cases, row, seen_row, strict=True)
    ]
    frame = pd.DataFrame.from_records(records, columns=VALIDATION_COLUMNS)
    return frame.astype({"dice": float, "seen_dice": float})


def _points(validation: ValidationDice) -> Iterator[tuple[int, DiceOfTasks, DiceOfTasks]]:
    """Yield each step with the Dice of held-out cases and, at the last one, of cases that were trained on."""
    nothing = (None,) * len(validation.tasks)
    for step, row in zip(validation.steps, validation.dice, strict=True):
        yield step, row, validation.seen_dice if validation.seen_dice and step == validation.steps[-1] else nothing


def loss_frame(run: Run, experiment: str) -> pd.DataFrame:
    """Return how the loss of each method, objectives included, ends: a row per method with a log.

    Columns: model, initialisation, title, jobs; before, last: mean loss in the last fifth but one and in the last fifth
    of the steps, mean over jobs; fraction_of_fall: their difference as a fraction of the fall from the first fifth to
    the last; low, high: its 95 % interval from the scatter of the points of a fifth; state: in words. Numbers are NaN
    where a curve has too few points, or the loss does not fall.
    """
    records = []
    for method in [*run.methods_of(experiment), *run.self_supervised_of(experiment)]:
        curves = [job.curve for job in run.jobs(experiment, method.key) if job.curve and job.curve.loss]
        if curves:
            fifths = [_fifths(curve) for curve in curves]
            first, before, last = np.mean([means for means, _ in fifths], axis=0)
            error = np.sqrt(sum(variance for _, variance in fifths)) / len(fifths)
            fall = first - last if first > last else np.nan
            fraction, error = (before - last) / fall, error / fall
            low, high = fraction - NORMAL * error, fraction + NORMAL * error
            state = _state(fall, low, high) if np.isfinite(first - last) else TOO_FEW
            records.append((*method.key, method.title, len(curves), before, last, fraction, low, high, state))
    return pd.DataFrame.from_records(records, columns=LOSS_COLUMNS)


def _fifths(curve: Curve) -> tuple[list[float], float]:
    """Return the mean loss in the `FIFTHS`, and the variance of the difference of the last two means.

    NaN with fewer than `LEAST_POINTS` in one of them.
    """
    progress, loss = np.asarray(curve.iteration) / curve.iteration[-1], np.asarray(curve.loss)
    parts = [loss[(progress > low) & (progress <= high)] for low, high in FIFTHS]
    if min(map(len, parts)) < LEAST_POINTS:
        return [np.nan] * len(parts), np.nan
    return [float(part.mean()) for part in parts], float(sum(part.var(ddof=1) / len(part) for part in parts[1:]))


def _state(fall: float, low: float, high: float) -> str:
    if not np.isfinite(fall):
        return NO_FALL
    if low > FLAT:
        return FALLS
    if high < -FLAT:
        return RISES
    return FLATTENED if low >= -FLAT and high <= FLAT else UNCLEAR


def learning_table(run: Run, experiment: str, name: str) -> SmallTable | None:
    """Return one row per method with a log: loss and validation Dice before the end and at the end; None without one.

    `name` begins the name of the full tables.
    """
    losses, validation = loss_frame(run, experiment), validation_frame(run, experiment)
    if losses.empty:
        return None
    ends = _validation_ends(validation)
    rows = []
    for row in named_rows(losses):
        cells = [row.title, number(row.before, 3), number(row.last, 3), _fall_text(row), row.state]
        if len(validation):
            before, last, seen, gap = ends.get((row.model, row.initialisation), (np.nan,) * 4)
            cells += [shown("dice", before), shown("dice", last), shown("dice", last - before, sign=True)]
            cells += [shown("dice", seen), shown("dice", gap, sign=True)]
        rows.append(cells)
    head = ["Method", "Loss before", "Loss at the end", "Fraction of the fall", "Loss"]
    caption = (
        f"{run.data_word(experiment)}Mean training loss in the last fifth of the steps and in the fifth before, mean "
        "over jobs, and the difference as a fraction of the fall of the loss from the first fifth to the last, with "
        f"95 % interval from the scatter along the curves. Flattened: within {100 * FLAT:g} %, interval included; a "
        "straight line has 25 %. A learning rate that decays to zero flattens a loss as well."
    )
    if len(validation):
        head += ["Dice before", "Dice at the end", "Gain", "Dice, trained on", "Gap"]
        caption += (
            " Dice in % of the held-out training cases at the last two points at which it was measured, mean over "
            "tasks, folds and seeds; no choice was made by it. Beside it that of as many cases that were trained on, "
            f"and how much higher that is. Every point: tables/{name}_validation.csv."
        )
    csv = f"tables/{name}_loss.csv"
    return SmallTable("End of the learning curves", caption, head, rows, csv, conclusion=flat_sentence(losses))


def _fall_text(row: Any) -> str:
    """Return '9 % (7 to 11)', a dash where it is not known."""
    if not np.isfinite(row.fraction_of_fall):
        return DASH
    value, low, high = (f"{100 * part:.0f}".replace("-", MINUS) for part in (row.fraction_of_fall, row.low, row.high))
    return f"{value} % ({low} to {high})"


def _validation_ends(validation: pd.DataFrame) -> dict[tuple[str, str], tuple[float, ...]]:
    """Return method -> mean Dice at the last point but one, at the last, of cases trained on, and the gap of these two.

    NaN for what was not measured.
    """
    found = {}
    for (model, initialisation), part in groups_of(validation, ["model", "initialisation"]):
        ends = []
        for _, curve in groups_of(part, ["task", "fold", "seed"]):
            points = curve.sort_values("step")
            values, seen = points["dice"].tolist(), points["seen_dice"].iloc[-1]
            ends.append((values[-2] if len(values) > 1 else np.nan, values[-1], seen, seen - values[-1]))
        found[model, initialisation] = tuple(pd.DataFrame(ends).mean())
    return found


def flat_sentence(losses: pd.DataFrame) -> str:
    """Say of which methods the loss has flattened at the end, and of which it has not; '' without any loss."""
    words = {
        FLATTENED: "has flattened",
        FALLS: "still falls",
        RISES: "rises",
        UNCLEAR: "may still fall",
        NO_FALL: "did not fall",
        TOO_FEW: "has too few points to tell",
    }
    groups = {state: losses.loc[losses["state"] == state, "title"].tolist() for state in words}
    named = {state: titles for state, titles in groups.items() if titles}
    if not named:
        return ""
    if len(named) == 1:
        (state,) = named
        return f"At the end the loss of every method {words[state]}."
    texts = [f"{words[state]} for {', '.join(titles)}" for state, titles in named.items()]
    return f"At the end the loss {'; '.join(texts)}."


def held_out_text(run: Run, experiment: str) -> str:
    """Return how many training cases of each task are held out in the first fold, such as 'Spleen: 2, Liver: 3'."""
    return ", ".join(f"{task.title}: {task.n_validation}" for task in run.tasks(experiment) if task.n_validation)


def _loss_plot(
    run: Run,
    methods: Sequence[Method],
    *,
    name: str,
    title: str,
    caption: str,
    same_levels: bool = True,
    validation: pd.DataFrame | None = None,
) -> Plot | None:
    curves = {method.key: _curves(run, method) for method in methods}
    styles = method_styles(run.methods + run.self_supervised)
    methods = [method for method in methods if curves[method.key]]
    if not methods:
        return None
    experiment = methods[0].experiment
    rows, columns = panel_grid(len(methods), PANELS)
    with plt.rc_context(RC):
        height = 0.45 + 1.35 * rows
        figure, axes = new_figure(
            "double", height, nrows=rows, ncols=columns, sharex=True, sharey=same_levels, squeeze=False
        )
        for i, axis in enumerate(axes.flat):
            if i >= len(methods):
                axis.set_axis_off()
                continue
            style = styles[experiment, *methods[i].key]
            for fraction, loss in curves[methods[i].key]:
                axis.plot(100 * fraction, loss, color=style["color"], lw=0.9, alpha=0.75)
            axis.set_title(wrapped(methods[i].title, 24))
            if validation is not None and len(validation):
                last_column = i % columns == columns - 1
                _draw_validation(axis, _of_method(validation, methods[i]), style, labelled=last_column)
        panel_edges(axes, len(methods), "iterations of the job (%)")
        for axis in axes[:, 0]:
            axis.set_ylabel("training loss")
        headline(figure, run, experiment, f"{experiment} {title}")
        return finish(figure, name, caption)


def _curves(run: Run, method: Method) -> list[tuple[np.ndarray, np.ndarray]]:
    curves = []
    for job in run.jobs(method.experiment, method.key):
        if job.curve and job.curve.loss:
            iteration = np.asarray(job.curve.iteration)
            loss = pd.Series(job.curve.loss).rolling(SMOOTH, min_periods=1, center=True).mean()
            curves.append((iteration / iteration[-1], loss.to_numpy()))
    return curves


def _of_method(validation: pd.DataFrame, method: Method) -> pd.DataFrame:
    model, initialisation = method.key
    return validation[(validation["model"] == model) & (validation["initialisation"] == initialisation)]


def _draw_validation(axis: Axes, own: pd.DataFrame, style: Style, *, labelled: bool) -> None:
    """Draw the mean Dice over tasks of each fold and seed on a right axis that is the same in every panel."""
    right = axis.twinx()
    for _, part in groups_of(own, ["fold", "seed"]):
        points = part.groupby("progress")["dice"].agg(["mean", "size"])
        whole = points[points["size"] == points["size"].max()]  # points at which every task was measured
        right.plot(
            whole.index, 100 * whole["mean"], color=style["color"], marker=style["marker"], ms=2.5, ls="--", lw=0.7
        )
    right.set_ylim(-2, 102)
    right.grid(visible=False)
    right.spines["right"].set_visible(True)
    right.tick_params(labelright=labelled)
    if labelled:
        right.set_ylabel("held-out Dice (%)")
