"""Every test case of an experiment with the value of every trained method, so that a failure has a name."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from segbench.core.run_record import ScoredTask
from segbench.reporting.figures import case_values
from segbench.reporting.metrics import about
from segbench.reporting.run import Run
from segbench.reporting.tables import DASH, Table, direction, unit_of
from segbench.stats.aggregate import apply_handling

SUMMARIES = ("best", "median", "worst")


@dataclass(frozen=True)
class CaseRow:
    """One case: its task, the worst structure, missed structures, and values (best, median, worst, then methods)."""

    case: str
    task: ScoredTask
    structure: str
    missed: int
    values: list[float]

    def texts(self) -> list[str]:
        """Return the values as the table prints them."""
        return [f"{value:.1f}" if value == value else DASH for value in self.values]


@dataclass(frozen=True)
class CaseTable:
    """All cases, the one with the worst best value first."""

    experiment: str
    metric: str
    caption: str
    head: list[str]
    rows: list[CaseRow]

    @property
    def conclusion(self) -> str:
        """The number of cases and the hardest one."""
        if not self.rows:
            return "No case has a value."
        return f"{len(self.rows)} case{'s' if len(self.rows) > 1 else ''}. Hardest: {self.worst}"

    @property
    def worst(self) -> str:
        """The case whose best value is worst, in words."""
        row = self.rows[0]
        return f"{row.case} ({row.task.title}), at best {row.texts()[0]} {unit_of(self.metric)}".rstrip() + "."


def case_table(run: Run, table: Table) -> CaseTable:
    """Return one row per case with a value of a trained method: mean over structures and seeds per method.

    `best`, `median` and `worst` are over trained methods in the direction of the metric. The worst structure is the
    one with the worst median over methods. Missed structures are counted over methods and seeds.
    """
    trained = [row.method for row in table.rows if row.method.trained]
    values = case_values(run, table)
    keys = pd.MultiIndex.from_arrays([values["model"], values["initialisation"]])
    values = values[keys.isin([method.key for method in trained])]
    wide = values.pivot_table(index=["task", "case"], columns=["model", "initialisation"], values="scored", sort=True)
    wide = wide.reindex(columns=pd.MultiIndex.from_tuples([method.key for method in trained]))
    worst, missed = _structures(run, table, [method.key for method in trained])
    tasks = {task.name: task for task in table.tasks}
    higher = direction(table.metric) < 0
    rows = []
    for key, own in wide.iterrows():
        task, case = map(str, key) if isinstance(key, tuple) else (str(key), "")
        best = own.max() if higher else own.min()
        summary = [best, own.median(), own.min() if higher else own.max()]
        rows.append(
            CaseRow(
                case=case,
                task=tasks[task],
                structure=worst.get((task, case), ""),
                missed=int(missed.get((task, case), 0)),
                values=[float(value) for value in (*summary, *own)],
            )
        )
    rows.sort(key=lambda row: (row.values[0] * direction(table.metric) * -1, row.task.name, row.case))
    facts = about(table.metric)
    return CaseTable(
        experiment=table.experiment,
        metric=table.metric,
        caption=(
            f"{run.data_word(table.experiment)}{facts.title} ({unit_of(table.metric) or 'as given'}) of every "
            f"{table.experiment} test case: mean over structures and seeds, empty and missing masks as in the table; "
            "best, median and worst over trained methods."
        ),
        head=["Case", "Task", "Worst structure", "Missed", "Best", "Median", "Worst", *(m.title for m in trained)],
        rows=rows,
    )


def _structures(run: Run, table: Table, keys: list[tuple[str, str]]) -> tuple[dict, dict]:
    """Return (task, case) -> the structure with the worst median over methods, and -> the number of missed rows."""
    rows = run.rows[(run.rows["experiment"] == table.experiment) & (run.rows["metric"] == table.metric)]
    rows = rows[pd.MultiIndex.from_arrays([rows["model"], rows["initialisation"]]).isin(keys)]
    scored = apply_handling(rows, run.record.missing_masks)
    missed = scored[scored["not_found"]].groupby(["task", "case"]).size().to_dict()
    medians = scored[scored["counted"]].groupby(["task", "case", "structure"], sort=True)["scored"].median()
    ordered = (medians * direction(table.metric)).reset_index().sort_values("scored", ascending=False, kind="stable")
    first = ordered.groupby(["task", "case"], sort=True).first()
    return first["structure"].to_dict(), missed


def case_frame(table: CaseTable) -> pd.DataFrame:
    """Return the same rows for a CSV file."""
    return pd.DataFrame(
        [[row.task.name, row.case, row.structure, row.missed, *row.values] for row in table.rows],
        columns=["task", "case", "worst_structure", "missed", *SUMMARIES, *table.head[7:]],
    )
