"""The cards at the top of the page: who leads, does the prompt or the pre-training pay, cost, worst failure, trust."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd

from segbench.reporting.ablations import ablation_text, ablation_title
from segbench.reporting.cases import CaseTable
from segbench.reporting.figures import method_costs
from segbench.reporting.metrics import about
from segbench.reporting.pictures import anchor, picture_of
from segbench.reporting.run import Run
from segbench.reporting.sentences import (
    decision_word,
    difference_text,
    leader_text,
    listed,
    not_above_baselines,
    seconds_text,
    sharing_first,
)
from segbench.reporting.statistics import MEAN_COLUMN
from segbench.reporting.tables import Table

HASH_LETTERS = 12


@dataclass(frozen=True)
class Card:
    """A heading, one or two sentences, and the ids of the section that shows more and of a picture, if there is one."""

    title: str
    text: str
    link: str
    picture: str = ""


def experiment_cards(
    run: Run,
    table: Table,
    paired: pd.DataFrame | None,
    challengers: pd.DataFrame,
    ablated: pd.DataFrame,
    cases: CaseTable,
    pictures: Collection[str] = (),
) -> list[Card]:
    """Return the cards of one experiment.

    Args:
        run: the run.
        table: the table of the main metric, with marks.
        paired: the decisions of that metric; None when nothing was compared.
        challengers: what `statistics.differences` returns.
        ablated: what `ablations.ablation_frame` returns.
        cases: every case of the experiment.
        pictures: files of the pictures that the page shows.
    """
    experiment = table.experiment
    word = experiment.capitalize().replace("_", ", ")
    cards = [Card(f"{word}: {about(table.metric).title}", _leaders(table, paired), experiment)]
    if len(ablated):
        title, text = ablation_title(run, experiment), ablation_text(ablated, table.metric)
        cards.append(Card(title, text, f"{experiment}-ablation"))
    if experiment.startswith("downstream") and len(challengers):
        cards.append(Card("Does pre-training pay?", _gain(challengers, table.metric), f"{experiment}-differences"))
    costs = method_costs(run, experiment)
    costs = costs[costs["train_seconds"] > 0]
    if experiment.startswith("upstream") and len(costs):
        costs = costs.sort_values("train_seconds", kind="stable")
        ends = [f"{row['title']} {seconds_text(row['train_seconds'])}" for _, row in costs.iloc[[0, -1]].iterrows()]
        cards.append(Card("Training time", f"{' to '.join(dict.fromkeys(ends))}.", "cost"))
    if cases.rows:
        hardest = cases.rows[0]
        seen = picture_of(run, experiment, hardest.task.name, hardest.case, pictures)
        link = anchor(seen) if seen else ""
        cards.append(Card(f"Hardest {experiment} case", cases.worst, f"{experiment}-cases", link))
    return cards


def _leaders(table: Table, paired: pd.DataFrame | None) -> str:
    """Return what is decided about the method with the best mean, or why none is named."""
    above = not_above_baselines(table)
    if above:
        return f"No method is above {' and '.join(above)}."
    decided = leader_text(table, paired)
    if not decided:
        return "Not tested over tasks: no method is named better."
    first = sharing_first(table)
    if len(first) > 1:
        return f"{listed(first)} have the best mean: {first[0]} is {decided}."
    return f"{first[0]} has the best mean: {decided}."


def _gain(challengers: pd.DataFrame, metric: str) -> str:
    """Return the largest mean gain over the reference with its interval and the decision on it, and all decisions."""
    means = challengers[challengers["column"] == MEAN_COLUMN]
    best = means.sort_values("difference", ascending=False, kind="stable").iloc[0]
    gain = f"{best['title']} {difference_text(metric, best)}: {decision_word(best['transfer'])}."
    if len(means) == 1:
        return gain
    counts = means["transfer"].map(decision_word).value_counts(sort=False)
    return f"{gain} All {len(means)}: {', '.join(f'{count} {word}' for word, count in counts.items())}."


def trust_card(run: Run) -> Card:
    """Return what a reader needs to judge the numbers: seeds, cases, leaks, controls, hash, device, how to verify."""
    seeds = max(run.seeds(experiment) for experiment in run.experiments)
    cases = sum(task.n_test for task in run.record.tasks)
    parts = [f"{seeds} seed{'s' if seeds > 1 else ''}", f"{cases} test case{'s' if cases > 1 else ''}"]
    if run.record.audit is not None:
        found = len(run.record.audit.names())
        parts.append(f"{found} leak{'s' if found > 1 else ''}" if found else "no leak found")
    controls = {method.title for method in run.methods if not method.trained}
    parts.append(f"{len(controls)} controls" if controls else "no controls")
    trained = [job for job in run.record.jobs if job.iterations]
    devices = sorted({name for job in trained for name in [used.device for used in job.attempts] or [job.device]})
    parts += devices[:1] if len(devices) < 2 else [f"{len(devices)} devices"]
    check = " Check: python -m segbench verify FOLDER." if run.from_jobs else ""
    return Card("Trust", f"{', '.join(parts)}. scores.csv {run.scores_sha256[:HASH_LETTERS]}.{check}", "methods")
