"""Figures: column widths, readable text, fixed colours, limits that hold every value, bold only for decisions."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text

from segbench.core.run_record import Method
from segbench.reporting import figures, rank_figures
from segbench.reporting.figures import DECIDED
from segbench.reporting.run import Run
from segbench.reporting.statistics import differences, reference_method, statistics_of
from segbench.reporting.style import (
    GREY,
    INK,
    SHADES,
    SMALLEST_PT,
    WIDTH_MM,
    fixed_jitter,
    ink_on,
    method_styles,
    numbered,
)
from segbench.reporting.tables import Cell, build_table
from tests.unit.reporting.drawn import kept_figures
from tests.unit.reporting.synthetic_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return Run(write_run(tmp_path_factory.mktemp("figures") / "toy", seeds=(0,), cases=9, upstream=3, methods=12))


@pytest.fixture
def drawn(monkeypatch):
    """Every figure as it is about to be written, after its layout is settled."""
    return kept_figures(monkeypatch, figures, rank_figures)


@pytest.fixture(scope="module")
def statistics(run):
    """The statistics of both experiments, each computed once."""
    return {experiment: statistics_of(run, experiment, "dice") for experiment in ("upstream", "downstream")}


def draw_all(run, experiment, statistics):
    table = build_table(run, experiment, "dice")
    return [
        figures.case_plot(run, table),
        figures.case_plot(run, build_table(run, experiment, "hd95")),
        figures.difference_plot(
            run,
            experiment,
            differences(run, experiment, "dice", statistics.paired),
            reference=reference_method(run, experiment).title,
        ),
        figures.cost_plot(run, table),
        rank_figures.critical_difference_plot(run, statistics),
        rank_figures.rank_stability_plot(run, statistics),
    ]


@pytest.mark.slow
def test_figures_have_the_width_of_a_column_and_no_text_below_seven_points(run, drawn, statistics):
    draw_all(run, "upstream", statistics["upstream"])
    assert len(drawn) == 6
    for figure, width in drawn:
        assert figure.get_size_inches()[0] * 25.4 == pytest.approx(WIDTH_MM[width])
        texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
        assert texts
        assert min(text.get_fontsize() for text in texts) >= SMALLEST_PT >= 7


def test_nothing_leaves_the_figure(run, drawn, statistics):
    draw_all(run, "downstream", statistics["downstream"])  # the longest titles
    for figure, _ in drawn:
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert box.x0 >= -0.02
        assert box.y0 >= -0.02
        assert box.x1 <= width + 0.02
        assert box.y1 <= height + 0.02


@pytest.mark.parametrize("metric", ["dice", "hd95"])
def test_the_limits_hold_every_case_and_every_interval(run, drawn, metric):
    table = build_table(run, "upstream", metric)
    figures.case_plot(run, table)
    low, high = drawn[0][0].axes[0].get_xlim()
    factor = 100 if metric == "dice" else 1
    values = figures.case_values(run, table)["scored"]
    limits = [cell.high * factor for row in table.rows for cell in row.cells if np.isfinite(cell.high)]
    assert low <= min(values)
    assert high >= max(*values, *limits)
    for axis in drawn[0][0].axes[:3]:
        assert axis.get_xlim() == (low, high)


def test_a_case_figure_shows_every_case_once(run, drawn):
    table = build_table(run, "upstream", "dice")
    figures.case_plot(run, table)
    points = sum(len(collection.get_offsets()) for axis in drawn[0][0].axes for collection in axis.collections)
    assert points == len(figures.case_values(run, table))


def method(experiment, model, initialisation, kind):
    return Method(
        experiment=experiment,
        model=model,
        initialisation=initialisation,
        recipe="none" if kind == "control" else "equal",
        recipe_text="",
        title=f"{model} {initialisation}",
        kind=kind,
        fidelity="concept",
        options_text="",
        citation="",
        url="",
    )


@pytest.mark.slow
def test_shared_parts_are_numbered_because_their_hashes_differ_between_processors(run, statistics):
    text = b'<path id="m0123456789"/><use xlink:href="#m0123456789"/><g clip-path="url(#pabcdefabcd)"/>'
    assert numbered(text) == b'<path id="part1"/><use xlink:href="#part1"/><g clip-path="url(#part2)"/>'
    for plot in draw_all(run, "upstream", statistics["upstream"]):
        names = re.findall(rb'id="([^"]+)"', plot.svg)
        assert len(names) == len(set(names))
        assert set(re.findall(rb'(?:url\(|href=")#([^")]+)', plot.svg)) <= set(names)
        assert not re.search(rb'id="[^"]*[0-9a-f]{10}"', plot.svg)


def test_a_method_has_one_colour_on_the_whole_page():
    styles = method_styles(
        [
            method("upstream", "uniseg", "random", "universal"),
            method("upstream", "single_task", "random", "single_task"),
            method("upstream", "empty", "none", "control"),
            method("downstream", "single_task", "scratch", "transfer"),
            method("downstream", "single_task", "volume_contrast", "transfer"),
            method("downstream", "single_task", "uniseg", "transfer"),
            method("downstream", "empty", "none", "control"),
            method("upstream", "volume_contrast", "random", "self_supervised"),
        ]
    )
    assert styles["downstream", "single_task", "uniseg"] == styles["upstream", "uniseg", "random"]
    assert styles["downstream", "single_task", "scratch"] == styles["upstream", "single_task", "random"]
    assert styles["downstream", "single_task", "volume_contrast"] == styles["upstream", "volume_contrast", "random"]
    assert styles["upstream", "empty", "none"] == styles["downstream", "empty", "none"]
    assert styles["upstream", "empty", "none"]["color"] == GREY


@pytest.mark.parametrize("count", [7, 20])
def test_methods_of_an_experiment_differ_in_colour_or_marker(count):
    methods = [method("upstream", f"model_{i}", "random", "universal") for i in range(count)]
    methods += [method("downstream", "model_1", name, "transfer") for name in ("scratch", "model_1", "model_2")]
    styles = method_styles(methods)
    for experiment in ("upstream", "downstream"):
        own = [tuple(style.items()) for key, style in styles.items() if key[0] == experiment]
        assert len(set(own)) == len(own)


def test_a_difference_is_bold_only_by_decision(run, drawn, statistics):
    paired = statistics["upstream"].paired
    table = differences(run, "upstream", "dice", paired).assign(low=0.5, high=0.9, transfer="not shown")
    chosen = table.index[3]
    table.loc[chosen, "transfer"] = "negative"
    plot = figures.difference_plot(run, "upstream", table, reference="R")
    assert "Measured coverage in simulations" in plot.caption
    axis = drawn[0][0].axes[0]
    bold = [text.get_position() for text in axis.texts if text.get_fontweight() == "bold"]
    titles, columns = list(dict.fromkeys(table["title"])), list(dict.fromkeys(table["column"]))
    row = table.loc[chosen]
    assert bold == [(titles.index(row["title"]) + 0.5, columns.index(row["column"]) + 0.5)]


@pytest.mark.parametrize(("tasks", "methods", "interval"), [(4, 4, True), (1, 6, True), (13, 3, True), (13, 20, False)])
def test_no_text_of_the_map_of_differences_leaves_its_cell(run, drawn, tasks, methods, interval):
    row = {"difference": -0.314, "low": -0.409, "high": -0.2, "n_patients": 25.0, "transfer": DECIDED[0]}
    row |= {"coverage_low": 0.95, "coverage_high": 1.0, "coverage_n": 9.0}
    columns = ["Mean over tasks", *(f"Head and neck organs ({i + 10})" for i in range(tasks))]
    table = pd.DataFrame(
        row | {"title": f"Universal model {i + 10}", "column": name} for i in range(methods) for name in columns
    )
    plot = figures.difference_plot(run, "upstream", table, reference="R")
    axis = drawn[0][0].axes[0]
    cell = axis.transData.transform([[0, 0], [1, 1]])
    width, height = np.abs(cell[1] - cell[0])
    boxes = [text.get_window_extent() for text in axis.texts]
    assert len(boxes) == (tasks + 1) * methods
    assert max(box.width for box in boxes) < width
    assert max(box.height for box in boxes) < height
    for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
        found = [label.get_window_extent() for label in labels]
        assert not any(first.overlaps(second) for first, second in itertools.pairwise(found))
    assert all(("−20.0" in text.get_text()) is interval for text in axis.texts)
    assert ("with 95 % interval" in plot.caption) is interval


def test_words_on_a_colour_can_be_read():
    assert ink_on("white") == INK
    assert ink_on(SHADES(1.0)) == ink_on("black") == "white"
    assert ink_on(SHADES(0.54)) == INK


def test_the_fractions_of_ranks_can_be_read():
    fractions = pd.DataFrame({"method": ["a", "a", "b", "b"], "rank": [1, 2, 1, 2], "fraction": [0.54, 0.46, 0.0, 1.0]})
    figure = rank_figures.fraction_map(fractions, {"a": "A", "b": "B"})
    colours = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    plt.close(figure)
    assert colours["54 %"] == INK
    assert colours["100 %"] == "white"


def test_a_metric_that_is_defined_nowhere_has_no_figure_of_cases(run):
    table = build_table(run, "upstream", "hd95")
    rows = [replace(row, cells=[Cell("not_defined") for _ in row.cells]) for row in table.rows]
    assert figures.case_plot(run, replace(table, rows=rows)) is None


def test_the_diagram_names_every_method_with_its_rank_and_joins_what_is_not_distinguishable():
    ranks = pd.Series({"b": 2.5, "a": 1.0, "c": 2.6})
    p_values = pd.DataFrame(
        [[1, 0.01, 0.9], [0.01, 1, 0.01], [0.9, 0.01, 1]], index=list("bac"), columns=list("bac"), dtype=float
    )
    titles = {"a": "Model A", "b": "Model B", "c": "Model C"}
    colours = {"a": "#ff0000", "b": "#00ff00", "c": "#0000ff"}
    figure = rank_figures.critical_difference_figure(ranks, p_values, titles=titles, colours=colours)
    words = {text.get_text().strip() for text in figure.axes[0].texts}
    assert words == {"Model A  1.00", "Model B  2.50", "2.60  Model C"}
    bars = [line.get_xdata() for line in figure.axes[0].lines if line.get_linewidth() == 2.5]
    assert [sorted(bar) for bar in bars] == [[2.5, 2.6]]
    plt.close(figure)


def test_the_jitter_is_the_same_every_time_and_leaves_the_generator_alone():
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    with fixed_jitter():
        first = np.random.random()
    with fixed_jitter():
        assert np.random.random() == first
    assert np.array_equal(np.random.random(3), expected)


def test_a_diagram_that_can_join_everything_only_is_not_drawn(run, statistics):
    found = statistics["downstream"]
    assert found.friedman["critical_difference"].iloc[-1] > found.friedman["n_methods"].iloc[-1] - 1
    assert rank_figures.critical_difference_plot(run, found) is None
