"""What the page says in sentences: who is best and how sure that is, what failed, what controls tell."""

from __future__ import annotations

import numpy as np
import pandas as pd

from segbench.core.metric_facts import METRICS
from segbench.reporting.run import Run
from segbench.reporting.statistics import MEAN_COLUMN, WEAK_CONTROLS, Statistics, label_of, pair_over_tasks
from segbench.reporting.tables import DASH, Table, direction, interval_text, shown, unit_of
from segbench.stats.ranking import ALL_TASKS

NO_INTERVAL = "no interval: a task has fewer than two patients"


def points(metric: str) -> str:
    """Return the unit of differences."""
    return "points" if METRICS[metric].unit == "1" else unit_of(metric)


def number(value: float, digits: int = 2) -> str:
    """Return a plain number, a dash for NaN."""
    return f"{value:.{digits}f}" if np.isfinite(value) else DASH


def p_text(value: float) -> str:
    """Return a p value with three decimals, small ones as a bound."""
    return "< 0.001" if value < 0.001 else number(value, 3)


def seconds_text(seconds: float) -> str:
    """Return a duration as people read it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def difference_text(metric: str, found: dict) -> str:
    """Return '+1.2 points (-0.3 to +2.7)', or that there is no interval."""
    known = np.isfinite(found["low"]) and np.isfinite(found["high"])
    limits = interval_text(metric, found["low"], found["high"], sign=True) if known else NO_INTERVAL
    return f"{shown(metric, found['difference'], sign=True)} {points(metric)} ({limits})"


def verdict_text(found: dict) -> str:
    """Say whether an interval of a difference excludes 0."""
    if not (np.isfinite(found["low"]) and np.isfinite(found["high"])):
        return "how sure that is cannot be said"
    if found["low"] > 0 or found["high"] < 0:
        return "the interval excludes 0"
    return "the interval includes 0, so the two are not distinguishable"


def winner_sentence(table: Table, statistics: Statistics | None) -> str:
    """Say who has the best mean, by how much, and how sure that is."""
    ranking, unit = table.ranking(), unit_of(table.metric)
    if not ranking:
        return "No trained method has a comparable mean over tasks."
    best = ranking[0]
    sign = direction(table.metric)
    weak = [row for row in table.rows if not row.method.trained and row.method.model in WEAK_CONTROLS]
    weak = [row for row in weak if np.isfinite(row.mean.mean)]
    above = [row.method.title for row in weak if best.mean.mean * sign >= row.mean.mean * sign]
    if above:
        return (
            f"No method is named best: the highest-ranked one, {best.method.title} "
            f"({shown(table.metric, best.mean.mean)} {unit}), is not better than {' and '.join(above)}."
        )
    known = np.isfinite(best.mean.low) and np.isfinite(best.mean.high)
    limits = f"95 % interval {interval_text(table.metric, best.mean.low, best.mean.high)}" if known else NO_INTERVAL
    count = sum(np.isfinite(cell.mean) for cell in best.cells)
    tasks = f"{count}" if count == len(table.tasks) else f"{count} of {len(table.tasks)}"
    text = (
        f"{best.method.title} has the best mean {METRICS[table.metric].title} over {tasks} {table.experiment} tasks: "
        f"{shown(table.metric, best.mean.mean)} {unit} ({limits})"
    )
    if statistics is None or len(ranking) < 2:
        return text + "."
    second = ranking[1]
    found = pair_over_tasks(statistics, label_of(best.method), label_of(second.method))
    text += f"; the next is {second.method.title}, difference {difference_text(table.metric, found)}: "
    text += verdict_text(found)
    stable = statistics.stability
    first = stable[(stable["task"] == ALL_TASKS) & (stable["method"] == label_of(best.method))]
    if len(first):
        given = "" if statistics.n_seeds > 1 else ", given these weights"
        text += f". It ranks first in {100 * first['p_first'].iloc[0]:.0f} % of bootstrap samples{given}"
    return text + "."


def multiverse_sentence(statistics: Statistics | None) -> str | None:
    """Say how often the winner changes over all defensible ways to rank."""
    if statistics is None or statistics.flips.empty:
        return None
    row = statistics.flips.iloc[0]
    return (
        f"Over {row['variants']} defensible ways to rank the same scores the winner differs from "
        f"{titled(statistics, row['default_winner'])} in {100 * row['winner_changes']:.0f} %."
    )


def difference_sentences(table: pd.DataFrame, reference: str, metric: str) -> list[str]:
    """Say for each challenger on how many tasks it is better or worse than the reference."""
    sentences = []
    for title, part in table.groupby("title", sort=False):
        tasks, mean = part[part["column"] != MEAN_COLUMN], part[part["column"] == MEAN_COLUMN].iloc[0]
        better, worse = int((tasks["difference"] > 0).sum()), int((tasks["difference"] < 0).sum())
        sure_better, sure_worse = int((tasks["low"] > 0).sum()), int((tasks["high"] < 0).sum())
        holm = int((tasks["transfer"] == "positive").sum()), int((tasks["transfer"] == "negative").sum())
        sentences.append(
            f"{title} against {reference}: better on {better} and worse on {worse} of {len(tasks)} tasks (interval "
            f"excludes 0 on {sure_better} and {sure_worse}; after Holm {holm[0]} and {holm[1]}); mean "
            f"{difference_text(metric, mean)}."
        )
    return sentences


def control_sentence(checks: pd.DataFrame) -> str | None:
    """Say where trained methods do not beat the weak controls."""
    if checks.empty:
        return None
    tasks, mean = checks[checks["column"] != MEAN_COLUMN], checks[checks["column"] == MEAN_COLUMN]
    losers = list(dict.fromkeys(title for titles in checks["not_better"] for title in titles))
    if not losers:
        return "Every trained method beats the empty prediction, mean shape and best intensity window on every task."
    counts = [
        f"{title} on {sum(title in titles for titles in tasks['not_better'])} of {len(tasks)} tasks"
        + (" and on the mean" if any(title in titles for titles in mean["not_better"]) else "")
        for title in losers
    ]
    named = "the best weak control (empty, mean shape, intensity window)"
    return f"Not better than {named}: {'; '.join(counts)}. Per task below."


def failure_sentence(run: Run) -> str:
    """Count failed jobs and skipped cells."""
    jobs, skipped = run.record.jobs, run.record.skipped
    failed = [job for job in jobs if job.status == "failed"]
    text = f"{len(failed)} of {len(jobs)} jobs failed" if failed else f"All {len(jobs)} jobs finished"
    cells = len({(cell.experiment, cell.model, cell.initialisation, cell.task) for cell in skipped})
    if not cells:
        return f"{text}; no cell was skipped."
    return f"{text}; {cells} cell{'' if cells == 1 else 's'} skipped because a model does not support the task."


def titled(statistics: Statistics, labels: str) -> str:
    """Return method titles for one label or several joined by ' and '."""
    return " and ".join(statistics.titles.get(label, label) for label in labels.split(" and "))
