"""Two methods beside each other: their paired values of every case and structure, and the decision on each task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from segbench.reporting.csv_text import file_stem
from segbench.reporting.figures import DECIDED, headline
from segbench.reporting.frames import named_rows
from segbench.reporting.metrics import about
from segbench.reporting.run import Method, Run
from segbench.reporting.sections import SmallTable
from segbench.reporting.sentences import decision_word, difference_text, p_text
from segbench.reporting.statistics import against, label_of, reference_method
from segbench.reporting.style import INK, RC, WIDTH_MM, Plot, finish, new_figure, task_styles
from segbench.reporting.tables import DASH, Table, direction, factor_of, interval_text, points, shown, unit_of
from segbench.stats.decision import oriented

KEYS = ["task", "case", "structure"]
MINUS = "\u2212"
STRIP = 0.14
"""Width of the margin of missed structures, as a fraction of the axis of values."""


@dataclass(frozen=True)
class Pair:
    """A method beside the reference: its figure, its differences by task, and one line that says what was decided."""

    method: Method
    reference: Method
    plot: Plot
    table: SmallTable
    conclusion: str


def reference_pairs(run: Run, table: Table, paired: pd.DataFrame | None) -> list[Pair]:
    """Return every trained method beside the reference, in table order.

    Args:
        run: the run.
        table: the table of one experiment and metric.
        paired: the decisions of that metric (`statistics.compared`); None when nothing was compared.

    Returns:
        One entry per method that was compared with the reference; none without a reference.
    """
    reference = reference_method(run, table.experiment)
    if reference is None or paired is None or paired.empty:
        return []
    tasks = {task.name: task.title for task in table.tasks}
    found = []
    for method in run.methods_of(table.experiment):
        if method == reference or oriented(paired, label_of(method), label_of(reference)).empty:
            continue
        values = pair_values(run, table, method, reference)
        if values.empty:
            continue
        differences = against(paired, method, reference, tasks, sign=-direction(table.metric))
        mean = differences.iloc[0]
        found.append(
            Pair(
                method,
                reference,
                pair_plot(run, table, values, differences, method=method, reference=reference),
                difference_table(run, table, differences, method=method, reference=reference),
                f"{difference_text(table.metric, mean)}: {decision_word(mean['transfer'])}.",
            )
        )
    return found


def pair_values(run: Run, table: Table, method: Method, reference: Method) -> pd.DataFrame:
    """Return the values of two methods for every case and structure that counts in both.

    Returns:
        Columns task, case, structure; method and reference: means over seeds in the unit of the table, empty and
        missing masks as in the table; method_missed and reference_missed: the structure was missed with every seed.
    """
    rows = run.counted_rows(table.experiment, table.metric)
    factor, sides = factor_of(table.metric), []
    for name, chosen in (("method", method), ("reference", reference)):
        own = rows[(rows["model"] == chosen.model) & (rows["initialisation"] == chosen.initialisation)]
        groups = own.groupby(KEYS, sort=True)
        values, missed = factor * groups["scored"].mean(), groups["not_found"].all()
        sides.append(pd.DataFrame({name: values, f"{name}_missed": missed}))
    return sides[0].join(sides[1], how="inner").reset_index()


def pair_plot(
    run: Run, table: Table, values: pd.DataFrame, differences: pd.DataFrame, *, method: Method, reference: Method
) -> Plot:
    """Return the paired values on the left and the differences by task, with their intervals, on the right.

    Args:
        run: the run.
        table: the table of one experiment and metric.
        values: what `pair_values` returns.
        differences: method minus reference as `statistics.against` returns it, positive where the method is better.
        method: the method on the vertical axis.
        reference: the method on the horizontal axis.
    """
    facts = about(table.metric)
    with plt.rc_context(RC):
        height = max(WIDTH_MM["single"] / 25.4, 0.9 + 0.2 * len(differences))
        figure, (left, right) = new_figure("double", height, ncols=2, width_ratios=(1.15, 1))
        _scatter(left, run, table, values)
        left.set_xlabel(f"{reference.title} ({unit_of(table.metric)})" if facts.unit else reference.title)
        left.set_ylabel(f"{method.title} ({unit_of(table.metric)})" if facts.unit else method.title)
        _difference_points(right, run, table, differences)
        right.set_xlabel(f"{facts.title} difference ({points(table.metric)})")
        headline(figure, run, table.experiment, f"{facts.title}: {method.title} against {reference.title}")
        stem = f"{table.experiment}_{table.metric}_pair_{'_'.join(method.key)}"
        return finish(figure, file_stem(stem), _caption(run, table, values, method, reference))


def _caption(run: Run, table: Table, values: pd.DataFrame, method: Method, reference: Method) -> str:
    first, second = values["method_missed"], values["reference_missed"]
    only, other, both = (int(found.sum()) for found in (first & ~second, second & ~first, first & second))
    side = "above" if direction(table.metric) < 0 else "below"
    return (
        f"{run.data_word(table.experiment)}Left: one point per case and structure (n = {len(values)}, means over "
        f"seeds, colour and shape by task); {side} the line {method.title} is better. Structures that were missed "
        f"with every seed stand in the margin: {only} by {method.title} only, {other} by {reference.title} only, "
        f"{both} by both. Right: {method.title} minus {reference.title} by task with {run.level} interval, patients "
        f"paired, positive where {method.title} is better; filled: the decision rule names a better method."
    )


def _scatter(axis: Axes, run: Run, table: Table, values: pd.DataFrame) -> None:
    """Draw the points; a missed structure stands in a margin beyond the worst value."""
    styles = task_styles(task.name for task in run.record.tasks)
    low, high = _range(table.metric, values)
    strip = STRIP * (high - low)
    worst_is_low = direction(table.metric) < 0
    middle = low - strip / 2 - 0.02 * (high - low) if worst_is_low else high + strip / 2 + 0.02 * (high - low)
    jitter = np.random.default_rng(0).uniform(-0.35, 0.35, size=(len(values), 2)) * strip
    x = np.where(values["reference_missed"], middle + jitter[:, 0], values["reference"])
    y = np.where(values["method_missed"], middle + jitter[:, 1], values["method"])
    ends = (low - 0.02 * (high - low), high + 0.02 * (high - low))
    outer = (ends[0] - strip, ends[1]) if worst_is_low else (ends[0], ends[1] + strip)
    edge = ends[0] if worst_is_low else ends[1]
    beyond = outer[0] if worst_is_low else outer[1]
    for span in (axis.axvspan, axis.axhspan):
        span(min(edge, beyond), max(edge, beyond), color="#eeeeee", lw=0, zorder=0)
    axis.plot(ends, ends, color="#888888", lw=0.8, zorder=1)
    for name in dict.fromkeys(task.name for task in table.tasks):
        own = (values["task"] == name).to_numpy()
        axis.scatter(
            x[own],
            y[own],
            s=11,
            marker=styles[name]["marker"],
            color=styles[name]["color"],
            alpha=0.6,
            linewidths=0,
            zorder=2,
        )
    axis.set(xlim=outer, ylim=outer, box_aspect=1)
    ticks = [tick for tick in axis.get_xticks() if low <= tick <= high]
    labels = [*(f"{tick:g}".replace("-", MINUS) for tick in ticks), "missed"]
    axis.set_xticks([*ticks, middle], labels)
    axis.set_yticks([*ticks, middle], labels)
    axis.get_xticklabels()[-1].set_horizontalalignment("right" if worst_is_low else "left")


def _range(metric: str, values: pd.DataFrame) -> tuple[float, float]:
    """Return the limits of the values: 0 to 100 for fractions, otherwise what is there, with 0 where none is negative.

    Structures that either method missed do not count: they stand in the margin.
    """
    if about(metric).unit == "1":
        return 0.0, 100.0
    found = np.concatenate(
        [values.loc[~values[f"{name}_missed"], name].to_numpy(float) for name in ("method", "reference")]
    )
    low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 1.0)
    low = min(low, 0.0)
    return low, high if high > low else low + 1.0


def _difference_points(axis: Axes, run: Run, table: Table, differences: pd.DataFrame) -> None:
    """Draw one row per task and the mean over tasks; a filled marker is a decision."""
    styles = task_styles(task.name for task in run.record.tasks)
    factor, names = factor_of(table.metric), []
    for y, row in enumerate(named_rows(differences)):
        style = styles.get(row.task, {"color": INK, "marker": "d"})
        if np.isfinite(row.low) and np.isfinite(row.high):
            axis.plot([row.low * factor, row.high * factor], [y, y], color=style["color"], lw=1.1)
        axis.plot(
            row.difference * factor,
            y,
            marker=style["marker"],
            ms=4.6,
            mew=1,
            color=style["color"],
            mfc=style["color"] if row.transfer in DECIDED else "white",
        )
        names.append(f"{row.column} (n = {row.n_patients:g})" if np.isfinite(row.n_patients) else row.column)
    axis.axvline(0, color="#888888", lw=0.8, zorder=0)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(visible=False, axis="y")


def difference_table(
    run: Run, table: Table, differences: pd.DataFrame, *, method: Method, reference: Method
) -> SmallTable:
    """Return the differences of one pair as a table: the mean over tasks, then each task."""
    rows = [
        [
            row["column"],
            f"{row['n_patients']:g}" if np.isfinite(row["n_patients"]) else DASH,
            shown(table.metric, row["difference"], sign=True),
            interval_text(table.metric, row["low"], row["high"], sign=True),
            p_text(row["p_holm"]),
            decision_word(row["transfer"]),
        ]
        for _, row in differences.iterrows()
    ]
    return SmallTable(
        f"{method.title} minus {reference.title}",
        f"{run.data_word(table.experiment)}{about(table.metric).title} in {points(table.metric)}, positive where "
        f"{method.title} is better; decision on {method.title}.",
        ["Task", "Patients", "Difference", "Interval", "Holm p", "Decision"],
        rows,
    )
