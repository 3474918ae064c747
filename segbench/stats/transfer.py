"""Does one network for all tasks help or hurt? Universal minus single-task, per task and structure, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from segbench.stats.decision import CONFLICTING, DEFAULT_RULE, Rule, oriented
from segbench.stats.methods import method_labels
from segbench.stats.missing_masks import Handling
from segbench.stats.paired import paired_table

ALL_STRUCTURES = "all structures"
STRUCTURES = "single structures (secondary)"
SEPARATOR = "\x1f"  # joins task and structure, both of which may hold spaces


def transfer_map(
    rows: pd.DataFrame,
    *,
    metric: str,
    universal: Sequence[str],
    single: Sequence[str],
    missing_masks: Mapping[str, Handling] | None = None,
    alpha: float = 0.05,
    rope: float | None = None,
    rule: Rule = DEFAULT_RULE,
    paired: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return one row per (experiment, task, structure, universal method, single-task method).

    `universal` and `single` are values of the column `model`. `difference` is universal minus single in the metric's
    unit, with the columns of `paired_table`, and `transfer`: 'positive', 'negative' (significant after Holm),
    'conflicting' or 'not shown'. Structure 'all structures' is the row of the task in `paired` (the table of
    `paired_table`, made of `rows` when absent) turned to universal minus single, so that a comparison has one Holm
    value everywhere. Tasks with several structures also have a row per structure; these are a secondary family.
    Empty without a pair.
    """
    if paired is None:
        paired = paired_table(rows, metric=metric, missing_masks=missing_masks, alpha=alpha, rope=rope, rule=rule)
    labels = method_labels(rows)
    names = {
        kind: labels[rows["model"].isin(models)].drop_duplicates().tolist()
        for kind, models in (("universal", universal), ("single", single))
    }
    pairs = [(a, b) for a in names["universal"] for b in names["single"] if a != b]
    if paired.empty or not pairs:
        return pd.DataFrame()
    several = rows.groupby("task")["structure"].transform("nunique") > 1
    chosen = rows[several & rows["model"].isin([*universal, *single])]
    structures = paired_table(
        chosen.assign(task=chosen["task"] + SEPARATOR + chosen["structure"]),
        metric=metric,
        missing_masks=missing_masks,
        alpha=alpha,
        rope=rope,
        pairs=pairs,
        rule=rule,
    )
    parts = [oriented(paired, a, b).assign(structure=ALL_STRUCTURES) for a, b in pairs]
    if len(structures):
        structures[["task", "structure"]] = structures["task"].str.split(SEPARATOR, expand=True)
        parts.append(structures.assign(family_name=STRUCTURES))
    table = pd.concat([part for part in parts if len(part)] or [pd.DataFrame()], ignore_index=True)
    if table.empty:
        return table
    table["transfer"] = table["better"].map(
        {"a": "positive", "b": "negative", CONFLICTING: CONFLICTING, "": "not shown"}
    )
    table = table.rename(
        columns={
            "method_a": "universal",
            "method_b": "single",
            "p_a_better": "p_universal_better",
            "p_b_better": "p_single_better",
        }
    )
    first = ["experiment", "metric", "task", "structure", "universal", "single"]
    return table[[*first, *table.columns.drop([*first, "better"])]]
