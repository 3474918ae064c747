"""Result tables for papers: LaTeX that an author can paste, with siunitx columns and no text below 7 pt.

The tabular itself is written by pandas. Here it is decided whether methods or tasks are the columns, and where a table
that is too wide is cut into panels: it is never scaled.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from segbench.reporting.tables import DASH, Cell, Row, Table, cell_text, is_distance

PREAMBLE = "\\usepackage{booktabs,siunitx}"
PAGE_MM = 170.0
"""Width of the text of an A4 page, or of a table over two columns."""
TEXT_PT, SMALL_PT = 8.0, 7.0
GAP_PT = 2.5
"""Space on either side of a column."""
EM = 0.53
"""Mean width of a letter or digit in units of the font's size, on the safe side."""
LABEL_LETTERS, HEAD_LETTERS = 24, 11
POINTS_PER_MM = 72.27 / 25.4
TEXT = f"\\fontsize{{{TEXT_PT:g}}}{{{1.2 * TEXT_PT:g}}}\\selectfont"
SMALL = f"\\fontsize{{{SMALL_PT:g}}}{{{1.2 * SMALL_PT:g}}}\\selectfont"
DAGGER, FLAG = "\u2020", "\\textsuperscript{$\\dagger$}"


@dataclass(frozen=True)
class _Entry:
    """What a cell prints: a number or a word, and the interval below it."""

    value: str
    interval: str
    bold: bool
    number: bool

    def tex(self) -> tuple[str, str]:
        """Return the lines of the value and of the interval; words stand in braces in a column of numbers."""
        value = tex(self.value.rstrip(DAGGER)) + (FLAG if self.value.endswith(DAGGER) else "")
        value = f"\\bfseries {value}" if self.bold else value
        return (
            value if self.number else f"{{{value}}}",
            f"{{\\interval{{{tex(self.interval)}}}}}" if self.interval else "",
        )


@dataclass(frozen=True)
class _Grid:
    """Entries with the lines of their rows' and columns' titles, in plain text."""

    labels: list[list[str]]
    heads: list[list[str]]
    rows: list[list[_Entry]]

    def part(self, columns: slice) -> _Grid:
        """Return the same rows with some of the columns."""
        return _Grid(self.labels, self.heads[columns], [row[columns] for row in self.rows])


def table_tex(table: Table, *, controls: bool = False) -> str:
    """Return a LaTeX table of the trained methods, or of the controls; empty text when it has no rows.

    Methods are rows or columns, whichever needs fewer panels of PAGE_MM. The caption is one line; how to read a cell
    and what failed stands below the table, where an author may cut it.
    """
    rows = [row for row in table.rows if row.method.trained != controls]
    if not rows:
        return ""
    panels = min((_panels(_grid(table, rows, turned=turned)) for turned in (False, True)), key=len)
    distance = "After the semicolon: fraction of missed structures." if is_distance(table.metric) else ""
    cases = ", ".join(f"{task.title} {task.n_test}" for task in table.tasks)
    marking = "" if controls else table.marking
    notes = [table.legend, marking, distance, f"Test cases: {cases}.", *(f"{note}." for note in table.notes)]
    body = "\n\n\\medskip\n".join(_tabular(panel) for panel in panels)
    caption = f"Controls. {table.caption}" if controls else table.caption
    return "\n".join(
        [
            f"% needs {PREAMBLE}",
            "\\begin{table*}",
            "\\centering",
            f"\\caption{{{tex(caption)}}}",
            f"\\label{{tab:{table.name}{'_controls' if controls else ''}}}",
            TEXT,
            f"\\providecommand{{\\interval}}[1]{{{SMALL}(#1)}}",
            f"\\setlength{{\\tabcolsep}}{{{GAP_PT:g}pt}}",
            body,
            "",
            "\\smallskip",
            f"\\parbox{{\\linewidth}}{{{SMALL} {' '.join(tex(note) for note in notes if note)}}}",
            "\\end{table*}",
            "",
        ]
    )


def _grid(table: Table, rows: Sequence[Row], *, turned: bool) -> _Grid:
    """Return methods in rows and tasks in columns, or the other way round when turned."""
    names, heads = [row.method.title for row in rows], table.heads
    entries = [[_entry(table, cell) for cell in row.columns] for row in rows]
    if turned:
        names, heads, entries = heads, names, [list(column) for column in zip(*entries, strict=True)]
    labels = [textwrap.wrap(name, LABEL_LETTERS) or [""] for name in names]
    two_lines = [[first, " ".join(rest)] for first, *rest in labels]
    return _Grid(
        two_lines, [textwrap.wrap(head, HEAD_LETTERS, break_long_words=False) or [""] for head in heads], entries
    )


def _entry(table: Table, cell: Cell) -> _Entry:
    text = cell_text(table, cell)
    interval = text.interval if text.interval != DASH else ""
    if is_distance(table.metric) and text.missed:
        interval = f"{interval}; {text.missed.removesuffix(' missed')}".removeprefix("; ")
    return _Entry(text.value, interval, cell.marked, number=cell.state == "ok")


def _panels(grid: _Grid) -> list[_Grid]:
    """Return the grid cut into as few panels as fit the page, of about equally many columns."""
    entries = [entry for row in grid.rows for entry in row]
    label = TEXT_PT * EM * _longest(line for lines in grid.labels for line in lines) + 2 * GAP_PT
    column = 2 * GAP_PT + max(
        TEXT_PT * EM * _longest(line for lines in grid.heads for line in lines),
        TEXT_PT * EM * _longest(entry.value for entry in entries),
        SMALL_PT * EM * _longest(f"({entry.interval})" for entry in entries),
    )
    most = max(1, int((PAGE_MM * POINTS_PER_MM - label) // column))
    count = math.ceil(len(grid.heads) / most)
    each = math.ceil(len(grid.heads) / count)
    return [grid.part(slice(first, first + each)) for first in range(0, len(grid.heads), each)]


def _longest(texts: Iterable[str]) -> int:
    return max(map(len, texts))


def _tabular(grid: _Grid) -> str:
    """Return the tabular of one panel; each entry has a line for the value and one for the interval."""
    lines = []
    for label, row in zip(grid.labels, grid.rows, strict=True):
        for position, words in enumerate(label):
            lines.append([tex(words), *(entry.tex()[position] for entry in row)])
    numbers = [entry.value for row in grid.rows for entry in row if entry.number]
    whole = max([2, *(len(number.partition(".")[0]) for number in numbers)])
    heads = ["", *("\\shortstack{" + " \\\\ ".join(map(tex, head)) + "}" for head in grid.heads)]
    styler = pd.DataFrame(lines).style.hide(axis="index").format_index(lambda i: heads[int(str(i))], axis="columns")
    flagged = any(entry.value.endswith(DAGGER) for row in grid.rows for entry in row)
    space = f",table-space-text-post={{{FLAG}}}" if flagged else ""
    # detect-weight: without it siunitx prints a bold number as any other
    columns = "l" + f"S[table-format={whole}.1,detect-weight{space}]" * len(grid.heads)
    text = styler.to_latex(column_format=columns, hrules=True, siunitx=True).splitlines()
    first, last = text.index("\\midrule") + 1, text.index("\\bottomrule")
    entries = ["\n".join(text[i : i + 2]) for i in range(first, last, 2)]
    return "\n".join([*text[:first], "\n\\addlinespace[2pt]\n".join(entries), *text[last:]])


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
    "\u2020": "$\\dagger$",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    '"': "''",
    "`": "\\textasciigrave{}",
    "[": "{[}",  # an option of the row's end or the rule before it, where it opens a row
    "*": "{*}",  # part of that row's end
}


def tex(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return "".join(_TEX.get(letter, letter) for letter in text)
