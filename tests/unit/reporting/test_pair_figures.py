"""Two methods beside each other: the right values in pairs, missed structures in the margin, decisions as tested."""

from __future__ import annotations

import html
import re

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from segbench.core.vocabulary import MISSED_STATUSES
from segbench.reporting import pair_figures, statistics
from segbench.reporting.page import render
from segbench.reporting.run import Run
from segbench.reporting.style import SMALLEST_PT, WIDTH_MM, task_styles
from segbench.reporting.tables import build_table
from tests.unit.reporting.drawn import kept_figures
from tests.unit.reporting.synthetic_run import write_run


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("pairs") / "toy", seeds=(0, 1), cases=4, upstream=3, methods=5)


@pytest.fixture(scope="module")
def run(results) -> Run:
    return Run(results)


@pytest.fixture
def drawn(monkeypatch):
    return kept_figures(monkeypatch, pair_figures)


def methods(run, *names):
    return [next(method for method in run.methods_of("upstream") if method.model == name) for name in names]


def test_values_are_means_over_seeds_of_what_both_methods_have(run):
    method, reference = methods(run, "uniseg", "single_task")
    table = build_table(run, "upstream", "dice")
    values = pair_figures.pair_values(run, table, method, reference).set_index(["task", "case", "structure"])
    rows = run.rows[(run.rows["experiment"] == "upstream") & (run.rows["metric"] == "dice")]
    found = rows[rows["status"] == "ok"].groupby(["model", "task", "case", "structure"])["value"].agg(["mean", "size"])
    whole = found[found["size"] == 2]["mean"]  # both seeds found it
    checked = 0
    for key, row in values.iterrows():
        for model, name in (("uniseg", "method"), ("single_task", "reference")):
            if (model, *key) in whole.index:
                assert row[name] == pytest.approx(100 * whole[(model, *key)])
                assert not row[f"{name}_missed"]
                checked += 1
    assert checked > 20
    expected = rows[rows["model"].isin(("uniseg", "single_task"))].drop_duplicates(["task", "case", "structure"])
    assert len(values) == len(expected)


def made_up(*rows):
    return pd.DataFrame(
        [("toy_liver", f"c{i}", "liver", *row) for i, row in enumerate(rows)],
        columns=["task", "case", "structure", "method", "method_missed", "reference", "reference_missed"],
    )


@pytest.mark.parametrize("metric", ["dice", "hd95"])
def test_missed_structures_stand_in_the_margin_beyond_the_worst_value_and_all_points_are_drawn(run, drawn, metric):
    method, reference = methods(run, "uniseg", "single_task")
    table = build_table(run, "upstream", metric)
    paired = statistics.compared(run, "upstream", metric)
    tasks = {task.name: task.title for task in table.tasks}
    sign = 1 if metric == "dice" else -1
    differences = statistics.against(paired, method, reference, tasks, sign=sign)
    values = made_up((80, False, 70, False), (0, True, 60, False), (90, False, 0, True), (0, True, 0, True))
    plot = pair_figures.pair_plot(run, table, values, differences, method=method, reference=reference)
    axis = drawn[0][0].axes[0]
    (points,) = [c for c in axis.collections if len(c.get_offsets())]
    x, y = np.asarray(points.get_offsets()).T
    assert (x[0], y[0]) == (70, 80)
    limits = axis.get_xlim()
    found, margin = [x[0], x[1], y[0], y[2]], [x[2], x[3], y[1], y[3]]
    if metric == "dice":
        assert max(margin) < 0 <= min(found)
    else:
        assert min(margin) > max(found)
    assert limits[0] <= min(*found, *margin)
    assert limits[1] >= max(*found, *margin)
    assert axis.get_ylim() == limits
    names = {label.get_text(): label.get_position()[0] for label in axis.get_xticklabels()}
    assert min(margin) <= names["missed"] <= max(margin)
    assert not axis.texts  # no word stands among the points
    assert "n = 4" in plot.caption
    assert "1 by UniSeg only, 1 by Single-task U-Net only, 1 by both" in plot.caption
    assert f"{'above' if metric == 'dice' else 'below'} the line UniSeg is better" in plot.caption


def test_every_trained_method_stands_beside_the_reference_and_a_filled_point_is_a_decision(run, drawn):
    table = build_table(run, "upstream", "dice")
    paired = statistics.compared(run, "upstream", "dice")
    pairs = pair_figures.reference_pairs(run, table, paired)
    trained = [method.title for method in run.methods_of("upstream") if method.trained]
    assert [pair.method.title for pair in pairs] == [title for title in trained if title != "Single-task U-Net"]
    assert {pair.reference.title for pair in pairs} == {"Single-task U-Net"}
    styles = task_styles(task.name for task in run.record.tasks)
    filled = 0
    for pair, (figure, width) in zip(pairs, drawn, strict=True):
        assert figure.get_size_inches()[0] * 25.4 == pytest.approx(WIDTH_MM[width])
        assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= SMALLEST_PT
        right = figure.axes[1]
        markers = [line for line in right.lines if line.get_marker() not in ("None", "", None)]
        decisions = [row[-1] for row in pair.table.rows]
        assert len(markers) == len(decisions)
        for line, decision in zip(markers, decisions, strict=True):
            white = matplotlib.colors.same_color(line.get_markerfacecolor(), "white")
            assert white == (decision not in ("better", "worse"))
            filled += not white
        for line, task in zip(markers[1:], table.tasks, strict=True):
            assert line.get_color() == styles[task.name]["color"]
    assert [row[-1] for pair in pairs for row in pair.table.rows].count("not distinguishable") + filled > 0


def test_without_a_reference_or_a_comparison_there_is_no_pair(run, monkeypatch):
    table = build_table(run, "upstream", "dice")
    assert pair_figures.reference_pairs(run, table, None) == []
    assert pair_figures.reference_pairs(run, table, pd.DataFrame()) == []
    monkeypatch.setattr(pair_figures, "reference_method", lambda *_: None)
    assert pair_figures.reference_pairs(run, table, statistics.compared(run, "upstream", "dice")) == []


def test_tasks_differ_in_colour_or_shape_and_keep_them():
    names = [f"task_{i}" for i in range(20)]
    styles = task_styles(names)
    assert len({tuple(style.items()) for style in styles.values()}) == 20
    assert task_styles([*names, names[0]])[names[3]] == styles[names[3]]


def test_the_page_has_one_figure_and_one_table_per_pair(results, tmp_path):
    render(results, tmp_path / "report")
    page = html.unescape((tmp_path / "report" / "index.html").read_text(encoding="utf-8"))
    run = Run(results)
    for experiment, reference in (("upstream", "Single-task U-Net"), ("downstream", "From scratch")):
        others = [m for m in run.methods_of(experiment) if m.trained and m.title != reference]
        details = re.findall(
            rf'<details class="pair" name="{experiment}-pair" data-first="(.*?)" data-second="(.*?)">', page
        )
        assert details == [(method.title, reference) for method in others]
        for method in others:
            stem = f"{experiment}_dice_pair_{method.model}_{method.initialisation}"
            assert (tmp_path / "report" / "figures" / f"{stem}.pdf").is_file()
            assert f'href="figures/{stem}.svg"' in page


def test_a_missed_structure_is_one_of_the_reference_that_was_not_found(run):
    assert "reference_empty" not in MISSED_STATUSES
    method, reference = methods(run, "uniseg", "single_task")
    values = pair_figures.pair_values(run, build_table(run, "upstream", "dice"), method, reference)
    rows = run.rows[(run.rows["experiment"] == "upstream") & (run.rows["metric"] == "dice")]
    rows = rows[rows["model"] == "uniseg"]
    missed = rows["status"].isin(MISSED_STATUSES) | ((rows["value"] == 0) & (rows["status"] != "reference_empty"))
    own = rows.assign(missed=missed).groupby(["task", "case", "structure"])["missed"].all()
    found = values.set_index(["task", "case", "structure"])["method_missed"]
    assert (found == own.loc[found.index]).all()
