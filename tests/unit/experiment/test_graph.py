"""What the workflow asks: a data set whose files change has another state, so that it is ingested anew."""

import os

import pytest
import yaml

from segbench.experiment.graph import Run
from tests.paths import ROOT

TASK = "task04_hippocampus"


@pytest.fixture
def run(tmp_path):
    """A run over one real data set with two files."""
    content = yaml.safe_load((ROOT / "config" / "real_small.yaml").read_text())
    content["data"]["root"] = str(tmp_path)
    content["upstream"] |= {"tasks": [TASK]}
    del content["downstream"]
    folder = tmp_path / "Task04_Hippocampus" / "imagesTr"
    folder.mkdir(parents=True)
    for name in ("a.nii.gz", "b.nii.gz"):
        (folder / name).write_text(name)
    return Run(content, warn=print), folder


def test_the_state_of_a_data_set_changes_with_its_files_alone(run):
    graph, folder = run
    first = graph.source_state(TASK)
    assert graph.source_state(TASK) == first
    (folder / "b.nii.gz").write_text("other")
    second = graph.source_state(TASK)
    os.utime(folder / "a.nii.gz", (1, 1))
    third = graph.source_state(TASK)
    (folder / "c.nii.gz").write_text("new")
    assert len({first, second, third, graph.source_state(TASK)}) == 4


def test_generated_data_have_no_state_of_their_own():
    content = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    graph = Run(content, warn=print)
    assert graph.source_state(graph.task_names[0]) == ""


def test_a_recipe_of_another_task_changes_nothing():
    content = yaml.safe_load((ROOT / "config" / "real_small.yaml").read_text())
    content["data"]["root"] = "here"
    plain = Run(content, warn=lambda line: None)
    other = Run(content | {"preprocessing_recipes": {"openkbp": {"image_order": 1}}}, warn=lambda line: None)
    own = Run(content | {"preprocessing_recipes": {"hippocampus": {"image_order": 1}}}, warn=lambda line: None)
    assert plain.recipe_settings(TASK) == other.recipe_settings(TASK) != own.recipe_settings(TASK)
