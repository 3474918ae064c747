"""A network with other options than its card's defaults beside the same network with the defaults: do they pay?"""

from __future__ import annotations

import pandas as pd

from segbench.reporting.frames import groups_of
from segbench.reporting.metrics import about
from segbench.reporting.run import Method, Run
from segbench.reporting.sections import SmallTable
from segbench.reporting.sentences import decision_word, difference_text, p_text
from segbench.reporting.statistics import MEAN_COLUMN, against, label_of
from segbench.reporting.tables import DASH, Table, direction, interval_text, points, shown
from segbench.stats.decision import RULE_TEXT, oriented

HEAD = ["Against", "Gain over tasks", "Interval", "Holm p", "Decision"]
PROMPT = "prompt = "
"""How the options of a method say that its prompt is another one than by default."""
COLUMNS = ["default", "variant", "task", "column", "difference", "low", "high", "n_patients", "p_holm", "decision"]


def ablated_pairs(run: Run, experiment: str) -> list[tuple[Method, Method]]:
    """Return (method with the default options, the same network with others) of an experiment, in table order."""
    methods = {method.key: method for method in run.methods_of(experiment)}
    return [
        (methods[method.variant_of, method.initialisation], method)
        for method in methods.values()
        if (method.variant_of, method.initialisation) in methods
    ]


def ablation_frame(run: Run, table: Table, paired: pd.DataFrame | None) -> pd.DataFrame:
    """Return default minus variant over tasks and per task, positive where the default options are better.

    Args:
        run: the run.
        table: the table of one experiment and metric.
        paired: the decisions of that metric (`statistics.compared`); None when nothing was compared.

    Returns:
        One row per pair and column of the table, with the columns `COLUMNS`; empty without such a pair.
    """
    tasks = {task.name: task.title for task in table.tasks}
    parts = [
        against(paired, default, variant, tasks, sign=-direction(table.metric)).assign(
            default=default.title, variant=variant.title
        )
        for default, variant in ablated_pairs(run, table.experiment)
        if paired is not None and len(oriented(paired, label_of(default), label_of(variant)))
    ]
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(parts, ignore_index=True).rename(columns={"transfer": "decision"})[COLUMNS]


def ablation_title(run: Run, experiment: str) -> str:
    """Return the question that the ablations of an experiment answer."""
    pairs = ablated_pairs(run, experiment)
    if any(variant.options_text.startswith(PROMPT) or f", {PROMPT}" in variant.options_text for _, variant in pairs):
        return "Does the prompt pay?"
    return f"Do the options of {' and '.join(dict.fromkeys(default.title for default, _ in pairs))} pay?"


def ablation_text(frame: pd.DataFrame, metric: str) -> str:
    """Return one sentence per variant: gain of the default options over tasks, interval and decision."""
    means = frame[frame["column"] == MEAN_COLUMN]
    return " ".join(
        f"Against {row['variant']} {difference_text(metric, row)}: {decision_word(row['decision'])}."
        for _, row in means.iterrows()
    )


def ablation_table(run: Run, table: Table, frame: pd.DataFrame, csv: str) -> SmallTable:
    """Return one row per variant: gain over tasks with the decision, then the gain on each task."""
    metric, rows = table.metric, []
    for (_, variant), part in groups_of(frame, ["default", "variant"]):
        own = part.set_index("column")
        mean = own.loc[MEAN_COLUMN]
        rows.append(
            [
                str(variant),
                shown(metric, mean["difference"], sign=True),
                interval_text(metric, mean["low"], mean["high"], sign=True),
                p_text(mean["p_holm"]),
                decision_word(mean["decision"]),
                *(_task_text(metric, own.loc[task.title]) if task.title in own.index else DASH for task in table.tasks),
            ]
        )
    defaults = " and ".join(dict.fromkeys(frame["default"]))
    return SmallTable(
        ablation_title(run, table.experiment),
        f"{run.data_word(table.experiment)}{about(metric).title} of {defaults} minus the same network with other "
        f"options, in {points(metric)}, positive where the default options are better; mean over tasks and each task "
        f"with {run.level} interval, patients paired. Decision on the default options by the "
        f"{RULE_TEXT[run.record.statistics.decision_rule]}, Holm over the family of the paired comparisons.",
        [*HEAD, *(task.title for task in table.tasks)],
        rows,
        csv,
        ablation_text(frame, metric),
    )


def _task_text(metric: str, row: pd.Series) -> str:
    limits = interval_text(metric, row["low"], row["high"], sign=True)
    return f"{shown(metric, row['difference'], sign=True)} ({limits}), {decision_word(row['decision'])}"
