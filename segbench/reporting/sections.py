"""The small tables of the page: costs, controls and every statistic, as words and numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from segbench.core.vocabulary import EQUAL, NO_RECIPE
from segbench.reporting.figures import method_costs
from segbench.reporting.frames import groups_of, named_rows
from segbench.reporting.metrics import about
from segbench.reporting.run import Run
from segbench.reporting.sentences import number, p_text, seconds_text, titled
from segbench.reporting.statistics import (
    Statistics,
    few_patients,
    outcome,
    over_tasks,
    per_task,
)
from segbench.reporting.tables import DASH, Table, coverage_text, folds_text, interval_text, points, shown, unit_of
from segbench.stats.decision import CONFLICTING, RULE_TEXT
from segbench.stats.published import check_published
from segbench.stats.ranking import ALL_TASKS

MEASURED_PHASES = ("training", "inference", "scoring")
PAIR_HEAD = [
    "First",
    "Second",
    "Difference",
    "Interval",
    "As seen",
    "Holm p",
    "Better over tasks",
    "Interval agrees",
    "First better on",
    "Second better on",
    "Conflicting on",
    "Not distinguishable on",
    "Practically equivalent on",
]
PUBLISHED_HEAD = [
    "Paper",
    "Method",
    "Task",
    "Published",
    "Measured method",
    "Measured task",
    "Measured",
    "Difference",
    "Status",
    "Why",
]


@dataclass(frozen=True)
class SmallTable:
    """A table of words and numbers; `csv` is the path of the full table; `conclusion` is one line."""

    title: str
    caption: str
    head: list[str]
    rows: list[list[str]]
    csv: str = ""
    conclusion: str = ""

    def is_words(self, column: int) -> bool:
        """Return whether a column holds words, which are aligned to the left."""
        return any(row[column][:1].isalpha() for row in self.rows)


def pair_table(run: Run, statistics: Statistics, csv: str) -> SmallTable:
    """One row per pair of methods: mean difference, the decision over tasks, and the number of tasks by outcome."""
    rows, metric, paired = [], statistics.metric, statistics.paired
    for (a, b), part in groups_of(paired, ["method_a", "method_b"]):
        tasks, whole = per_task(part), over_tasks(paired, a, b)
        counts = [int((tasks["better"] == word).sum()) for word in ("a", "b", CONFLICTING, "")]
        rows.append(
            [
                statistics.titles[a],
                statistics.titles[b],
                shown(metric, whole["difference"], sign=True),
                interval_text(metric, whole["low"], whole["high"], sign=True),
                interval_text(metric, whole["low_as_seen"], whole["high_as_seen"], sign=True),
                p_text(whole["p_holm"]),
                _outcome_word(statistics, outcome(paired, a, b)),
                DASH if pd.isna(whole["interval_agrees"]) else whole["interval_agrees"] or DASH,
                *map(str, counts),
                str(int((tasks["equivalence"] == "practically equivalent").sum())),
            ]
        )
    half, rule = paired["region"].iloc[0], paired["rule"].iloc[0]
    families = paired.groupby("family_name", sort=False)["family"].first()
    family_text = "; ".join(f"{name}: {count} tests" for name, count in families.items())
    return SmallTable(
        "Paired comparisons",
        f"{run.data_word(statistics.experiment)}First minus second method, {about(metric).title} in "
        f"{points(metric)}, mean over tasks with {run.level} interval; patients are paired; as seen: the "
        "interval if structures are missed only where they were. Better: the "
        f"{RULE_TEXT[rule]} finds a difference at {100 * run.alpha:g} % after Holm ({family_text}); the other columns "
        "count tasks by the same rule. Conflicting: the mean and the ranks point to different methods, so that no "
        "method is named better. Interval agrees: 'as seen' where only that interval excludes 0 beside a decision, "
        "'test only' where none does, 'interval only' where one excludes 0 without a decision, because it is not "
        "corrected for the family. Practically equivalent: the Bayesian signed-rank test is more than 95 % sure and "
        f"the interval of the mean lies within {shown(metric, half)} {points(metric)}.{_reach(paired)}"
        f"{folds_text(paired)}{coverage_text(paired)}",
        PAIR_HEAD,
        rows,
        csv,
    )


def _outcome_word(statistics: Statistics, found: str | None) -> str:
    if found is None:
        return "not tested"
    return statistics.titles.get(found, found) or "not distinguishable"


def _reach(paired: pd.DataFrame) -> str:
    """Name the tasks whose patients cannot give a significant result, whatever the outcome."""
    tests = per_task(paired).dropna(subset=["attainable_p_holm"])
    blind = tests[~tests["can_be_significant"]].drop_duplicates("task")
    if blind.empty:
        return ""
    named = ", ".join(
        f"{row.task} ({row.n_patients} patients: {row.attainable_p_holm:.2g} of {row.family} tests)"
        for row in named_rows(blind)
    )
    return f" Significance is impossible on {named}: the value is the smallest that p after Holm can take there."


def ranking_table(run: Run, statistics: Statistics, csv: str) -> SmallTable:
    """One row per method: the three families of ranks and, where patients allow it, their stability."""
    stable = statistics.stability[statistics.stability["task"] == ALL_TASKS].set_index("method")
    few = few_patients(statistics.paired)
    rows = []
    for row in named_rows(statistics.consensus.sort_values("consensus_rank", kind="stable")):
        own = stable.loc[row.method] if row.method in stable.index and not few else None
        rows.append(
            [
                statistics.titles[row.method],
                number(row.mean_rank_by_mean),
                number(row.mean_rank_by_mean_rank),
                number(row.mean_rank_by_significance),
                number(row.consensus_rank, 1),
                DASH if own is None else f"{100 * own['p_first']:.0f} %",
                DASH if own is None else f"{own['rank_low']}{DASH}{own['rank_high']}",
            ]
        )
    weights = "" if statistics.n_seeds > 1 else " of patients only, given these weights"
    stability = (
        "No rank probability is given: a task has three patients or fewer."
        if few
        else f"Bootstrap{weights}: how often first on the mean over tasks, and the {run.level} range of ranks."
    )
    return SmallTable(
        "Rankings",
        f"{run.data_word(statistics.experiment)}Mean over tasks of the rank by mean "
        f"{about(statistics.metric).title}, by mean rank of cases and by number of methods that the decision rule "
        "finds worse (1 is best, ties share their mean rank); consensus: rank of the mean of the three. A rank names "
        f"no better method. {stability} Methods without a value on every task are left out.",
        ["Method", "Rank by mean", "Rank by case ranks", "Rank by decisions", "Consensus", "First in", "Rank range"],
        rows,
        csv,
    )


def flips_table(run: Run, statistics: Statistics, csv: str) -> SmallTable:
    """One row per choice of the ranking variants: how often the winner changes, and whether it alone changes it."""
    tasks = {task.name: f"without {task.title}" for task in run.tasks(statistics.experiment)}
    words = {"left_out": "task left out", "none": "all tasks", **tasks}
    flips = statistics.flips.iloc[1:].fillna("")
    flips = flips[flips.groupby("choice")["value"].transform("size") > 1]
    rows = [
        [
            words.get(row.choice, row.choice),
            f"{about(row.value).title}, {row.tasks} tasks"
            if row.choice == "metric"
            else words.get(row.value, row.value),
            str(row.variants),
            f"{100 * row.winner_changes:.0f} %",
            row.flips_alone or "stated choice",
            titled(statistics, row.winner_alone),
        ]
        for row in named_rows(flips)
    ]
    return SmallTable(
        "Ranking variants",
        f"{run.data_word(statistics.experiment)}Every combination of metric, handling for empty and missing masks, "
        "aggregation, one task left out and protocol. Highest rank under the stated choices: "
        f"{titled(statistics, statistics.flips['default_winner'].iloc[0])}.",
        ["Choice", "Value", "Rankings", "First method differs in", "Changes it alone", "First method then"],
        rows,
        csv,
    )


def sensitivity_table(run: Run, statistics: Statistics, csv: str) -> SmallTable:
    """Ranking under each handling for empty and missing masks."""
    table, metric = statistics.sensitivity, statistics.metric
    missing_masks = list(dict.fromkeys(table["handling"]))
    rows = []
    for (method,), part in groups_of(table, ["method"]):
        own = part.set_index("handling")
        rows.append(
            [
                statistics.titles[method],
                *(
                    f"{shown(metric, own.loc[p, 'value'])} (rank {own.loc[p, 'rank']:g}, n "
                    f"{own.loc[p, 'n_scored']:g}/{own.loc[p, 'n_expected']:g})"
                    if np.isfinite(own.loc[p, "value"])
                    else DASH
                    for p in missing_masks
                ),
            ]
        )
    return SmallTable(
        "Sensitivity to empty and missing masks",
        f"{run.data_word(statistics.experiment)}Mean {about(metric).title} over tasks in {unit_of(metric)}, rank "
        "and n scored / n expected under each handling for empty, missing and failed masks.",
        ["Method", *missing_masks],
        rows,
        csv,
    )


def power_table(run: Run, statistics: Statistics, csv: str) -> SmallTable:
    """Per task: the smallest difference the design can find, and where the variance comes from."""
    metric = statistics.metric
    detectable = statistics.detectable.set_index("task")
    fractions = statistics.variance.groupby("task")[["fraction_cases", "fraction_seeds"]].median()
    rows = []
    for task in run.tasks(statistics.experiment):
        if task.name not in detectable.index:
            continue
        row, fraction = detectable.loc[task.name].to_dict(), fractions.loc[task.name]
        rest = 1 - fraction["fraction_cases"] - fraction["fraction_seeds"]
        rows.append(
            [
                task.title,
                f"{row['n_patients']:g}",
                shown(metric, row["minimum_detectable"]),
                f"{shown(metric, row['smallest'])} to {shown(metric, row['largest'])}",
                *(f"{100 * part:.0f} %" if np.isfinite(part) else "not known" for part in (*fraction, rest)),
            ]
        )
    return SmallTable(
        "Minimum detectable difference",
        f"{run.data_word(statistics.experiment)}Smallest difference in {about(metric).title} ({points(metric)}) "
        f"that a paired test finds with 80 % power at {100 * run.alpha:g} %, median and range over pairs; and the "
        "median fraction of the variance between cases, between seeds and of their interaction. With one "
        "seed the split is not known.",
        ["Task", "Patients", "Detectable difference", "Range over pairs", "Cases", "Seeds", "Interaction"],
        rows,
        csv,
    )


def baseline_table(run: Run, checked: list[tuple[Table, pd.DataFrame]]) -> SmallTable:
    """Per metric and task: the best trivial baseline and the trained methods whose mean is not above it."""
    rows = [
        [
            row.column,
            about(table.metric).title,
            f"{row.control} ({shown(table.metric, row.control_value)} {unit_of(table.metric)})",
            f"{row.n_methods - len(row.not_better)} of {row.n_methods}",
            ", ".join(row.not_better) or DASH,
        ]
        for table, checks in checked
        for row in named_rows(checks)
    ]
    return SmallTable(
        "Comparison with trivial baselines",
        f"{run.data_word(checked[0][0].experiment)}Means of trained methods beside the best of the empty prediction, "
        "the mean shape and the best intensity window. A method that is not above it is not named best.",
        ["Task", "Metric", "Best trivial baseline", "Trained methods above it", "Not above it"],
        rows,
    )


def phase_rows(run: Run) -> list[dict]:
    """Return phase, seconds as text, fraction of all process seconds, and whether it is a core phase."""
    phases = run.record.phases
    total = sum(phases.values())
    return [
        {
            "name": name,
            "seconds": seconds_text(value),
            "fraction": value / total if total else 0.0,
            "core": name in MEASURED_PHASES,
        }
        for name, value in sorted(phases.items(), key=lambda item: (item[0] not in MEASURED_PHASES, -item[1]))
    ]


def overhead_fraction(run: Run) -> float:
    """Return the fraction of process seconds outside training, inference and scoring; NaN when nothing was measured."""
    phases = run.record.phases
    total = sum(phases.values())
    return 1 - sum(phases.get(name, 0.0) for name in MEASURED_PHASES) / total if total else float("nan")


def cost_table(run: Run, experiment: str, csv: str) -> SmallTable:
    """What each trained method cost."""
    rows = [
        [
            row.title,
            f"{row.networks:g}",
            seconds_text(row.train_seconds),
            seconds_text(row.predict_seconds) if np.isfinite(row.predict_seconds) else DASH,
            f"{row.iterations:,.0f}",
            f"{row.parameters / 1e6:.2f} M",
            "all jobs finished" if row.complete else "a job failed: lower bound",
        ]
        for row in named_rows(method_costs(run, experiment))
    ]
    return SmallTable(
        f"{experiment.capitalize()} methods",
        f"{run.data_word(experiment)}Training cost summed over a method's jobs, mean over seeds; prediction: "
        "reading, preprocessing and predicting a test case.",
        ["Method", "Networks", "Training", "Prediction per case", "Iterations", "Parameters", "Complete"],
        rows,
        csv,
    )


def published_check(run: Run) -> pd.DataFrame:
    """Return published Dice cells with a measured counterpart among the trained methods (segbench.stats.published)."""
    keys = {method.key for method in run.methods if method.trained}
    trained = [key in keys for key in zip(run.rows["model"], run.rows["initialisation"], strict=True)]
    budget = run.record.budget
    names = {"upstream": "iterations_per_task", "downstream": "downstream_iterations_per_task"} if run.from_jobs else {}
    return check_published(
        run.rows[trained],
        synthetic={task.name for task in run.record.tasks if task.synthetic},
        budgets={experiment: getattr(budget, name) for experiment, name in names.items()},
        missing_masks=run.record.missing_masks,
        confidence=1 - run.alpha,
    )


def _title_at_recipe(run: Run, comparison: str, key: tuple[str, str]) -> str:
    method = run.method(comparison, key)
    return method.title if method.recipe in (EQUAL, NO_RECIPE) else f"{method.title}, {method.recipe} recipe"


def published_table(run: Run, table: pd.DataFrame, csv: str) -> SmallTable:
    """One row per published cell: published value, measured value, status and why."""
    titles = {(task.experiment, task.name): task.title for task in run.record.tasks}
    rows = [
        [
            row.paper,
            row.published_method,
            row.published_task,
            shown("dice", row.published),
            _title_at_recipe(run, row.experiment, (row.model, row.initialisation)),
            titles[row.experiment, row.task],
            f"{shown('dice', row.measured)} ({interval_text('dice', row.low, row.high)})",
            shown("dice", row.difference, sign=True),
            row.status,
            row.reason or DASH,
        ]
        for row in named_rows(table)
    ]
    counts = ", ".join(f"{count} {status}" for status, count in table["status"].value_counts(sort=False).items())
    return SmallTable(
        "Published values beside measured ones",
        f"{run.data_word()}Dice in %; in brackets the {run.level} interval of cases and seeds. Status: {counts}.",
        PUBLISHED_HEAD,
        rows,
        csv,
    )


AUDIT_HEAD = ["Kind", "Relation", "Fold", "Training cases", "Test cases", "Evidence", "Accepted by"]


def audit_table(run: Run) -> SmallTable:
    """One row per finding of the leak audit; the caption says what was compared, also when nothing was found."""
    audit = run.record.audit
    titles = {task.name: task.title for task in run.record.tasks}
    rows = [
        [
            item.kind.capitalize(),
            item.relation,
            item.fold,
            f"{titles.get(item.train_task, item.train_task)}: {item.train_cases}",
            f"{titles.get(item.test_task, item.test_task)}: {item.test_cases}",
            item.evidence,
            "data.accept_leaks" if item.accepted == "True" else DASH,
        ]
        for item in audit.findings
    ]
    found = f"{len(audit.names())} found" if rows else "none found"
    repairs = f" Changes to the lists: {'; '.join(audit.changes)}." if audit.changes else ""
    return SmallTable(
        "Leak audit",
        f"{run.data_word()}{audit.cases} cases compared by case, patient and image content, within and across tasks "
        f"and from upstream training into downstream test: {found}.{repairs}",
        AUDIT_HEAD,
        rows,
    )
