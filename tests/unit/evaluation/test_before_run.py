"""`check` finds before a run what the run would meet: splits of the cases on disk, and masks that are given."""

import copy
import json

import nibabel as nib
import numpy as np
import pytest

from segbench.cli import check
from segbench.core.cards import dataset_cards
from segbench.evaluation.before_run import find_problems
from segbench.experiment.config import parse_config
from tests.unit.data.miniature import SHAPE, SPACING, write_tree
from tests.workflow.test_paper import DOWNSTREAM, PAPER, UPSTREAM, write_world

TASK = "msd_spleen"
NETWORK = {
    "patch_size_zyx": [16, 16, 16],
    "base_features": 4,
    "max_features": 8,
    "pool_kernels_zyx": [[2, 2, 2], [2, 2, 2]],
    "conv_kernels_zyx": [[3, 3, 3], [3, 3, 3], [3, 3, 3]],
}
MASKS = {"name": "mine", "title": "Mine", "predictions": "masks"}


@pytest.fixture
def content(tmp_path, monkeypatch):
    """A config over five cases of one task, the first two tested, with a complete folder of masks."""
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "data", TASK, dataset_cards()[TASK])
    lists = {TASK: {"train": ["spleen_003", "spleen_004", "spleen_005"], "test": ["spleen_001", "spleen_002"]}}
    (tmp_path / "data" / "lists.json").write_text(json.dumps(lists))
    (tmp_path / "masks").mkdir()
    for case in lists[TASK]["test"]:
        write_mask(tmp_path / "masks" / f"{case}.nii.gz")
    return {
        "run": "small",
        "data": {"root": "data", "protocol": "listed", "split_files": ["lists.json"], "accept_partial": [TASK]},
        "network": NETWORK,
        "upstream": {"tasks": [TASK], "models": ["multi_head"], "external": [MASKS]},
    }


def write_mask(path, *, value: int = 1, shape=SHAPE):
    data = np.zeros(shape, dtype=np.uint8)
    data[2:4, 4:8, 2:5] = value
    nib.save(nib.Nifti1Image(data, np.diag([*SPACING, 1.0])), path)


def problems(content) -> str:
    found, _ = find_problems(parse_config(content, where="x"))
    return "\n".join(problem.line() for problem in found)


def test_a_task_with_one_training_patient_has_none_to_hold_out(content, tmp_path):
    content["training"] = {"validation_fraction": 0.1}
    assert problems(content) == ""
    lists = {TASK: {"train": ["spleen_003"], "test": ["spleen_001", "spleen_002"]}}
    (tmp_path / "data" / "lists.json").write_text(json.dumps(lists))
    assert f"training patients of {TASK}, fold 0: found 1; expected at least 2" in problems(content)


@pytest.mark.parametrize(("fraction", "count", "most"), [(0.0, 3, 3), (0.0, 4, 3), (0.5, 2, 2), (0.5, 3, 2)])
def test_more_support_cases_than_training_cases_are_found(content, fraction, count, most):
    content["training"] = {"validation_fraction": fraction}
    content["upstream"]["external"] = [{"name": "mine", "title": "Mine", "predict": "true", "support_cases": count}]
    expected = f"support_cases: found {count}, and {most} training cases of {TASK} with every class annotated"
    assert (expected in problems(content)) is (count > most)


def test_support_cases_of_every_entry_are_looked_at(content):
    content["upstream"]["external"] = [
        {"name": name, "title": name, "predict": "true", "support_cases": count}
        for name, count in (("first", 8), ("second", 9))
    ]
    found = problems(content)
    assert "support_cases: found 8" in found
    assert "support_cases: found 9" in found


def test_a_run_that_can_start_has_no_problem(content, tmp_path, capsys):
    assert find_problems(parse_config(content, where="x")) == ([], [])
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert check.run(check_arguments(tmp_path / "config.json")) == 0
    assert "accepted" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()


def check_arguments(path):
    import argparse

    return argparse.Namespace(config=path, data=None)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": ["spleen_003"], "test": []}, f"split of {TASK}, fold 0: found no test case"),
        ({"train": [], "test": ["spleen_001"]}, "found no training case"),
        ({"train": ["spleen_003"], "test": ["spleen_009"]}, "1 listed cases that are not there: spleen_009"),
        (None, "no list"),
    ],
)
def test_a_split_without_a_side_is_found(content, tmp_path, lists, message):
    content["upstream"].pop("external")
    (tmp_path / "data" / "lists.json").write_text(json.dumps({TASK: lists} if lists else {}))
    assert message in problems(content)


def test_a_tuned_entry_with_one_training_patient_is_found(content, tmp_path):
    content["upstream"] = {"tasks": [TASK], "models": ["multi_head", {"name": "multi_head", "recipe": "tuned"}]}
    content["training"] = {"tuning": {"learning_rates": [0.1, 0.01], "iterations_per_task": 5}}
    assert problems(content) == ""
    lists = {TASK: {"train": ["spleen_003"], "test": ["spleen_001", "spleen_002"]}}
    (tmp_path / "data" / "lists.json").write_text(json.dumps(lists))
    assert problems(content).startswith(f"training patients of {TASK}, fold 0: found 1; expected at least 2, one of")
    content["upstream"]["models"].pop()
    assert problems(content) == ""


def test_more_folds_than_patients_are_found(content):
    content["data"] = {"root": "data", "protocol": "kfold", "fold_count": 6, "folds": [5], "accept_partial": [TASK]}
    content["upstream"].pop("external")
    assert f"split of {TASK}" in problems(content)


def test_masks_as_the_run_will_meet_them(content, tmp_path):
    masks = tmp_path / "masks"
    write_mask(masks / "spleen_003.nii.gz")
    write_mask(masks / "spleen_001.nii.gz", shape=(20, 18, 11))
    write_mask(masks / "spleen_002.nii.gz", value=7)
    found = problems(content)
    for part in ("a mask of no test case", "spleen_001.nii.gz", "spleen_002.nii.gz"):
        assert part in found


def test_an_absent_folder_of_masks_is_a_problem_and_a_missing_mask_a_notice(content, tmp_path):
    (tmp_path / "masks" / "spleen_002.nii.gz").unlink()
    found, (notice,) = find_problems(parse_config(content, where="x"))
    assert not found
    assert "no mask of 1 of 2 test cases, such as spleen_002" in notice
    content["upstream"]["external"] = [MASKS | {"predictions": "nowhere"}]
    assert "no such folder" in problems(content)


def test_the_paper_config_with_miniature_data_can_start(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path))
    content = copy.deepcopy(PAPER)
    content["data"] |= {
        "accept_split_files": write_world(tmp_path),
        "accept_partial": [task for task in UPSTREAM + DOWNSTREAM if task != "btcv"],
    }
    assert find_problems(parse_config(content, where="paper.yaml")) == ([], [])
    (tmp_path / PAPER["data"]["split_files"][1]).unlink()
    found, _ = find_problems(parse_config(content, where="paper.yaml"))
    assert "splits_final_VS.pkl" in found[0].line()
