"""Result tables: methods in rows, tasks in columns; every cell has its interval and its n.

A table is built once and written as csv (one line per cell, for machines), Markdown and LaTeX; the page draws the same
object. Ranks are by mean and only among trained methods; controls stand apart. Marks are set by
`segbench.reporting.marks`, from decisions alone.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from segbench.core.run_record import ScoredTask
from segbench.core.vocabulary import NOT_ANNOTATED
from segbench.reporting.csv_text import file_stem, table_text
from segbench.reporting.frames import named_rows
from segbench.reporting.metrics import about
from segbench.reporting.recipes import budget_sentence, chosen_rates, recipe_words, recipes_of_methods
from segbench.reporting.run import Method, Run
from segbench.stats.aggregate import FOLDS_IN_INTERVALS, handling_text, mean_over_tasks
from segbench.stats.methods import without_noise
from segbench.stats.recipes import experiment_of

DASH = "\u2013"
MEAN = "mean over tasks"
STATE_WORDS = {
    "failed": "failed",
    "skipped": "skipped",
    "not_defined": "not defined",
    "absent": "no rows",
    "uncounted": "no case counts",
}
COUNTS_LEGEND = (
    "n: scored / expected rows (cases x structures x seeds), and how many structures were missed (beside distances as "
    "a fraction of the expected rows). Square brackets: the interval if no structure of a new "
    "patient is ever missed, shown where none was and where it differs."
)
"""What the page and Markdown show in a cell below the interval."""
_ABOUT_TABLE = ("data", "experiment", "metric", "unit", "protocol")
_ABOUT_METHOD = ("model", "initialisation", "method", "kind", "fidelity")
_VALUES = ("mean", "low", "high", "low_as_seen", "high_as_seen")
_SUMMED = ("n_scored", "n_expected", "n_failed", "n_missed")
_COUNTS = (*_SUMMED, "n_patients", "n_seeds")


@dataclass(frozen=True)
class Cell:
    """One value with its interval and counts.

    `state` is ok or a key of STATE_WORDS. `rank` is the rank by mean among trained methods, ties share the best; 0
    where there is none. `marked` says that the cell is printed in bold (see `segbench.reporting.marks`). `n_missed`
    counts rows whose structure was not found.
    """

    state: str
    mean: float = np.nan
    low: float = np.nan
    high: float = np.nan
    low_as_seen: float = np.nan
    high_as_seen: float = np.nan
    n_scored: int = 0
    n_expected: int = 0
    n_failed: int = 0
    n_missed: int = 0
    n_patients: int = 0
    n_seeds: int = 0
    reason: str = ""
    rank: int = 0
    marked: bool = False
    partial: bool = False


@dataclass(frozen=True)
class Row:
    """A method with its mean over tasks and one cell per task."""

    method: Method
    mean: Cell
    cells: list[Cell]

    @property
    def columns(self) -> list[Cell]:
        """The mean over tasks, then the cells, as the columns of a table stand."""
        return [self.mean, *self.cells]


@dataclass(frozen=True)
class Table:
    """All rows of one experiment and metric.

    `caption` is one line; `legend` says how to read a cell; `marking` says what bold means; `notes` say what
    is not as in an original, and explain failed, skipped and undefined cells.
    """

    name: str
    experiment: str
    metric: str
    caption: str
    legend: str
    data: str
    protocol: str
    tasks: list[ScoredTask]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    marking: str = ""

    @property
    def blocks(self) -> list[tuple[str, list[Row]]]:
        """Trained methods, then controls."""
        trained = [row for row in self.rows if row.method.trained]
        controls = [row for row in self.rows if not row.method.trained]
        return [("Trained methods", trained)] + ([("Controls (not ranked)", controls)] if controls else [])

    @property
    def heads(self) -> list[str]:
        """Titles of the columns: the mean over tasks, then the tasks."""
        return ["Mean over tasks", *(task.title for task in self.tasks)]

    def ranking(self) -> list[Row]:
        """Return the trained rows with a comparable mean over tasks, best first."""
        listed = [row for row in self.rows if comparable(row.method, row.mean)]
        return sorted(listed, key=lambda row: row.mean.mean * direction(self.metric))


def direction(metric: str) -> int:
    """Return 1 where lower is better, -1 where higher is better: sorting by value * direction puts the best first."""
    return 1 if about(metric).better == "lower" else -1


def unit_of(metric: str) -> str:
    """Return the unit that tables show: per cent for fractions."""
    return "%" if about(metric).unit == "1" else about(metric).unit


def points(metric: str) -> str:
    """Return the unit of differences."""
    return "points" if about(metric).unit == "1" else unit_of(metric) or "units of the metric"


def factor_of(metric: str) -> float:
    """Return what a value is multiplied by in tables and figures: 100 for fractions, which are shown in per cent."""
    return 100.0 if about(metric).unit == "1" else 1.0


def with_unit(metric: str) -> str:
    """Return the unit and a comma, nothing for a metric without a unit."""
    return f"{unit_of(metric)}, " if unit_of(metric) else ""


def shown(metric: str, value: float, *, sign: bool = False) -> str:
    """Return a value as tables print it, one decimal, in `unit_of(metric)`; NaN as a dash."""
    if not np.isfinite(value):
        return DASH
    digits = ".1f" if about(metric).unit else ".4g"
    text = format(value * factor_of(metric), f"+{digits}" if sign else digits)
    return ("0.0" if text in ("-0.0", "+0.0") else text).replace("-", "\u2212")


def interval_text(metric: str, low: float, high: float, *, sign: bool = False) -> str:
    """Return 'low-high' (or 'low to high' for signed values); a dash when there is no interval."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return DASH
    return f"{shown(metric, low, sign=sign)}{' to ' if sign else DASH}{shown(metric, high, sign=sign)}"


def build_table(run: Run, experiment: str, metric: str) -> Table:
    """Return the table of one experiment and metric."""
    tasks = run.tasks(experiment)
    table = run.cells(metric)
    table = table[table["experiment"] == experiment]
    states = _states(run.rows[(run.rows["experiment"] == experiment) & (run.rows["metric"] == metric)])
    by_key = {(row.model, row.initialisation, row.task): row for row in named_rows(table)}
    grid = {
        method.key: [_cell(by_key.get((*method.key, task.name)), states) for task in tasks]
        for method in run.methods_of(experiment)
    }
    means = _means(table, grid, tasks, 1 - run.alpha)
    rows = [Row(method, means[method.key], grid[method.key]) for method in run.methods_of(experiment)]
    return Table(
        name=file_stem(f"{experiment}_{metric}"),
        experiment=experiment,
        metric=metric,
        data=_data(run, experiment),
        caption=_caption(run, experiment, metric),
        legend=_legend(run, experiment, metric, table),
        protocol=run.record.protocol,
        tasks=tasks,
        rows=_ranked(rows, direction(metric)),
        notes=[
            *_fidelity_notes(rows),
            *_notes(rows, tasks, metric),
            *_annotation_notes(run, experiment, metric, tasks),
        ],
    )


class _State(NamedTuple):
    """What the rows of one cell have in common: their only status or 'mixed', and a reason."""

    status: str
    reason: str


def _states(rows: pd.DataFrame) -> dict[tuple, _State]:
    """Return (model, initialisation, task) -> state of the cell's rows."""
    states = {}
    for key, part in rows.groupby(["model", "initialisation", "task"], sort=False):
        statuses = part["status"].unique()
        bad = part[part["status"].isin(("failed", "skipped", "not_defined", "prediction_missing"))]
        status = statuses[0] if len(statuses) == 1 else "mixed"
        reason = bad["reason"].iloc[0] if len(bad) else ""
        states[key] = _State(status, reason)
    return states


def _cell(found, states: dict) -> Cell:
    if found is None:
        return Cell("absent")
    own = states[(found.model, found.initialisation, found.task)]
    state = own.status if own.status in ("failed", "skipped", "not_defined") else "ok"
    if state == "ok" and not np.isfinite(found.mean):
        state = "uncounted"
    return Cell(
        state,
        found.mean,
        found.low,
        found.high,
        found.low_as_seen,
        found.high_as_seen,
        n_scored=found.n_scored,
        n_expected=found.n_expected,
        n_failed=found.n_failed,
        n_missed=found.n_missed,
        n_patients=found.n_patients,
        n_seeds=found.n_seeds,
        reason=own.reason,
    )


def _means(table: pd.DataFrame, grid: dict, tasks: list[ScoredTask], confidence: float) -> dict[tuple, Cell]:
    """Mean over tasks; `partial` when a task is missing for which some method has a value."""
    defined = [any(np.isfinite(cells[i].mean) for cells in grid.values()) for i in range(len(tasks))]
    over_tasks = mean_over_tasks(table, confidence=confidence) if len(table) else table
    found = {(row.model, row.initialisation): row for row in named_rows(over_tasks)}
    means = {}
    for key, cells in grid.items():
        row = found.get(key)
        if row is None:
            means[key] = Cell("absent")
            continue
        partial = any(there and not np.isfinite(cell.mean) for there, cell in zip(defined, cells, strict=True))
        means[key] = Cell(
            "ok" if np.isfinite(row.mean) else "uncounted",
            row.mean,
            row.low,
            row.high,
            n_scored=row.n_scored,
            n_expected=row.n_expected,
            n_failed=row.n_failed,
            n_missed=sum(cell.n_missed for cell in cells),
            partial=partial,
            reason=f"mean over {row.n_tasks} of {sum(defined)} tasks" if partial else "",
        )
    return means


def comparable(method: Method, cell: Cell) -> bool:
    """Return whether a cell takes part in rankings: a trained method's own value, over all tasks where it is a mean."""
    return method.trained and cell.state == "ok" and not cell.partial


def _ranked(rows: list[Row], sign: int) -> list[Row]:
    """Give every comparable cell its rank within the column; equal values share the best rank."""
    columns = [list(column) for column in zip(*(row.columns for row in rows), strict=True)]
    for i, column in enumerate(columns):
        values = without_noise(np.array([cell.mean * sign for cell in column]))
        ranked = [comparable(row.method, cell) for row, cell in zip(rows, column, strict=True)]
        columns[i] = [
            replace(cell, rank=1 + int((values[ranked] < value).sum())) if own else cell
            for cell, value, own in zip(column, values, ranked, strict=True)
        ]
    return [Row(row.method, columns[0][i], [column[i] for column in columns[1:]]) for i, row in enumerate(rows)]


def _data(run: Run, experiment: str) -> str:
    if run.synthetic(experiment):
        return "synthetic"
    return "real" if run.from_jobs else "as given"


def _fidelity_notes(rows: list[Row]) -> list[str]:
    """Return a note for the methods whose networks are the original's and that are trained otherwise in one way."""
    differing: dict[str, list[str]] = {}
    for row in rows:
        if row.method.differs:
            differing.setdefault(row.method.differs, []).append(row.method.title)
    return [f"Not as in the original, {', '.join(titles)}: {text}" for text, titles in differing.items()]


def _notes(rows: list[Row], tasks: list[ScoredTask], metric: str) -> list[str]:
    notes = []
    for row in rows:
        for task, cell in zip(tasks, row.cells, strict=True):
            where, reason = f"{row.method.title}, {task.title}", cell.reason or "no reason given"
            if cell.state in ("failed", "skipped"):
                counts = f" (counts as {shown(metric, cell.mean)} {unit_of(metric)})" if np.isfinite(cell.mean) else ""
                notes.append(f"{where}: {cell.state}{counts}: {reason}")
            elif cell.n_failed:
                notes.append(
                    f"{where}: {cell.n_failed} of {cell.n_expected} scores failed or have no prediction: {reason}"
                )
        if row.mean.partial:
            notes.append(f"{row.method.title}: {row.mean.reason}, therefore not ranked on the mean")
    for i, task in enumerate(tasks):
        undefined = next((row.cells[i] for row in rows if row.cells[i].state == "not_defined"), None)
        if undefined:
            notes.append(f"{task.title}: not defined: {undefined.reason or 'no reason given'}")
    return notes


def _annotation_notes(run: Run, experiment: str, metric: str, tasks: list[ScoredTask]) -> list[str]:
    """Return one note per structure that not every test case was annotated for, with the number of those that were."""
    rows = run.rows[(run.rows["experiment"] == experiment) & (run.rows["metric"] == metric)]
    left_out = rows[(rows["status"] == "not_defined") & rows["reason"].str.endswith(NOT_ANNOTATED, na=False)]
    notes = []
    for task in tasks:
        cases = rows[rows["task"] == task.name]["case"].nunique()
        for structure, part in left_out[left_out["task"] == task.name].groupby("structure"):
            count = cases - part["case"].nunique()
            notes.append(
                f"{task.title}: {structure} is annotated in {count} of {cases} test cases and counts in these alone"
            )
    return notes


def _caption(run: Run, experiment: str, metric: str) -> str:
    facts = about(metric)
    return (
        f"{run.data_word(experiment)}{facts.title} ({with_unit(metric)}{facts.better} is better) of "
        f"{experiment_of(experiment)} tasks, protocol {run.record.protocol}.{_training_sentences(run, experiment)}"
    )


def _training_sentences(run: Run, experiment: str) -> str:
    jobs = [job for method in run.methods_of(experiment) for job in run.jobs(experiment, method.key)]
    words = recipe_words(run.methods_of(experiment)), budget_sentence(jobs, len(run.tasks(experiment)))
    return "".join(f" {text}" for text in words if text)


def _legend(run: Run, experiment: str, metric: str, table: pd.DataFrame) -> str:
    facts = about(metric)
    return (
        f"{facts.title}: {facts.definition}. A cell is the mean over structures of the means over test cases, with "
        f"its {run.level} interval. {_interval_sentence(table, run.seeds(experiment))}{folds_text(table)}"
        f"{_weights_text(run, experiment, metric)} Empty and missing masks: "
        f"{handling_text(metric, run.record.missing_masks)}; not defined and skipped ones are left out."
        f"{_ceiling_sentence(run, experiment)}{recipes_of_methods(run.methods_of(experiment))}"
        f"{chosen_rates({item.title: run.jobs(experiment, item.key) for item in run.methods_of(experiment)})}"
    )


def _weights_text(run: Run, experiment: str, metric: str) -> str:
    """Return how patients with different numbers of cases count; empty where each has as many as the others."""
    rows = run.rows[(run.rows["experiment"] == experiment) & (run.rows["metric"] == metric)]
    cases = rows.groupby(["task", "patient"])["case"].nunique().groupby("task").nunique()
    tasks = [task.title for task in run.tasks(experiment) if cases.get(task.name, 1) > 1]
    if not tasks:
        return ""
    return (
        f" Patients have different numbers of cases in {', '.join(tasks)}: there a mean weighs cases, and a "
        "difference, its interval and its test weigh patients, so that the two can differ."
    )


def _ceiling_sentence(run: Run, experiment: str) -> str:
    if all(method.key[0] != "oracle" for method in run.methods_of(experiment)):
        return ""
    return (
        " Oracle: the reference through preprocessing and back, so the ceiling of methods that predict on the "
        "preprocessed grid."
    )


def _interval_sentence(table: pd.DataFrame, seeds: int) -> str:
    spread = f"the spread between {seeds} seeds added" if seeds > 1 else "one seed, so without the spread between seeds"
    text = (
        "Interval: patients are drawn; missed structures enter by mid-P limits, found ones by Student's distribution; "
        f"{spread}"
    )
    return f"{text}.{coverage_text(table)}"


def coverage_text(table: pd.DataFrame) -> str:
    """Return the measured coverage of the intervals of a table, at its smallest and largest simulated n.

    Args:
        table: columns n_patients, coverage_n, coverage_low and coverage_high; cells or differences.

    Returns:
        A sentence with a space before it; empty where no row has an interval.
    """
    several = table[table["n_patients"] > 1]
    seen = several[several["coverage_n"].notna()].drop_duplicates("coverage_n").sort_values("coverage_n")
    if seen.empty:
        return " Coverage is not measured for so few patients." if len(several) else ""
    ranges = [
        f"{100 * row.coverage_low:.0f}{DASH}{100 * row.coverage_high:.0f} % with {row.coverage_n:g} patients"
        for row in named_rows(seen.iloc[sorted({0, len(seen) - 1})])
    ]
    return f" Measured coverage in simulations: {', '.join(ranges)}."


def folds_text(table: pd.DataFrame) -> str:
    """Return what pooled folds mean for the intervals of a table with the column n_folds; empty without them."""
    folds = int(table["n_folds"].max())
    if folds < 2:
        return ""
    return f" {folds} folds are pooled, each with models of its own. {FOLDS_IN_INTERVALS}"


def table_csv(table: Table) -> str:
    """Return one line per cell; values in the unit of the column `unit`, blank where there is none."""
    described = dict(
        zip(
            _ABOUT_TABLE,
            (table.data, table.experiment, table.metric, unit_of(table.metric), table.protocol),
            strict=True,
        )
    )
    lines = []
    for row in table.rows:
        method = row.method
        named = dict(zip(_ABOUT_METHOD, (*method.key, method.title, method.kind, method.fidelity), strict=True))
        for name, cell in zip([MEAN, *(task.name for task in table.tasks)], row.columns, strict=True):
            values = {value: _plain(table.metric, getattr(cell, value)) for value in _VALUES}
            counts = {count: getattr(cell, count) if name != MEAN or count in _SUMMED else "" for count in _COUNTS}
            lines.append(
                described
                | named
                | {"task": name, "state": cell.state}
                | values
                | counts
                | {"missed_fraction": f"{cell.n_missed / cell.n_expected:.4f}" if cell.n_expected else ""}
                | {"rank": cell.rank or "", "marked": "yes" if cell.marked else "", "reason": cell.reason}
            )
    return table_text(pd.DataFrame(lines))


def _plain(metric: str, value: float) -> str:
    return "" if not np.isfinite(value) else f"{value * factor_of(metric):.4f}"


class CellText(NamedTuple):
    """What a cell shows, line by line; empty where there is nothing to say."""

    value: str
    interval: str
    as_seen: str
    rows: str
    missed: str


def cell_text(table: Table, cell: Cell) -> CellText:
    """Return value or state, interval, the interval as seen (where nothing was missed and it differs), n, missed."""
    count = f"{cell.n_scored}/{cell.n_expected}" if cell.n_expected else ""
    if cell.state != "ok":
        return CellText(STATE_WORDS[cell.state], "", "", count, "")
    flag = "\u2020" if cell.n_failed or cell.partial else ""
    interval = interval_text(table.metric, cell.low, cell.high)
    seen = interval_text(table.metric, cell.low_as_seen, cell.high_as_seen)
    as_seen = seen if not cell.n_missed and seen not in (DASH, interval) else ""
    missed = missed_text(table.metric, cell)
    return CellText(shown(table.metric, cell.mean) + flag, interval, as_seen, count, missed)


def missed_text(metric: str, cell: Cell) -> str:
    """Return how many structures were missed; beside a distance always, and as a fraction of the expected rows."""
    if not is_distance(metric):
        return f"{cell.n_missed} missed" if cell.n_missed else ""
    if not cell.n_expected:
        return ""
    per_cent = 100 * cell.n_missed / cell.n_expected
    return f"{'< 1' if 0 < per_cent < 1 else format(per_cent, '.0f')} % missed"


def is_distance(metric: str) -> bool:
    """Return whether a mean of the metric says nothing without the fraction of missed structures beside it."""
    return about(metric).unit in ("mm", "voxel")


def table_markdown(table: Table) -> str:
    """Return caption, legend, one Markdown table per block and the notes; marked cells in bold."""
    lines = [_md(table.caption), "", _md(f"{table.legend} {table.marking} {COUNTS_LEGEND}"), ""]
    for title, rows in table.blocks:
        content = [
            [_md(row.method.title), row.method.fidelity, *(_md_cell(table, cell) for cell in row.columns)]
            for row in rows
        ]
        frame = pd.DataFrame(content, columns=[_md(head) for head in ("Method", "Fidelity", *table.heads)])
        align = ["left", "left", *["right"] * len(table.heads)]
        lines += [f"**{title}**", "", frame.to_markdown(index=False, disable_numparse=True, colalign=align), ""]
    return "\n".join([*lines, *(f"- {_md(note)}" for note in table.notes)]).rstrip() + "\n"


def _md(text: str) -> str:
    """Return text that Markdown shows as it is: no HTML, no emphasis, no end of a cell."""
    text = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "|*`" else letter for letter in text)


def _md_cell(table: Table, cell: Cell) -> str:
    text = cell_text(table, cell)
    value = f"**{text.value}**" if cell.marked else text.value
    parts = (
        value,
        f"({text.interval})" if text.interval else "",
        f"n {text.rows}" if text.rows else "",
        f"[{text.as_seen}]" if text.as_seen else "",
        text.missed,
    )
    return " ".join(part for part in parts if part)
