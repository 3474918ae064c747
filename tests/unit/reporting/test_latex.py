"""LaTeX tables: they fit a page without scaling, escape names, mark what is marked, and compile."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from segbench.reporting.latex import PAGE_MM, PREAMBLE, SMALL_PT, _grid, _panels, table_tex, tex
from segbench.reporting.run import Run
from segbench.reporting.tables import Row, build_table, shown
from tests.unit.reporting.synthetic_run import write_run

HOSTILE = "50% of A&B_1 #2 {x} $y$ ~^ \\end{table*} <z> | \u2013 \u2020"
DOCUMENT = (
    "\\documentclass[10pt,twocolumn]{article}\n"
    f"\\usepackage[a4paper,textwidth={PAGE_MM:g}mm,textheight=260mm]{{geometry}}\n{PREAMBLE}\n"
    "\\begin{document}\n%s\nText.\n\\end{document}\n"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return Run(write_run(tmp_path_factory.mktemp("latex") / "toy", curves=False, cases=3))


@pytest.fixture(scope="module")
def dice(run):
    return build_table(run, "upstream", "dice")


def named(table, title: str):
    """The table with one method of another name and a marked mean."""
    first = table.rows[0]
    method = first.method.model_copy(update={"title": title})
    return replace(table, rows=[Row(method, replace(first.mean, marked=True), first.cells), *table.rows[1:]])


def test_eleven_tasks_put_methods_in_columns_on_one_page(dice):
    text = table_tex(dice)
    assert text.count("\\begin{tabular}") == 1
    head = text.split("\\toprule")[1].split("\\midrule")[0]
    assert "nnFormer" in head
    assert all(len(_panels(_grid(dice, dice.rows[:7], turned=turned))) == 2 - turned for turned in (False, True))


def test_two_tasks_put_methods_in_rows(run):
    text = table_tex(build_table(run, "downstream", "dice"))
    assert "organs" in text.split("\\toprule")[1].split("\\midrule")[0]


def test_what_fits_neither_way_is_cut_and_not_scaled(dice):
    many = [row for _ in range(3) for row in dice.rows if row.method.trained]
    text = table_tex(replace(dice, rows=many))
    assert text.count("\\begin{tabular}") == 2
    assert text.count("\\caption") == 1
    assert "resizebox" not in text
    sizes = [float(size) for size in re.findall(r"\\fontsize\{([\d.]+)\}", text)]
    assert min(sizes) == SMALL_PT >= 7
    assert not re.search(r"\\(tiny|scriptsize|scalebox|small)\b", text)


def test_controls_are_a_table_of_their_own(dice):
    text, controls = table_tex(dice), table_tex(dice, controls=True)
    assert "Oracle" not in text.split("\\bottomrule")[0]
    assert "Oracle" in controls.split("\\bottomrule")[0]
    assert "\\label{tab:upstream_dice_controls}" in controls
    assert table_tex(replace(dice, rows=[row for row in dice.rows if row.method.trained]), controls=True) == ""


def test_the_caption_is_one_line_and_notes_stand_below(dice):
    text = table_tex(dice)
    caption = re.search(r"\\caption\{(.*)\}\n", text).group(1)
    assert len(caption) < 300
    assert "95 \\% interval" not in caption
    assert text.index("\\bottomrule") < text.index("95 \\% interval")
    assert text.index("\\bottomrule") < text.index(f"Test cases: {dice.tasks[0].title} 3, ")


def test_only_a_marked_cell_is_bold(dice):
    assert "\\bfseries" not in table_tex(dice)
    text = table_tex(named(dice, "X"))
    assert text.count("\\bfseries") == 1
    assert "Bold:" not in table_tex(replace(dice, marking="Bold: this."), controls=True)
    assert "[table-format=2.1,detect-weight" in text  # siunitx prints a bold number as any other without it
    assert f"\\bfseries {shown('dice', dice.rows[0].mean.mean)}" in text


def test_names_are_escaped(dice):
    assert tex("a_b & 5%") == "a\\_b \\& 5\\%"
    assert tex("\\input{x}") == "\\textbackslash{}input\\{x\\}"
    assert tex("[18F] FDG *") == "{[}18F] FDG {*}", "neither is an option of the row before"
    text = table_tex(named(dice, HOSTILE))
    assert text.count("\\end{table*}") == 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_tables_compile_and_no_line_leaves_the_page(run, dice, tmp_path):
    tables = [table_tex(named(dice, HOSTILE)), table_tex(dice, controls=True)]
    tables += [table_tex(build_table(run, experiment, "hd95")) for experiment in run.experiments]
    (tmp_path / "t.tex").write_text(DOCUMENT % "\n".join(tables), encoding="utf-8")
    if subprocess.run(["kpsewhich", "siunitx.sty"], capture_output=True).returncode:
        pytest.skip("LaTeX is installed without siunitx")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout, re.findall(r"Overfull.*", done.stdout)
