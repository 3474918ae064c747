"""Methods side by side: what is compared is a model with an initialisation, case by case.

`case_table` is the one wide table from which paired tests, rankings, transfer maps and the ranking variants start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from segbench.core.errors import Problem, raise_problems
from segbench.core.names import named_alike, plain_name, spelled_alike
from segbench.core.vocabulary import ALL_TASKS, NEVER_COUNTED
from segbench.stats.intervals import PatientSums, Scale
from segbench.stats.missing_masks import Handling, apply_handling, scale_of
from segbench.stats.recipes import split_rows
from segbench.stats.scores import shortened

PLAIN_INITIALISATIONS = ("", "random", "none")
WHOLE_MM3, SAME_VOLUME = 0.5, 1e-4
"""Two volumes of one reference differ by no more than rounding to mm3, or by this fraction."""
CASE_KEYS = ["task", "patient", "case", "structure"]


def without_noise(values: np.ndarray, *, of: np.ndarray | None = None) -> np.ndarray:
    """Return values without the last bits, in which means of the same numbers in another order differ.

    12 decimals are kept, and where the largest number is 1000 or more 15 of its digits. Means are compared after it.

    Args:
        values: means or differences.
        of: the numbers that they were made of, where these are larger.
    """
    sizes = np.abs(values if of is None else of)
    sizes = sizes[np.isfinite(sizes)]
    largest = float(sizes.max()) if sizes.size else 0.0
    kept: np.ndarray = np.round(values, 12 if largest < 1000 else 14 - math.floor(math.log10(largest)))
    return kept


def method_labels(rows: pd.DataFrame) -> pd.Series:
    """Return 'model', or 'model (initialisation)' where the initialisation is not the plain one, for every row."""
    plain = rows["initialisation"].isin(PLAIN_INITIALISATIONS)
    return rows["model"].where(plain, rows["model"] + " (" + rows["initialisation"] + ")")


def check_complete(rows: pd.DataFrame, *, where: str = "scores") -> None:
    """Raise `InputError` when a method lacks rows that another method has: a missing row is an error, not a smaller n.

    Every (model, initialisation, seed) must have the same tasks, and on them the same cases, structures and metrics; a
    failed case and a task that a model does not serve are rows with their status.

    Names that are one name in two spellings, cases with two patients or two references, and a task with the name of the
    mean over tasks are errors as well.
    """
    rows, keys = split_rows(rows), ["case", "structure", "metric"]
    wrong = [*_name_problems(rows, where), *patient_problems(rows, where), *_reference_problems(rows, where)]
    raise_problems(shortened(wrong, where))
    problems = _clashes(rows, where) + _missing_tasks(rows, where)
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


def _name_problems(rows: pd.DataFrame, where: str) -> Iterator[Problem]:
    """Yield a problem for each name that is spelled in two ways, and for a task named like the mean over tasks."""
    for task in rows["task"].unique():
        if plain_name(task) == plain_name(ALL_TASKS):
            words = "the name of the mean over tasks"
            yield Problem(f"{where}: task {task!r}", words, "a name of its own", "rename the task")
    fix = "write it in one way, or give two different ones different names"
    for column, within, groups_of in (
        ("model", None, named_alike),
        ("task", None, named_alike),
        ("structure", "task", named_alike),
        ("case", "task", spelled_alike),
        ("patient", "dataset", spelled_alike),
    ):
        parts = rows.groupby(within, sort=False) if within else [("", rows)]
        for name, part in parts:
            place = f"{where}: {within} {name}: {column}" if within else f"{where}: {column}"
            for group in groups_of(sorted(part[column].unique())):
                yield Problem(place, " and ".join(map(repr, group)), "one spelling of a name", fix)


def patient_problems(rows: pd.DataFrame, where: str = "scores") -> list[Problem]:
    """Return a problem for each case of a task that has several patients: its methods would never meet."""
    pairs = rows[["task", "case", "patient"]].drop_duplicates()
    several = pairs[pairs.duplicated(["task", "case"], keep=False)]
    return [
        Problem(
            f"{where}: case {case} of task {task}",
            f"the patients {' and '.join(part['patient'])}",
            "one patient per case",
            "correct the column patient",
        )
        for (task, case), part in several.groupby(["task", "case"], sort=False)
    ]


def _reference_problems(rows: pd.DataFrame, where: str) -> list[Problem]:
    """Return a problem for each structure of a case whose reference has two volumes; rounding is no difference."""
    keys, column = ["experiment", "protocol", "task", "case", "structure"], "reference_volume_mm3"
    known = rows[rows[column].notna()]
    volumes = known.groupby(keys, sort=False)[column].agg(["min", "max"])
    differ = volumes[volumes["max"] - volumes["min"] > WHOLE_MM3 + SAME_VOLUME * volumes["max"]]
    return [
        Problem(
            f"{where}: case {case} of task {task}, {structure}",
            f"reference volumes of {low:g} and {high:g} mm3: methods scored against different references",
            "one reference for all methods",
            f"score every method with the same references, or correct {column}",
        )
        for (_, _, task, case, structure), low, high in differ.itertuples(name=None)
    ]


def _clashes(rows: pd.DataFrame, where: str) -> list[Problem]:
    """Return a problem for each name in tables that two methods share: they would be averaged into one."""
    methods = rows[["model", "initialisation"]].drop_duplicates()
    plain = methods["initialisation"].isin(PLAIN_INITIALISATIONS)
    keys = methods.assign(initialisation=methods["initialisation"].mask(plain, ""), name=method_labels(methods))
    names = keys.drop_duplicates()["name"]
    return [
        Problem(f"{where}: method {name}", "two methods of that name", "a name for each method", "rename one model")
        for name in names[names.duplicated()].unique()
    ]


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
    return case_tables(rows, metric=metric, missing_masks=missing_masks, experiment=experiment).values


@dataclass(frozen=True)
class CaseTables:
    """Tables of one metric with the index (task, patient, case, structure), one column per method, means over seeds.

    Attributes:
        values: what enters means, NaN where a row does not count.
        hits: the same with 0 for missed structures.
        missed: fraction of seeds in which the structure is missed.
        scales: range and value of a missed structure per task.
        datasets: data set of each task; a patient of two tasks of one data set is one patient.
        folds: fold in which each patient of a task is tested (`fold_of_patients`).
    """

    values: pd.DataFrame
    hits: pd.DataFrame
    missed: pd.DataFrame
    scales: dict[str, Scale]
    datasets: dict[str, str]
    folds: dict[str, pd.Series]


def fold_of_patients(rows: pd.DataFrame) -> pd.Series:
    """Return the fold in which each patient is tested, sorted by patient; NaN for a patient of several folds."""
    of_patient = rows.groupby("patient")["fold"]
    return of_patient.first().astype(float).where(of_patient.nunique() == 1).sort_index()


def case_tables(
    rows: pd.DataFrame,
    *,
    metric: str,
    missing_masks: Mapping[str, Handling] | None = None,
    experiment: str | None = None,
) -> CaseTables:
    """Return `case_table` with hits and missed structures apart; arguments are those of `case_table`."""
    chosen = countable(rows, metric)
    if experiment is not None:
        chosen = chosen[chosen["experiment"] == experiment]
    chosen = apply_handling(chosen, missing_masks)
    chosen = chosen.assign(method=method_labels(chosen))
    chosen["hit"] = chosen["scored"].mask(chosen["missed"], 0.0)
    chosen["missed"] = chosen["missed"].astype(float).where(chosen["counted"])
    grouped = chosen.groupby([*CASE_KEYS, "method"], sort=True)
    order = chosen["method"].drop_duplicates().tolist()
    values, hits, missed = (grouped[name].mean().unstack("method")[order] for name in ("scored", "hit", "missed"))
    by_task = [(str(task), part) for task, part in chosen.groupby("task", sort=False)]
    return CaseTables(
        values,
        hits,
        missed,
        scales={task: scale_of(metric, missing_masks, part) for task, part in by_task},
        datasets={task: str(part["dataset"].iloc[0]) for task, part in by_task},
        folds={task: fold_of_patients(part[part["counted"]]) for task, part in by_task},
    )


def pair_sums(tables: CaseTables, task: str, pair: tuple[str, str]) -> tuple[PatientSums, PatientSums]:
    """Return the sums of both methods of a pair on one task, weighted so that a patient counts as 1.

    A row weighs 1 / (structures of the case) / (cases of the patient), as in `patient_differences`; rows that do not
    count for both methods are left out.
    """
    methods = list(pair)
    values = tables.values.loc[[task], methods].dropna()
    per_case = values.groupby(level=["patient", "case"])[methods[0]].transform("size")
    cases = pd.Series(values.index.get_level_values("case"), values.index).groupby(level="patient").transform("nunique")
    weights = 1 / per_case.to_numpy(float) / cases.to_numpy(float)

    columns: dict[tuple[str, str], np.ndarray] = {}
    for method in methods:
        hits, missed = (own.loc[values.index, method].to_numpy(float) for own in (tables.hits, tables.missed))
        columns |= {(method, "hits"): hits, (method, "others"): 1 - missed, (method, "missed"): missed}
    weighted = pd.DataFrame({name: weights * column for name, column in columns.items()}, values.index)
    summed = weighted.groupby(level=["patient", "structure"]).sum()
    first, second = (
        PatientSums(*(summed[name].unstack(fill_value=0).to_numpy(float) for name in columns if name[0] == method))
        for method in methods
    )
    return first, second


def patient_differences(pair: pd.DataFrame) -> pd.Series:
    """Return first minus second column of one task's case table, per patient: mean over cases of means over structures.

    Only structures that count for both enter; patients without any are left out.
    """
    difference = (pair.iloc[:, 0] - pair.iloc[:, 1]).dropna()
    per_case = difference.groupby(level=["patient", "case"]).mean()
    per_patient = per_case.groupby(level="patient").mean()
    return pd.Series(without_noise(per_patient.to_numpy(float), of=pair.to_numpy(float)), per_patient.index)
