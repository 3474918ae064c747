"""The similarity of prompts on the page: the first and the last matrix, and the mean of every measured step."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.text import Text

from segbench.core.run_record import PromptSimilarity
from segbench.reporting import prompt_figures
from segbench.reporting.run import Run
from segbench.reporting.style import SMALLEST_PT, WIDTH_MM
from tests.unit.reporting.drawn import kept_figures
from tests.unit.reporting.synthetic_run import write_run

TASKS = ("toy_liver", "toy_kidney", "toy_vessel")
STEPS = (0, 50, 100)


def matrix(cosine: float) -> list[list[float]]:
    """Return a matrix in which every two tasks have the same cosine."""
    return [[1.0 if i == j else cosine for j in range(len(TASKS))] for i in range(len(TASKS))]


SIMILARITY = {"tasks": TASKS, "steps": STEPS, "cosine": [matrix(0.0), matrix(-0.25), matrix(-0.5)]}


@pytest.fixture
def run(tmp_path):
    """A run whose UniSeg has recorded its prompts."""
    folder = write_run(tmp_path / "toy", cases=3, upstream=3, methods=3)
    path = folder / "run.json"
    record = json.loads(path.read_text())
    changed = [job for job in record["jobs"] if job["model"] == "uniseg" and job["experiment"] == "upstream"]
    assert changed
    for job in changed:
        job["prompt_similarity"] = SIMILARITY
    path.write_text(json.dumps(record))
    return Run(folder)


def test_the_mean_is_over_pairs_of_different_tasks_and_without_sign():
    found = prompt_figures.mean_similarity(PromptSimilarity.model_validate_json(json.dumps(SIMILARITY)))
    np.testing.assert_allclose(found, [0.0, 0.25, 0.5])


def test_the_maps_and_the_line_show_what_was_recorded(run, monkeypatch):
    figures = kept_figures(monkeypatch, prompt_figures)
    plot = prompt_figures.prompt_similarity_plot(run, "upstream")
    ((figure, _),) = figures
    first, last, line = figure.axes[:3]
    for axis, expected in ((first, SIMILARITY["cosine"][0]), (last, SIMILARITY["cosine"][-1])):
        np.testing.assert_allclose(axis.collections[0].get_array().reshape(3, 3), expected)
    np.testing.assert_allclose(line.lines[0].get_xydata(), [[0, 0.0], [50, 0.25], [100, 0.5]])
    titles = [label.get_text() for label in first.get_yticklabels()]
    named = {task.name: task.title for task in run.record.tasks}
    assert [title.split("  ")[0] for title in titles] == [named[name] for name in TASKS]
    assert "Synthetic data" in plot.caption
    assert "UniSeg" in plot.caption
    assert round(figure.get_figwidth() * 25.4) == WIDTH_MM["double"]
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= SMALLEST_PT


def test_without_a_record_there_is_no_figure(tmp_path):
    run = Run(write_run(tmp_path / "toy", cases=3, upstream=3, methods=3))
    assert prompt_figures.prompt_similarity_plot(run, "upstream") is None
