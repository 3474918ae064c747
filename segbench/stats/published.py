"""Published values beside measured ones: a difference, a tolerance, and a status that says why when there is none.

The published cells are data/published/*.csv; `tables.csv` there says which convention, protocol and budget a table has,
`names.csv` which of our names a published name is. An empty published cell was not seen and stays empty.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from segbench.core.cards import ROOT
from segbench.stats.aggregate import cells
from segbench.stats.missing_masks import Handling
from segbench.stats.recipes import experiment_of
from segbench.stats.scores import read_csv_text

FOLDER = ROOT / "data" / "published"
CLOSE = 0.005
"""Half a Dice point: what is no further away counts as reproduced."""
ROUNDING = 0.0005
"""Published values have one decimal of a per cent."""
COLUMNS = [
    "paper",
    "table",
    "experiment",
    "published_method",
    "published_task",
    "structure",
    "model",
    "initialisation",
    "task",
    "metric",
    "published",
    "measured",
    "difference",
    "low",
    "high",
    "n_scored",
    "n_expected",
    "n_cases",
    "status",
    "reason",
    "source_url",
]


def published_cells(folder: Path = FOLDER) -> pd.DataFrame:
    """Return every published Dice cell with its table's facts; `published` is a fraction in 0..1, NaN when not seen."""
    tables = read_csv_text(folder / "tables.csv")
    parts = []
    for facts in tables.to_dict("records"):
        part = read_csv_text(folder / facts["file"])
        part = part[(part["metric"] == "Dice") & (part["unit"] == "%")]
        counts = _test_counts(folder, facts["test_counts"])
        parts.append(
            part.assign(
                published=pd.to_numeric(part["value"].replace("", None)).astype(float) / 100,
                n_test=part["task"].map(counts).astype(float),
                **{name: facts[name] for name in ("protocol", "iterations_per_task", "not_comparable_because")},
                convention=facts["metric"],
                in_experiment=facts["experiment"],
            )
        )
    return pd.concat(parts, ignore_index=True)


def _test_counts(folder: Path, name: str) -> dict[str, int]:
    if not name:
        return {}
    table = read_csv_text(folder / name)
    chosen = table[table["metric"] == "n_test"]
    return dict(zip(chosen["task"], chosen["value"].astype(int), strict=True))


def check_published(
    rows: pd.DataFrame,
    *,
    synthetic: Collection[str] = (),
    budgets: Mapping[str, int] | None = None,
    missing_masks: Mapping[str, Handling] | None = None,
    confidence: float = 0.95,
    folder: Path = FOLDER,
) -> pd.DataFrame:
    """Return one row per published Dice cell that has a measured counterpart; columns `COLUMNS`, values in 0..1.

    `synthetic` names synthetic tasks, `budgets` maps an experiment to its iterations per task. `low` and `high` are the
    measured interval over cases and seeds (missed structures as seen, because the published value is over a fixed set
    of cases). Status: 'reproduced' (at most half a Dice point away), 'within noise' (inside the interval), 'not
    reproduced', 'not comparable' with the reasons, 'not seen' when the published cell is empty.
    """
    published, names = published_cells(folder), read_csv_text(folder / "names.csv")
    known = {str(kind): part.groupby("published")["ours"].agg(list) for kind, part in names.groupby("kind")}
    records = []
    for convention, part in published.groupby("convention", sort=False):
        used = str(convention) if (rows["metric"] == convention).any() else "dice"
        measured = cells(rows, metric=used, missing_masks=missing_masks, confidence=confidence)
        for cell in part.to_dict("records"):
            for own in _counterparts(cell, measured, known).to_dict("records"):
                reasons = _reasons(cell, own, synthetic=synthetic, budgets=budgets or {})
                records.append(_record(cell, own, reasons))
    return pd.DataFrame.from_records(records, columns=COLUMNS)


def _counterparts(cell: dict, measured: pd.DataFrame, known: dict[str, pd.Series]) -> pd.DataFrame:
    """Measured cells of the same experiment, by whatever recipe, task and method."""
    if measured.empty:
        return measured
    tasks, methods = known["task"].get(cell["task"], []), known["method"].get(cell["method"], [])
    where = "initialisation" if cell["in_experiment"] == "downstream" else "model"
    same = (measured["experiment"].map(experiment_of) == cell["in_experiment"]) & measured["task"].isin(tasks)
    return measured[same & measured[where].isin(methods) & measured["mean"].notna()]


def _reasons(cell: dict, own: dict, *, synthetic: Collection[str], budgets: Mapping[str, int]) -> list[str]:
    reasons = []
    if own["task"] in synthetic:
        reasons.append("synthetic data")
    if cell["not_comparable_because"]:
        return [*reasons, cell["not_comparable_because"]]
    if own["protocol"] != cell["protocol"]:
        reasons.append(f"protocol: {own['protocol']}, published {cell['protocol']}")
    if cell["n_test"] == cell["n_test"] and own["n_cases"] != cell["n_test"]:
        reasons.append(f"protocol: {own['n_cases']} test cases, published {cell['n_test']:.0f}")
    if own["metric"] != cell["convention"]:
        reasons.append(f"convention: {own['metric']}, published {cell['convention']}")
    return reasons + _budget_reason(cell, budgets.get(cell["in_experiment"]))


def _budget_reason(cell: dict, budget: int | None) -> list[str]:
    if not cell["iterations_per_task"]:
        return ["budget: that of the publication is not known"]
    if budget is None:
        return ["budget: that of the measurement is not known"]
    if budget != int(cell["iterations_per_task"]):
        return [f"budget: {budget} iterations per task, published {cell['iterations_per_task']}"]
    return []


def _record(cell: dict, own: dict, reasons: list[str]) -> dict[str, object]:
    difference = own["mean"] - cell["published"]
    return {
        "paper": cell["paper"],
        "table": cell["table"],
        "published_method": cell["method"],
        "published_task": cell["task"],
        "structure": cell["structure"],
        "published": cell["published"],
        "source_url": cell["source_url"],
        "measured": own["mean"],
        "difference": difference,
        "low": own["low_as_seen"],
        "high": own["high_as_seen"],
        "status": _status(cell["published"], difference, (own["low_as_seen"], own["high_as_seen"]), reasons),
        "reason": "; ".join(reasons),
        **{
            name: own[name]
            for name in ("experiment", "model", "initialisation", "task", "metric", "n_scored", "n_expected", "n_cases")
        },
    }


def _status(published: float, difference: float, limits: tuple[float, float], reasons: list[str]) -> str:
    if np.isnan(published):
        return "not seen"
    if reasons:
        return "not comparable"
    if abs(difference) <= CLOSE:
        return "reproduced"
    if limits[0] - ROUNDING <= published <= limits[1] + ROUNDING:
        return "within noise"
    return "not reproduced"
