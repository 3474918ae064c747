"""Methods side by side: what is compared is a model with an initialisation, case by case.

`case_table` is the one wide table from which paired tests, rankings, transfer maps and the ranking variants start.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from segbench.core.errors import Problem, raise_problems
from segbench.core.vocabulary import NEVER_COUNTED
from segbench.stats.missing_masks import Handling, apply_handling

PLAIN_INITIALISATIONS = ("", "random", "none")
CASE_KEYS = ["task", "patient", "case", "structure"]


def method_labels(rows: pd.DataFrame) -> pd.Series:
    """Return 'model', or 'model (initialisation)' where the initialisation is not the plain one, for every row."""
    plain = rows["initialisation"].isin(PLAIN_INITIALISATIONS)
    return rows["model"].where(plain, rows["model"] + " (" + rows["initialisation"] + ")")


def check_complete(rows: pd.DataFrame, *, where: str = "scores") -> None:
    """Raise `InputError` when a method lacks rows that another method has: a missing row is an error, not a smaller n.

    Every (model, initialisation, seed) must have the same tasks, and on them the same cases, structures and metrics; a
    failed case and a task that a model does not serve are rows with their status.
    """
    keys = ["case", "structure", "metric"]
    problems = _missing_tasks(rows, where)
    for (experiment, protocol, task), part in rows.groupby(["experiment", "protocol", "task"], sort=False):
        expected = pd.MultiIndex.from_frame(part[keys].drop_duplicates())
        for (model, initialisation, seed), own in part.groupby(["model", "initialisation", "seed"], sort=False):
            missing = expected.difference(pd.MultiIndex.from_frame(own[keys]), sort=True)
            if len(missing):
                problems.append(
                    Problem(
                        f"{where}: {experiment}/{protocol}/{task}: {model} {initialisation} seed {seed}",
                        f"{len(missing)} of {len(expected)} rows missing, first {'/'.join(map(str, missing[0]))}",
                        "the same cases, structures and metrics for every method",
                        "add the rows with a status such as prediction_missing, failed or skipped",
                    )
                )
    raise_problems(problems)


def _missing_tasks(rows: pd.DataFrame, where: str) -> list[Problem]:
    problems = []
    for experiment, part in rows.groupby("experiment", sort=False):
        tasks = set(zip(part["task"], part["protocol"], strict=True))
        for (model, initialisation, seed), own in part.groupby(["model", "initialisation", "seed"], sort=False):
            missing = sorted(tasks - set(zip(own["task"], own["protocol"], strict=True)))
            if missing:
                problems.append(
                    Problem(
                        f"{where}: {experiment}: {model} {initialisation} seed {seed}",
                        f"no row of {', '.join(f'{task} under protocol {protocol!r}' for task, protocol in missing)}",
                        "the same tasks under the same protocols for every method",
                        "add its rows, with the status skipped where the method does not serve the task",
                    )
                )
    return problems


def first_protocol(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each task's first protocol."""
    return rows[rows["protocol"] == rows.groupby(["experiment", "task"])["protocol"].transform("first")]


def countable(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rows of a metric without the tasks on which it is defined for nobody (nominal spacing, say).

    Such a task can rank nobody; kept, it would leave every method without a mean over tasks.
    """
    chosen = rows[rows["metric"] == metric]
    can_count = ~chosen["status"].isin(NEVER_COUNTED)
    return chosen[can_count.groupby([chosen["experiment"], chosen["task"]]).transform("any")]


def undefined_tasks(rows: pd.DataFrame, metric: str) -> list[str]:
    """Return the tasks of the metric's rows that `countable` leaves out, sorted."""
    every = set(rows.loc[rows["metric"] == metric, "task"])
    return sorted(every - set(countable(rows, metric)["task"]))


def case_table(
    rows: pd.DataFrame,
    *,
    metric: str,
    missing_masks: Mapping[str, Handling] | None = None,
    experiment: str | None = None,
) -> pd.DataFrame:
    """Return values per case: index (task, patient, case, structure), one column per method, mean over seeds.

    Tasks on which the metric is defined for nobody are left out (`countable`). NaN marks what the handling excludes;
    methods keep the order of the rows. `experiment` None takes all rows.
    """
    chosen = countable(rows, metric)
    if experiment is not None:
        chosen = chosen[chosen["experiment"] == experiment]
    chosen = apply_handling(chosen, missing_masks)
    chosen = chosen.assign(method=method_labels(chosen))
    table = chosen.groupby([*CASE_KEYS, "method"], sort=True)["scored"].mean().unstack("method")
    return table[chosen["method"].drop_duplicates().tolist()]


def patient_differences(pair: pd.DataFrame) -> pd.Series:
    """Return first minus second column of one task's case table, per patient: mean over cases of means over structures.

    Only structures that count for both enter; patients without any are left out.
    """
    difference = (pair.iloc[:, 0] - pair.iloc[:, 1]).dropna()
    per_case = difference.groupby(level=["patient", "case"]).mean()
    return per_case.groupby(level="patient").mean().round(12)
