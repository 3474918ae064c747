"""What `segbench compare` writes: CSV tables, one Markdown page and figures, all rendered before any is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from segbench.core.errors import Problem, suggestion
from segbench.core.files import write_bytes, write_text
from segbench.core.vocabulary import HANDLED_STATUSES
from segbench.metrics.registry import METRICS
from segbench.reporting.rank_figures import critical_difference_figure, fraction_map
from segbench.reporting.style import COLOURS, RC, finish, plt
from segbench.stats.comparison import TITLES, Options, notes
from segbench.stats.missing_masks import Handling
from segbench.stats.ranking import ALL_TASKS
from segbench.stats.scores import UNIT_INTERVAL_METRICS

PLAIN = {
    "difference",
    "low",
    "high",
    "mean",
    "sd",
    "median_difference",
    "minimum_detectable",
    "smallest",
    "largest",
    "sd_of_differences",
    "region",
    "published",
    "measured",
    "low_as_seen",
    "high_as_seen",
}
"""Columns in the unit of the metric; fractions are shown in per cent."""
ABOUT = ("experiment", "initialisation", "protocol", "n_seeds", "n_seeds_a", "n_seeds_b", "seed_degrees")
"""Columns that the page leaves out where every row says the same."""
HIDDEN = {"patient_low", "patient_high", "seed_means", "seed_noise", "source_url", "table"}
VOLUMES = tuple(name for name, metric in METRICS.items() if metric.unit == "ml")
LONGEST = 60
"""Rows of a table on the page; the CSV file has all."""


def parse_missing_masks(texts: Sequence[str], metrics: Sequence[str]) -> tuple[dict[str, Handling], list[Problem]]:
    """Return metric -> handling from METRIC.STATUS=VALUE, and a problem for each text that is not one."""
    missing_masks: dict[str, dict[str, float | str]] = {}
    problems = []
    for text in texts:
        name, _, value = text.partition("=")
        metric, _, status = name.rpartition(".")
        number = _number(value)
        if metric not in metrics:
            problems.append(
                Problem(f"--missing-masks {text}", repr(metric), "a metric of the table", suggestion(metric, metrics))
            )
        elif status not in HANDLED_STATUSES:
            problems.append(
                Problem(f"--missing-masks {text}", repr(status), "a status", suggestion(status, HANDLED_STATUSES))
            )
        elif number is None and value != "exclude":
            problems.append(
                Problem(f"--missing-masks {text}", repr(value), "a number or 'exclude'", "write METRIC.STATUS=VALUE")
            )
        else:
            missing_masks.setdefault(metric, {})[status] = "exclude" if number is None else number
    return missing_masks, problems


def parse_equivalence(texts: Sequence[str], metrics: Sequence[str]) -> tuple[dict[str, float], list[Problem]]:
    """Return metric -> half-width from METRIC=NUMBER, and a problem for each text that is not one."""
    widths, problems = {}, []
    for text in texts:
        metric, _, value = text.partition("=")
        number = _number(value)
        if metric not in metrics:
            known = suggestion(metric, metrics)
            problems.append(Problem(f"--equivalence {text}", repr(metric), "a metric of the table", known))
        elif number is None or number <= 0:
            problems.append(
                Problem(f"--equivalence {text}", repr(value), "a positive number", "write METRIC=HALF_WIDTH")
            )
        else:
            widths[metric] = number
    return widths, problems


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def figures(tables: dict[str, pd.DataFrame], options: Options) -> list:
    """Return a critical-difference diagram and a rank-stability figure per experiment and metric where there is one."""
    plots = []
    word = "Synthetic data. " if options.synthetic else ""
    for (experiment, metric), part in tables["rank_distribution"].groupby(["experiment", "metric"], sort=False):
        plots.append(_stability_figure(part[part["task"] == ALL_TASKS], f"{word}{experiment}, {metric}"))
        tested = tables.get("friedman", pd.DataFrame(columns=["experiment", "metric"]))
        tested = tested[(tested["experiment"] == experiment) & (tested["metric"] == metric)]
        if len(tested):
            task = ALL_TASKS if (tested["task"] == ALL_TASKS).any() else tested["task"].iloc[0]
            p_values = tables["nemenyi"]
            keys = (p_values["experiment"] == experiment) & (p_values["metric"] == metric) & (p_values["task"] == task)
            title = f"{word}{experiment}, {metric}, {task}"
            plots.append(_difference_figure(tested[tested["task"] == task], p_values[keys], title))
    return [plot for plot in plots if plot is not None]


def _file_name(title: str, suffix: str) -> str:
    kept = "".join(letter if letter.isalnum() else "_" for letter in title.removeprefix("Synthetic data. "))
    return f"{kept.lower()}_{suffix}".replace("__", "_")


def _palette(methods: Sequence[str]) -> dict[str, str]:
    """One colour per method, by name, so that it is the same in every figure."""
    return {method: COLOURS[i % len(COLOURS)] for i, method in enumerate(sorted(methods))}


def _difference_figure(tested: pd.DataFrame, p_values: pd.DataFrame, title: str):
    """Mean ranks with bars that join methods which Nemenyi's test does not distinguish."""
    first = tested.iloc[0]
    ranks = tested.set_index("method")["mean_rank"]
    matrix = pd.DataFrame(np.eye(len(ranks)), index=ranks.index, columns=ranks.index)
    for row in p_values.itertuples():
        matrix.loc[row.method_a, row.method_b] = matrix.loc[row.method_b, row.method_a] = row.p_value
    with plt.rc_context(RC | {"axes.grid": False}):
        names = {method: method for method in ranks.index}
        figure = critical_difference_figure(ranks, matrix, titles=names, colours=_palette(ranks.index))
        figure.suptitle(f"{title}: mean rank (1 is best)", fontsize=9)
        unit = "tasks" if first.task == ALL_TASKS else "patients"
        caption = (
            f"{title}: mean rank over {first.n_blocks} {unit}; bars join what Nemenyi's test does not distinguish "
            f"(critical difference {first.critical_difference:.2f}; Friedman p = {first.p_value:.2g})."
        )
        return finish(figure, _file_name(title, "critical_difference"), caption)


def _stability_figure(fractions: pd.DataFrame, title: str):
    """Fraction of draws in which a method takes a rank; None without a method on every task."""
    if fractions.empty:
        return None
    with plt.rc_context(RC | {"axes.grid": False}):
        figure = fraction_map(fractions, {method: method for method in fractions["method"]})
        figure.suptitle(f"{title}: rank stability", fontsize=9)
        caption = f"{title}: fraction of bootstrap draws (patients, seeds) in which a method takes a rank by mean."
        return finish(figure, _file_name(title, "rank_stability"), caption)


def write(out: Path, rows: pd.DataFrame, tables: dict[str, pd.DataFrame], plots: list, options: Options) -> None:
    """Render all files, then write each atomically; index.md comes last and names the others."""
    content: dict[str, bytes] = {}
    for name, table in tables.items():
        content[f"{name}.csv"] = table.to_csv(index=False, lineterminator="\n").encode()
    for plot in plots:
        content[f"{plot.name}.png"], content[f"{plot.name}.svg"] = plot.png, plot.svg
    page = _page(rows, tables, plots, options)
    for name, data in content.items():
        write_bytes(out / name, data)
    write_text(out / "index.md", page)


def _page(rows: pd.DataFrame, tables: dict[str, pd.DataFrame], plots: list, options: Options) -> str:
    synthetic = " (synthetic data)" if options.synthetic else ""
    tasks = rows["task"].nunique()
    lines = [f"# Comparison of {rows['model'].nunique()} models on {tasks} task{'s' * (tasks > 1)}{synthetic}", ""]
    lines += [f"- {note}" for note in notes(rows, options)] + [""]
    for plot in plots:
        lines += [f"![{plot.caption}]({plot.name}.png)", "", f"*{plot.caption}*", ""]
    for name, table in tables.items():
        shown = table.head(LONGEST)
        lines += [f"## {TITLES[name]}{synthetic}", "", _markdown(shown), ""]
        rest = f", {len(table) - LONGEST} more rows there" if len(table) > LONGEST else ""
        lines += [f"All columns in [{name}.csv]({name}.csv){rest}. {_under(name, options)}".rstrip(), ""]
    return "\n".join(lines)


def _under(name: str, options: Options) -> str:
    """The sentence that a table needs beside the notes above."""
    return {
        "cells": "low, high: interval; coverage: measured in simulations with as many patients, worst to best design.",
        "paired": "difference: a minus b; p_holm: corrected over `family` tests; p_equivalent: posterior probability "
        "that the difference lies inside plus or minus `region`.",
        "detectable": f"Mean difference found with 80 % power at level {options.alpha:g}, before correction.",
        "published": "low, high: measured interval (missed structures as seen); within 0.5 Dice points is reproduced.",
        "ranking_variants_summary": "winner_changes: fraction of variants with another winner than the default one.",
    }.get(name, "")


def _markdown(table: pd.DataFrame) -> str:
    same = [name for name in ABOUT if name in table and table[name].nunique(dropna=False) == 1]
    shown = table.drop(columns=[*same, *(name for name in table.columns if name in HIDDEN)])
    metrics = shown["metric"] if "metric" in shown else pd.Series("", index=shown.index)
    text = pd.DataFrame(
        {
            name: [_cell(name, value, metric) for value, metric in zip(shown[name], metrics, strict=True)]
            for name in shown.columns
        }
    )
    return text.to_markdown(index=False, disable_numparse=True)


def _cell(column: str, value: object, metric: str) -> str:
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return ""
        if column in PLAIN:
            return (
                f"{100 * value:.1f}"
                if metric in UNIT_INTERVAL_METRICS
                else f"{value:.{2 if metric in VOLUMES else 1}f}"
            )
        return f"{value:.2g}" if column.startswith("p_") or column == "p_value" else f"{value:.3g}"
    return str(value).replace("|", "\\|")
