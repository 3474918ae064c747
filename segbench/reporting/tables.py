"""Result tables: methods in rows, tasks in columns; every cell has its interval and its n.

A table is built once and written as csv (one line per cell, for machines), markdown and LaTeX; the page draws the same
object. Ranks are by point estimate and only among trained methods; controls stand apart.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from segbench.metrics.registry import METRICS
from segbench.reporting.run import CONFIDENCE, Method, Run
from segbench.stats.aggregate import mean_over_tasks, policy_text

DASH = "\u2013"
MEAN = "mean over tasks"
STATE_WORDS = {
    "failed": "failed",
    "skipped": "skipped",
    "not_defined": "not defined",
    "absent": "no rows",
    "uncounted": "no case counts",
}
_ABOUT_TABLE = ("data", "experiment", "metric", "unit", "protocol")
_ABOUT_METHOD = ("model", "initialisation", "method", "kind", "fidelity")
_FIGURES = ("mean", "low", "high", "low_as_seen", "high_as_seen")
_SUMMED = ("n_scored", "n_expected", "n_failed")
_COUNTS = (*_SUMMED, "n_patients", "n_seeds")


@dataclass(frozen=True)
class Cell:
    """One figure; `state` is ok or a key of STATE_WORDS, `place` is 1 for the best, 2 for the second, otherwise 0."""

    state: str
    mean: float = np.nan
    low: float = np.nan
    high: float = np.nan
    low_as_seen: float = np.nan
    high_as_seen: float = np.nan
    n_scored: int = 0
    n_expected: int = 0
    n_failed: int = 0
    n_patients: int = 0
    n_seeds: int = 0
    reason: str = ""
    place: int = 0
    partial: bool = False


@dataclass(frozen=True)
class Row:
    """A method with its mean over tasks and one cell per task."""

    method: Method
    mean: Cell
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """All rows of one experiment and metric; `notes` explain failed, skipped and undefined cells."""

    name: str
    experiment: str
    metric: str
    caption: str
    data: str
    protocol: str
    tasks: list[dict]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    @property
    def blocks(self) -> list[tuple[str, list[Row]]]:
        """Trained methods, then controls."""
        trained = [row for row in self.rows if row.method.trained]
        controls = [row for row in self.rows if not row.method.trained]
        return [("Trained methods", trained)] + ([("Controls (not ranked)", controls)] if controls else [])

    def ranking(self) -> list[Row]:
        """Return the trained rows with a comparable mean over tasks, best first."""
        listed = [row for row in self.rows if _ranks(row.method, row.mean)]
        return sorted(listed, key=lambda row: row.mean.mean * direction(self.metric))


def direction(metric: str) -> int:
    """Return 1 where lower is better, -1 where higher is better: sorting by value * direction puts the best first."""
    return 1 if METRICS[metric].better == "lower" else -1


def unit_of(metric: str) -> str:
    """Return the unit that tables show: per cent for fractions."""
    return "%" if METRICS[metric].unit == "1" else METRICS[metric].unit


def shown(metric: str, value: float, *, sign: bool = False) -> str:
    """Return a value as tables print it, one decimal, in `unit_of(metric)`; NaN as a dash."""
    if not np.isfinite(value):
        return DASH
    value = value * 100 if METRICS[metric].unit == "1" else value
    text = f"{value:+.1f}" if sign else f"{value:.1f}"
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
    by_key = {(row.model, row.initialisation, row.task): row for row in table.itertuples()}
    grid = {
        method.key: [_cell(by_key.get((*method.key, task["name"])), states) for task in tasks]
        for method in run.methods_of(experiment)
    }
    means = _means(table, grid, tasks)
    rows = [Row(method, means[method.key], grid[method.key]) for method in run.methods_of(experiment)]
    return Table(
        name=f"{experiment}_{metric}",
        experiment=experiment,
        metric=metric,
        data=_data(run, experiment),
        caption=_caption(run, experiment, metric, table),
        protocol=run.record["protocol"],
        tasks=tasks,
        rows=_placed(rows, direction(metric)),
        notes=_notes(rows, tasks, metric),
    )


def _states(rows: pd.DataFrame) -> dict[tuple, tuple[str, str]]:
    """Return (model, initialisation, task) -> (the only status of its rows or 'mixed', a reason)."""
    states = {}
    for key, part in rows.groupby(["model", "initialisation", "task"], sort=False):
        statuses = part["status"].unique()
        bad = part[part["status"].isin(("failed", "skipped", "not_defined", "prediction_missing"))]
        states[key] = (statuses[0] if len(statuses) == 1 else "mixed", bad["reason"].iloc[0] if len(bad) else "")
    return states


def _cell(found, states: dict) -> Cell:
    if found is None:
        return Cell("absent")
    status, reason = states[(found.model, found.initialisation, found.task)]
    state = status if status in ("failed", "skipped", "not_defined") else "ok"
    if state == "ok" and not np.isfinite(found.mean):
        state = "uncounted"
    return Cell(
        state,
        found.mean,
        found.low,
        found.high,
        found.low_as_seen,
        found.high_as_seen,
        found.n_scored,
        found.n_expected,
        found.n_failed,
        found.n_patients,
        found.n_seeds,
        reason,
    )


def _means(table: pd.DataFrame, grid: dict, tasks: list[dict]) -> dict[tuple, Cell]:
    """Mean over tasks; `partial` when a task that some method has a figure for is missing."""
    defined = [any(np.isfinite(cells[i].mean) for cells in grid.values()) for i in range(len(tasks))]
    found = {(row.model, row.initialisation): row for row in mean_over_tasks(table).itertuples()} if len(table) else {}
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
            partial=partial,
            reason=f"mean over {row.n_tasks} of {sum(defined)} tasks" if partial else "",
        )
    return means


def _ranks(method: Method, cell: Cell) -> bool:
    return method.trained and cell.state == "ok" and not cell.partial


def _placed(rows: list[Row], sign: int) -> list[Row]:
    """Mark best and second-best of every column; equal values share a place."""
    columns = [[row.mean for row in rows], *(list(column) for column in zip(*(row.cells for row in rows), strict=True))]
    for i, column in enumerate(columns):
        eligible = [_ranks(row.method, cell) for row, cell in zip(rows, column, strict=True)]
        values = sorted({cell.mean * sign for cell, ok in zip(column, eligible, strict=True) if ok})[:2]
        places = {value: place for place, value in enumerate(values, 1)} if sum(eligible) > 1 else {}
        columns[i] = [
            replace(cell, place=places.get(cell.mean * sign, 0)) if ok else cell
            for cell, ok in zip(column, eligible, strict=True)
        ]
    return [Row(row.method, columns[0][i], [column[i] for column in columns[1:]]) for i, row in enumerate(rows)]


def _data(run: Run, experiment: str) -> str:
    return "synthetic" if run.synthetic(experiment) else "real"


def _notes(rows: list[Row], tasks: list[dict], metric: str) -> list[str]:
    notes = []
    for row in rows:
        for task, cell in zip(tasks, row.cells, strict=True):
            where, reason = f"{row.method.title}, {task['title']}", cell.reason or "no reason given"
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
            notes.append(f"{task['title']}: not defined: {undefined.reason or 'no reason given'}")
    return notes


def _caption(run: Run, experiment: str, metric: str, table: pd.DataFrame) -> str:
    about = METRICS[metric]
    return (
        f"{run.data_word(experiment)}{experiment.capitalize()} tasks: {about.title} in {unit_of(metric)}, "
        f"{about.better} is better ({about.definition}). A cell is the mean over structures of the per-structure "
        f"means over test cases; below it the {100 * CONFIDENCE:.0f} % interval and n scored / n expected (cases x "
        f"structures x seeds). {_interval_sentence(table, run.seeds(experiment))} Protocol: "
        f"{run.record['protocol']}. Policy: {policy_text(metric, run.record['policies'])}; not defined and skipped "
        "are left out. Bold: best, underlined: second-best point estimate among trained methods; the mark alone "
        f"does not say that a difference is real.{_ceiling_sentence(run, experiment)}"
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
    text = "Interval: patients are the unit; misses weighted by mid-P limits, hits by Student's distribution; " + spread
    seen = table[table["n_patients"] > 1].drop_duplicates("n_patients").sort_values("n_patients")
    if seen.empty:
        return text + "."
    ranges = [
        f"{100 * row.coverage_low:.0f}{DASH}{100 * row.coverage_high:.0f} % with {row.n_patients} patients"
        for row in seen.iloc[sorted({0, len(seen) - 1})].itertuples()
    ]
    return f"{text}. Measured coverage in simulations: {', '.join(ranges)}."


def table_csv(table: Table) -> str:
    """Return one line per cell; figures in the unit of the column `unit`, blank where there is none."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_ABOUT_TABLE, *_ABOUT_METHOD, "task", "state", *_FIGURES, *_COUNTS, "place", "reason"])
    about = [table.data, table.experiment, table.metric, unit_of(table.metric), table.protocol]
    for row in table.rows:
        method = [*row.method.key, row.method.title, row.method.kind, row.method.fidelity]
        for name, cell in zip([MEAN, *(task["name"] for task in table.tasks)], [row.mean, *row.cells], strict=True):
            figures = [_plain(table.metric, getattr(cell, figure)) for figure in _FIGURES]
            counts = [getattr(cell, count) if name != MEAN or count in _SUMMED else "" for count in _COUNTS]
            writer.writerow([*about, *method, name, cell.state, *figures, *counts, cell.place or "", cell.reason])
    return stream.getvalue()


def _plain(metric: str, value: float) -> str:
    return "" if not np.isfinite(value) else f"{value * (100 if METRICS[metric].unit == '1' else 1):.4f}"


def cell_lines(table: Table, cell: Cell) -> tuple[str, str, str]:
    """Return what a cell shows: figure or state, interval, n; empty lines where there is nothing to say."""
    count = f"{cell.n_scored}/{cell.n_expected}" if cell.n_expected else ""
    if cell.state != "ok":
        return STATE_WORDS[cell.state], "", count
    flag = "\u2020" if cell.n_failed or cell.partial else ""
    return shown(table.metric, cell.mean) + flag, interval_text(table.metric, cell.low, cell.high), count


def table_markdown(table: Table) -> str:
    """Return the caption, one markdown table per block and the notes; best in bold, second-best underlined."""
    head = ["Method", "Fidelity", "Mean over tasks", *(task["title"] for task in table.tasks)]
    lines = [table.caption, ""]
    for title, rows in table.blocks:
        lines += [f"**{title}**", "", _md_line(head), _md_line(["---", "---", *["---:"] * (len(head) - 2)])]
        for row in rows:
            cells = [_md_cell(table, cell) for cell in (row.mean, *row.cells)]
            lines.append(_md_line([row.method.title, row.method.fidelity, *cells]))
        lines.append("")
    return "\n".join([*lines, *(f"- {note}" for note in table.notes)]).rstrip() + "\n"


def _md_line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _md_cell(table: Table, cell: Cell) -> str:
    value, interval, count = cell_lines(table, cell)
    value = {1: f"**{value}**", 2: f"<u>{value}</u>"}.get(cell.place, value)
    parts = (value, f"({interval})" if interval else "", f"n {count}" if count else "")
    return " ".join(part for part in parts if part)


def table_tex(table: Table) -> str:
    """Return a LaTeX table for booktabs, graphicx (resizebox) and makecell."""
    head = ["Method", "Fidelity", "Mean over tasks", *(task["title"] for task in table.tasks)]
    lines = [
        "% needs \\usepackage{booktabs,graphicx,makecell}",
        "\\begin{table*}",
        f"\\caption{{{_tex(table.caption)}}}",
        f"\\label{{tab:{table.name}}}",
        "\\resizebox{\\textwidth}{!}{%",
        f"\\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}",
        "\\toprule",
        " & ".join(f"\\makecell{{{_tex(title)}}}" for title in head) + " \\\\",
    ]
    for title, rows in table.blocks:
        lines += ["\\midrule", f"\\multicolumn{{{len(head)}}}{{l}}{{\\emph{{{_tex(title)}}}}} \\\\"]
        for row in rows:
            cells = [_tex_cell(table, cell) for cell in (row.mean, *row.cells)]
            lines.append(" & ".join([_tex(row.method.title), _tex(row.method.fidelity), *cells]) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}}"]
    lines += ["\\par\\footnotesize " + " ".join(_tex(note) + "." for note in table.notes)] if table.notes else []
    return "\n".join([*lines, "\\end{table*}"]) + "\n"


def _tex_cell(table: Table, cell: Cell) -> str:
    value, interval, count = (_tex(part) for part in cell_lines(table, cell))
    value = {1: f"\\textbf{{{value}}}", 2: f"\\underline{{{value}}}"}.get(cell.place, value)
    small = [f"\\scriptsize {part}" for part in (interval, count) if part]
    return "\\makecell[r]{" + " \\\\ ".join([value, *small]) + "}"


_TEX = {
    "\\": "\\textbackslash{}",
    "&": "\\&",
    "%": "\\%",
    "$": "\\$",
    "#": "\\#",
    "_": "\\_",
    "{": "\\{",
    "}": "\\}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "|": "\\textbar{}",
    "\u2013": "--",
    "\u2212": "$-$",
    "\u2020": "$^\\dagger$",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in text)
