"""What the page says in sentences: who is best and how sure that is, what failed, what controls tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from segbench.reporting.metrics import about
from segbench.reporting.run import Run
from segbench.reporting.statistics import (
    MEAN_COLUMN,
    TRIVIAL_BASELINES,
    Statistics,
    against_leader,
    few_patients,
    label_of,
    over_tasks,
)
from segbench.reporting.tables import (
    DASH,
    Table,
    direction,
    interval_text,
    is_distance,
    missed_text,
    points,
    shown,
    unit_of,
)
from segbench.stats.decision import CONFLICTING
from segbench.stats.ranking import ALL_TASKS

NO_INTERVAL = "no interval: a task has fewer than two patients"


def number(value: float, digits: int = 2) -> str:
    """Return a plain number, a dash for NaN."""
    return f"{value:.{digits}f}" if np.isfinite(value) else DASH


def p_text(value: float) -> str:
    """Return a p value with three decimals, small ones as a bound."""
    return "< 0.001" if value < 0.001 else number(value, 3)


def tasks_text(count: int) -> str:
    """Return '1 task', '2 tasks'."""
    return f"{count} task{'' if count == 1 else 's'}"


def seconds_text(seconds: float) -> str:
    """Return a duration as people read it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def difference_text(metric: str, found: Mapping[str, float] | pd.Series) -> str:
    """Return '+1.2 points (-0.3 to +2.7)', or that there is no interval, or no difference over tasks."""
    if not np.isfinite(found["difference"]):
        return "unknown (the two do not share every task)"
    known = np.isfinite(found["low"]) and np.isfinite(found["high"])
    limits = interval_text(metric, found["low"], found["high"], sign=True) if known else NO_INTERVAL
    return f"{shown(metric, found['difference'], sign=True)} {points(metric)} ({limits})"


def not_above_baselines(table: Table) -> list[str]:
    """Return the trivial baselines whose mean the highest-ranked trained method is not above."""
    ranking, sign = table.ranking(), direction(table.metric)
    trivial = [row for row in table.rows if not row.method.trained and row.method.model in TRIVIAL_BASELINES]
    trivial = [row for row in trivial if np.isfinite(row.mean.mean)]
    return [row.method.title for row in trivial if ranking and ranking[0].mean.mean * sign >= row.mean.mean * sign]


def sharing_first(table: Table) -> list[str]:
    """Return the titles of the trained methods with the best mean over tasks, several where they are equal."""
    return [row.method.title for row in table.ranking() if row.mean.rank == 1]


def leading_sentence(table: Table, paired: pd.DataFrame | None) -> str:
    """Say which methods lead on the mean over tasks: by the decision rule, never by the means alone.

    Args:
        table: the table of one experiment and metric.
        paired: the table of `statistics.compared`; None when nothing was compared.
    """
    ranking, unit, metric = table.ranking(), unit_of(table.metric), table.metric
    if not ranking:
        return "No trained method has a comparable mean over tasks."
    best = ranking[0]
    missed = f", {missed_text(metric, best.mean)}" if is_distance(metric) else ""
    above = not_above_baselines(table)
    if above:
        return (
            f"No method is named best: the highest-ranked one, {best.method.title} "
            f"({shown(metric, best.mean.mean)} {unit}{missed}), is not better than {' and '.join(above)}."
        )
    known = np.isfinite(best.mean.low) and np.isfinite(best.mean.high)
    limits = f"interval {interval_text(metric, best.mean.low, best.mean.high)}" if known else NO_INTERVAL
    count = sum(np.isfinite(cell.mean) for cell in best.cells)
    tasks = f"{count}" if count == len(table.tasks) else f"{count} of {len(table.tasks)}"
    first = sharing_first(table)
    verb, it = ("has", "it") if len(first) == 1 else ("share", first[0])
    text = (
        f"{listed(first)} {verb} the highest rank by mean {about(metric).title} over {tasks} {table.experiment} "
        f"task{'' if len(table.tasks) == 1 else 's'}: {shown(metric, best.mean.mean)} {unit} ({limits}{missed})."
    )
    if paired is None or paired.empty or len(ranking) < 2:
        return text
    decided = leader_text(table, paired)
    if not decided:
        return f"{text} No test was made over tasks, so no method is named better."
    labels = [label_of(row.method) for row in ranking[:2]]
    gap = over_tasks(paired, *labels)
    return (
        f"{text} By the decision rule {it} is {decided}. Difference to {ranking[1].method.title}: "
        f"{difference_text(metric, gap)}, Holm p {p_text(gap['p_holm'])}."
    )


def stability_sentence(table: Table, statistics: Statistics | None) -> str | None:
    """Say how often the highest-ranked method is first when patients and seeds are drawn again."""
    ranking = table.ranking()
    if statistics is None or len(ranking) < 2:
        return None
    if few_patients(statistics.paired):
        return "Rank probabilities are not given: a task has three patients or fewer."
    best, stable = ranking[0].method, statistics.stability
    first = stable[(stable["task"] == ALL_TASKS) & (stable["method"] == label_of(best))]
    if first.empty:
        return None
    given = "" if statistics.n_seeds > 1 else ", given these weights (one seed: other weights may rank otherwise)"
    return f"{best.title} ranks first in {100 * first['p_first'].iloc[0]:.0f} % of bootstrap samples{given}."


def leader_text(table: Table, paired: pd.DataFrame | None) -> str:
    """Return what the decision rule says of the method with the best mean against each other one; '' if untested."""
    titles = {label_of(row.method): row.method.title for row in table.ranking()}
    if paired is None or paired.empty or len(titles) < 2:
        return ""
    found = against_leader(paired, list(titles))
    leader = next(iter(titles))
    words = {
        leader: "better than",
        "": "not distinguishable from",
        CONFLICTING: "in conflict (mean and ranks disagree) with",
        **{other: "worse than" for other in found if other not in (leader, "", CONFLICTING)},
    }
    return "; ".join(f"{word} {listed(titles[x] for x in found[key])}" for key, word in words.items() if key in found)


def listed(names: Iterable[str]) -> str:
    """Return 'A', 'A and B' or 'A, B and C'."""
    *rest, last = names
    return f"{', '.join(rest)} and {last}" if rest else last


def ranking_variants_sentence(statistics: Statistics | None) -> str | None:
    """Say how often the winner changes over all defensible ways to rank."""
    if statistics is None or statistics.flips.empty:
        return None
    row = statistics.flips.iloc[0]
    return (
        f"Over {row['variants']} defensible ways to rank the same scores the highest rank is not that of "
        f"{titled(statistics, row['default_winner'])} in {100 * row['winner_changes']:.0f} %."
    )


DECISION_WORDS = {"positive": "better", "negative": "worse", CONFLICTING: "mean and ranks disagree"}


def decision_word(decision: object) -> str:
    """Return a value of the column `transfer` in words; an empty one says that nothing was tested."""
    return DECISION_WORDS.get(str(decision), "not distinguishable" if decision else "not tested")


def difference_sentences(table: pd.DataFrame, reference: str, metric: str) -> list[str]:
    """Say for each challenger on how many tasks the decision rule finds it better or worse than the reference."""
    sentences = []
    for title, part in table.groupby("title", sort=False):
        tasks, mean = part[part["column"] != MEAN_COLUMN], part[part["column"] == MEAN_COLUMN].iloc[0]
        counts = {word: int((tasks["transfer"] == word).sum()) for word in ("positive", "negative", CONFLICTING)}
        parts = [f"{DECISION_WORDS[word]} on {count}" for word, count in counts.items() if count]
        rest = len(tasks) - sum(counts.values())
        parts += [f"not distinguishable on {rest}"] if rest else []
        sentences.append(
            f"{title} against {reference}: {', '.join(parts)} of {tasks_text(len(tasks))}; mean over tasks "
            f"{difference_text(metric, mean)}, {decision_word(mean['transfer'])}."
        )
    return sentences


def baseline_sentence(checks: pd.DataFrame, metric: str) -> str | None:
    """Say where the mean of trained methods is not above the trivial baselines."""
    if checks.empty:
        return None
    title = about(metric).title
    tasks, mean = checks[checks["column"] != MEAN_COLUMN], checks[checks["column"] == MEAN_COLUMN]
    losers = list(dict.fromkeys(name for titles in checks["not_better"] for name in titles))
    if not losers:
        return f"By mean {title} every trained method is above every trivial baseline on every task."
    counts = [
        f"{name} on {sum(name in titles for titles in tasks['not_better'])} of {tasks_text(len(tasks))}"
        + (" and on the mean" if any(name in titles for titles in mean["not_better"]) else "")
        for name in losers
    ]
    return f"By mean {title} not above the best trivial baseline (empty, mean shape, threshold): {'; '.join(counts)}."


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
