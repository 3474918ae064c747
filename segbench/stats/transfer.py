"""Does one network for all tasks help or hurt? Universal minus single-task, per task and structure, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from segbench.stats.decision import CONFLICTING, DEFAULT_RULE, Rule
from segbench.stats.methods import method_labels
from segbench.stats.missing_masks import Handling
from segbench.stats.paired import paired_table

ALL_STRUCTURES = "all structures"
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
) -> pd.DataFrame:
    """Return one row per (experiment, task, structure, universal method, single-task method).

    `universal` and `single` are values of the column `model`. `difference` is universal minus single in the metric's
    unit, with the columns of `paired_table`, and `transfer`: 'positive', 'negative' (significant after Holm over all
    tasks and structures of the map), 'conflicting' or 'not shown'. Structure 'all structures' holds the mean over
    structures and has a family of its own. Empty without a pair.
    """
    rows = rows[rows["model"].isin([*universal, *single])]
    labels = method_labels(rows)
    names = {
        kind: labels[rows["model"].isin(models)].drop_duplicates().tolist()
        for kind, models in (("universal", universal), ("single", single))
    }
    pairs = [(a, b) for a in names["universal"] for b in names["single"]]

    def paired(part: pd.DataFrame) -> pd.DataFrame:
        return paired_table(
            part, metric=metric, missing_masks=missing_masks, alpha=alpha, rope=rope, pairs=pairs, rule=rule
        )

    whole = paired(rows).assign(structure=ALL_STRUCTURES)
    apart = rows.assign(task=rows["task"] + SEPARATOR + rows["structure"])
    structures = paired(apart)
    if structures.empty:
        return structures
    structures[["task", "structure"]] = structures["task"].str.split(SEPARATOR, expand=True)
    several = rows.groupby("task")["structure"].transform("nunique") > 1
    whole = whole[whole["task"].isin(rows.loc[several, "task"])]
    table = pd.concat([structures, whole], ignore_index=True)
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
