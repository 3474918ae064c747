"""Section `data`: the folder, the lists, and both sides of every split."""

import pytest

from segbench.experiment.config import parse_config
from tests.unit.experiment.configs import changed, demo, lines, only


def test_a_missing_data_root_is_named(monkeypatch):
    monkeypatch.delenv("SEGBENCH_DATA", raising=False)
    content = demo()
    del content["data"]["root"]
    assert "SEGBENCH_DATA" in only(content)


def test_the_environment_gives_the_data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path))
    content = demo()
    del content["data"]["root"]
    assert parse_config(content, where="x").data_root == tmp_path
    content["data"]["root"] = "own"
    assert str(parse_config(content, where="x").data_root) == "own"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.root", "results/demo", "outside results and reports"),
        ("data.root", " ", "data.root"),
        ("data.root", "", "data.root"),
        ("data.folds", [0, 0], "found 0 twice"),
        ("data.folds", [-1], "greater than or equal to 0"),
        ("data.folds", [0, 1, 4], "found 1, 4; expected 0, the only fold of seeded"),
        ("data.split_files", ["lists.txt"], "'lists.txt'"),
        ("data.split_files", ["a.json"], "found lists for seeded; expected a task whose protocol follows lists"),
        ("data.split_files", ["a.json", "a.json"], "'a.json' twice"),
        ("data.accept_split_files", ["49b5"], "data.accept_split_files"),
        ("data.protocol", "seedet", "data.protocol"),
        ("data.protocol", "listed", "no list for phantom_abdomen13"),
        ("data.test_fraction", float("nan"), "finite"),
        ("data.phantom", {"train_cases": 0}, "data.phantom.train_cases"),
        ("data.cards", ["nowhere"], "a folder with cards"),
    ],
)
def test_what_cannot_be_meant_is_refused(key, value, message):
    assert message in "\n".join(lines(changed(key, value)))


def test_folds_beyond_the_count_are_refused():
    content = changed("data.protocol", "kfold")
    content["data"] |= {"folds": [0, 2, 3], "fold_count": 3}
    assert "found 3; expected 0 to 2, the folds of kfold" in only(content)
    content["data"]["folds"] = [0, 2]
    assert parse_config(content, where="x").data.folds == (0, 2)


def test_more_folds_than_cases_are_refused_before_any_work():
    content = changed("data.protocol", "kfold")
    content["data"]["fold_count"] = 15
    found = lines(content)
    assert len(found) == 13  # each task has 14 cases
    assert "14 case(s) of phantom_liver; expected at least 15 patients" in found[0]


def test_a_task_of_one_case_has_no_two_sides(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path))
    content = demo()
    content["data"] = {}
    content["upstream"]["tasks"] = ["spleen_ct_sample", "phantom_liver"]
    assert "1 case(s) of spleen_ct_sample; expected at least 2 patients" in only(content)


def test_real_tasks_are_not_generated():
    content = demo()
    content["upstream"]["tasks"].append("msd_spleen")
    assert "the real task msd_spleen; expected synthetic tasks only" in only(content)


@pytest.mark.parametrize("key", ["accept_partial", "task_protocols"])
def test_names_of_tasks_below_data_are_checked(key):
    content = changed(f"data.{key}", {"phantom_livr": "kfold"} if key == "task_protocols" else ["phantom_livr"])
    assert "did you mean 'phantom_liver'?" in only(content)
