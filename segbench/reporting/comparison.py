"""A report of a table of scores that no run of this project made: the same page, without what a table cannot say."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from segbench.core.cards import dataset_cards, model_cards
from segbench.core.metric_facts import Handling
from segbench.core.run_record import (
    SYNTHETIC_NOTICE,
    Method,
    RunRecord,
    ScoredStructure,
    ScoredTask,
    StatisticsSettings,
)
from segbench.reporting.csv_text import short_name
from segbench.reporting.frames import groups_of, named_rows
from segbench.reporting.run import Run
from segbench.stats.decision import Rule
from segbench.stats.methods import first_protocol, method_labels
from segbench.stats.missing_masks import handling_of

NOT_IN_A_TABLE = (
    "Made from a table of scores: training cost, training curves, pre-trained weights, the leak audit and the numbers "
    "of training cases are not in such a table and are not on this page."
)


def control_names() -> set[str]:
    """Return the names of the controls of this project; rows of a model with such a name are not ranked."""
    return {name for name, card in model_cards().items() if card["kind"] == "control"}


def run_of_table(
    rows: pd.DataFrame,
    *,
    missing_masks: Mapping[str, Handling],
    rule: Rule,
    alpha: float,
    reference: str | None,
    equivalence: Mapping[str, float],
    seed: int,
    sources: Sequence[str],
) -> tuple[Run, bytes]:
    """Return a run made of checked rows, and the rows as the bytes of a scores.csv.

    A task with rows of several protocols is shown under its first one, because a cell holds one protocol.

    Args:
        rows: what `segbench.stats.longtable` returns.
        missing_masks: handling per metric on top of the default.
        rule: decision rule.
        alpha: level of the tests.
        reference: label of the method that the others are held against.
        equivalence: metric -> half-width of its region of practical equivalence, where it is not the default.
        seed: of all draws.
        sources: names of the files, for the description.
    """
    content = rows.to_csv(index=False, lineterminator="\n", float_format="%.9g").encode()
    first = first_protocol(rows)
    record = _record(first, content, missing_masks, rule, sources)
    run = Run.of_table(first, record, alpha=alpha, reference=reference, equivalence=equivalence, seed=seed)
    return run, content


def _record(
    rows: pd.DataFrame, content: bytes, missing_masks: Mapping[str, Handling], rule: Rule, sources: Sequence[str]
) -> RunRecord:
    """Return a record without jobs. It is never written, so it needs none of the checks of a run.json."""
    notices = [NOT_IN_A_TABLE]
    controls = sorted(control_names() & set(rows["model"]))
    if controls:
        notices.append(f"Controls by their name, not ranked: {', '.join(controls)}.")
    if method_labels(rows).nunique() == 1:
        notices.append(
            "One method only, so nothing is compared: give the scores of a second method, in the same table or as "
            "another file (segbench compare A.csv B.csv)."
        )
    tasks = _tasks(rows)
    if any(task.synthetic for task in tasks):
        notices.append(SYNTHETIC_NOTICE)
    unknown: Any = None
    return RunRecord.model_construct(
        run="comparison",
        description=f"Comparison of {', '.join(sources)}.",
        synthetic=any(task.synthetic for task in tasks),
        protocol=", ".join(rows["protocol"].unique()),
        config_sha256="",
        scores_sha256=hashlib.sha256(content).hexdigest(),
        provenance=unknown,
        methods=_methods(rows),
        self_supervised=(),
        tasks=tasks,
        jobs=(),
        missing_masks={name: dict(handling_of(name, missing_masks)) for name in rows["metric"].unique()},
        statistics=StatisticsSettings(decision_rule=rule),
        skipped=(),
        audit=unknown,
        phases={},
        wall_seconds=0.0,
        inference=unknown,
        budget=unknown,
        notices=tuple(notices),
    )


def _methods(rows: pd.DataFrame) -> tuple[Method, ...]:
    """Return the methods of each experiment in the order of the rows, distinguished by their key columns."""
    controls = control_names()
    keys = rows.assign(title=method_labels(rows))[
        ["experiment", "model", "initialisation", "recipe", "title"]
    ].drop_duplicates()
    if set(keys["model"]) <= controls:
        controls = set()
    return tuple(
        Method.model_construct(
            experiment=row.experiment,
            model=row.model,
            initialisation=row.initialisation,
            recipe=row.recipe,
            recipe_text="",
            title=short_name(row.title),
            kind="control" if row.model in controls else "external",
            fidelity="control" if row.model in controls else "as given",
            options_text="",
            citation="",
            url="",
        )
        for row in named_rows(keys)
    )


def _tasks(rows: pd.DataFrame) -> tuple[ScoredTask, ...]:
    cards = dataset_cards()
    unknown: Any = None
    return tuple(
        ScoredTask.model_construct(
            name=task,
            title=cards.get(task, {}).get("title", short_name(task)),
            experiment=experiment,
            modality="",
            structures=tuple(
                ScoredStructure.model_construct(name=name, lesion=False, tolerance_mm=unknown)
                for name in part["structure"].unique()
            ),
            n_test=int(part["case"].nunique()),
            n_train=unknown,
            spacing_is_nominal=False,
            synthetic=bool(cards.get(task, {}).get("synthetic", False)),
            licence="",
            citation=cards.get(task, {}).get("citation", ""),
        )
        for (experiment, task), part in groups_of(rows, ["experiment", "task"])
    )
