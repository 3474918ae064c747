"""Learning curves: loss and Dice of held-out cases as they are in the record, and whether the loss has flattened."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from segbench.core.run_record import Curve
from segbench.reporting import learning_curves
from segbench.reporting.learning_curves import (
    flat_sentence,
    learning_table,
    loss_frame,
    self_supervised_plot,
    training_plot,
    validation_frame,
)
from segbench.reporting.page import render
from segbench.reporting.run import Run
from segbench.reporting.style import SMALLEST_PT
from tests.unit.reporting.drawn import kept_figures
from tests.unit.reporting.synthetic_run import write_run

POINTS = 5
PROGRESS = [20.0, 40.0, 60.0, 80.0, 100.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run of which the Dice of held-out cases was measured."""
    folder = tmp_path_factory.mktemp("curves") / "toy"
    return write_run(folder, seeds=(0, 1), upstream=3, methods=12, validation=POINTS)


@pytest.fixture(scope="module")
def run(folder) -> Run:
    return Run(folder)


@pytest.fixture(scope="module")
def without(tmp_path_factory) -> Run:
    return Run(write_run(tmp_path_factory.mktemp("none") / "toy", seeds=(0, 1), upstream=3, methods=12))


@pytest.fixture
def drawn(monkeypatch):
    """Every figure as it is about to be written, after its layout is settled."""
    return kept_figures(monkeypatch, learning_curves)


def right_axes(figure):
    return [axis for axis in figure.axes if axis.yaxis.get_label_position() == "right"]


def test_held_out_dice_is_drawn_beside_the_loss_a_line_per_seed_the_mean_over_tasks(run, drawn):
    plot = training_plot(run, "upstream")
    ((figure, _),) = drawn
    methods = [method for method in run.methods_of("upstream") if method.trained]
    assert len(right_axes(figure)) == len(methods)
    for axis in right_axes(figure):
        assert axis.get_ylim() == (-2, 102), "the same for every method"
        assert len(axis.lines) == 2, "two seeds"
        for line in axis.lines:
            assert line.get_xdata().tolist() == PROGRESS
            rise = 100 * 0.5 * np.arange(1, POINTS + 1) / POINTS
            assert line.get_ydata() == pytest.approx(rise + 10 / 3)
    titles = [task.title for task in run.tasks("upstream")]
    assert f"({', '.join(f'{title}: 2' for title in titles)})" in plot.caption
    assert "It is never used to choose anything." in plot.caption


@pytest.mark.parametrize("experiment", ["upstream", "downstream"])
def test_no_text_is_too_small_and_none_leaves_the_figure(run, drawn, experiment):
    training_plot(run, experiment)
    ((figure, _),) = drawn
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= SMALLEST_PT
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) >= -0.02
    assert box.x1 <= width + 0.02
    assert box.y1 <= height + 0.02


def test_without_held_out_cases_the_loss_is_drawn_alone(without, drawn):
    plot = training_plot(without, "upstream")
    ((figure, _),) = drawn
    assert not right_axes(figure)
    assert "held" not in plot.caption
    assert "Dice before" not in learning_table(without, "upstream", "upstream_dice").head


def test_objectives_are_drawn_without_dice(run, drawn):
    assert self_supervised_plot(run, "upstream") is not None
    assert not right_axes(drawn[0][0])
    assert self_supervised_plot(run, "downstream") is None


def test_a_point_is_a_row(run):
    frame = validation_frame(run, "upstream")
    jobs = [job for job in run.record.jobs if job.experiment == "upstream" and job.validation]
    assert len(frame) == sum(POINTS * len(job.validation.tasks) for job in jobs)
    row = frame.iloc[0]
    assert (row["model"], row["task"], row["cases"], row["progress"], row["dice"]) == (
        "uniseg",
        run.tasks("upstream")[0].title,
        2,
        20.0,
        0.5 / POINTS + 0.1,
    )


def test_tasks_are_averaged_where_all_of_them_were_measured(run, drawn, monkeypatch):
    frame = validation_frame(run, "upstream")
    odd = frame[(frame["model"] == "single_task") & (frame["step"] == frame["step"].min())].iloc[[0]]
    extra = pd.concat([frame, odd.assign(progress=1.0, dice=1.0)], ignore_index=True)
    monkeypatch.setattr(learning_curves, "validation_frame", lambda run, experiment: extra)
    training_plot(run, "upstream")
    for axis in right_axes(drawn[0][0]):
        assert all(line.get_xdata().tolist() == PROGRESS for line in axis.lines)


def curve(losses):
    return Curve(iteration=tuple(range(1, len(losses) + 1)), loss=tuple(losses))


def levels(*fifths):
    """Return the losses of 100 steps, 20 at each level."""
    return np.repeat(fifths, 20)


NOISE = np.tile([0.2, -0.2], 50)


@pytest.mark.parametrize(
    ("losses", "fraction", "half_width", "state"),
    [
        (np.linspace(1, 0, 100), 0.25, None, "still falls"),
        (levels(1, 0.5, 0.5, 0.5, 0.5), 0.0, 0.0, "flattened"),
        (levels(1, 0.5, 0.5, 0.5, 0.48), 0.02 / 0.52, 0.0, "flattened"),
        (levels(1, 0.5, 0.5, 0.5, 0.45), 0.05 / 0.55, 0.0, "still falls"),
        (levels(1, 0.5, 0.5, 0.5, 0.55), -0.05 / 0.45, 0.0, "rises"),
        (levels(1, 0, 0, 0, 0) + NOISE, 0.0, 1.96 * np.sqrt(2 * 0.04 * 20 / 19 / 20 / 2), "not clear"),
        (levels(1, 1, 1, 1, 1), np.nan, None, "does not fall"),
        ([1.0, 0.5, 0.1], np.nan, None, "too few points"),
    ],
)
def test_the_end_of_a_loss_by_hand(run, monkeypatch, losses, fraction, half_width, state):
    jobs = [job.model_copy(update={"curve": curve(losses)}) for job in run.record.jobs if job.curve]
    monkeypatch.setattr(run, "record", run.record.model_copy(update={"jobs": tuple(jobs)}))
    row = loss_frame(run, "upstream").iloc[0]
    assert row["fraction_of_fall"] == pytest.approx(fraction, nan_ok=True, abs=1e-12)
    assert (row["state"], row["jobs"]) == (state, 2)
    if half_width is not None:
        assert (row["high"] - row["low"]) / 2 == pytest.approx(half_width, abs=1e-12), "of two seeds"


def test_every_trained_method_and_objective_has_a_row(run):
    table = learning_table(run, "upstream", "upstream_dice")
    trained = [method.title for method in run.methods_of("upstream") if method.trained]
    assert [row[0] for row in table.rows] == [*trained, "Self-supervised: Restoration"]
    assert re.fullmatch(r"\u2212?\d+ % \(\u2212?\d+ to \u2212?\d+\)", table.rows[0][3])
    expected = ["43.3", "53.3", "+10.0", "73.3", "+20.0"]
    assert table.rows[0][-5:] == expected, "0.4, 0.5 and 0.7, and a third of 0.1"
    assert table.rows[-1][-5:] == ["\u2013"] * 5, "an objective has no Dice"
    assert table.csv == "tables/upstream_dice_loss.csv"


def test_the_sentence_names_what_has_not_flattened():
    frame = pd.DataFrame({"title": ["A", "B", "C"], "state": ["flattened", "still falls", "flattened"]})
    assert flat_sentence(frame) == "At the end the loss has flattened for A, C; still falls for B."
    assert flat_sentence(frame.assign(state="still falls")) == "At the end the loss of every method still falls."
    assert flat_sentence(frame[:0]) == ""


@pytest.mark.slow
def test_the_page_shows_curves_table_and_counts(folder, run, tmp_path):
    render(folder, tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert flat_sentence(loss_frame(run, "upstream")) in page
    assert "10 + 2 held out" in page
    assert "no choice was made by it" in page
    table = pd.read_csv(tmp_path / "tables" / "upstream_dice_validation.csv")
    assert len(table) == len(validation_frame(run, "upstream"))
