"""Split files of every form give the same members; files of one name are distinguished."""

import json
import pickle

import pytest

from segbench.core.case import write_manifest
from segbench.core.errors import InputError
from segbench.core.files import write_json
from segbench.core.paths import RunPaths
from segbench.data.audit.inputs import members_of_file, members_of_run
from segbench.data.audit.leaks import audit
from tests.unit import written_run

FOLD = {"train": ["a", "b"], "val": ["c"]}
OTHER = {"train": ["a", "c"], "val": ["b"]}


def listed(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return members_of_file(path)


def sides(members):
    return {(item.fold, item.task, item.case_id): item.side for item in members}


@pytest.mark.parametrize(
    "content",
    [
        {"fold_0": FOLD, "fold_1": OTHER},
        {"0": FOLD, "1": OTHER},
        {"folds": [FOLD, OTHER]},
        {"folds": {"0": FOLD, "1": OTHER}},
        {"folds": {"0": {"liver": FOLD}, "1": {"liver": OTHER}}},
        {"liver": [FOLD, OTHER]},
        [{"training": FOLD["train"], "validation": FOLD["val"]}, {"Train": OTHER["train"], "Valid": OTHER["val"]}],
    ],
)
def test_folds_are_read_in_every_form(content, tmp_path):
    assert sides(listed(tmp_path / "liver.json", content)) == sides(listed(tmp_path / "liver.json", [FOLD, OTHER]))


@pytest.mark.parametrize("name", ["liver.pkl", "liver.PKL", "liver.pickle"])
def test_pickles_are_known_by_their_suffix(name, tmp_path):
    (tmp_path / name).write_bytes(pickle.dumps([FOLD]))
    assert sides(members_of_file(tmp_path / name)) == sides(listed(tmp_path / "liver.json", [FOLD]))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("s.csv", b"case,split\na,train\n", "write the lists as JSON"),
        ("s.yaml", b"- train: [a]\n", "write the lists as JSON"),
        ("s.json", json.dumps([FOLD]).encode("utf-16"), "another encoding than UTF-8"),
        ("s.json", b'{"train": ["a"], "val": ["b"], "train": ["c"]}', "the key 'train' twice"),
        ("s.json", b'{"train": ["a"], "val": ["b"], "seed": 3}', "the key 'seed'"),
    ],
)
def test_other_files_are_refused_on_one_line(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        members_of_file(tmp_path / name)
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_two_files_of_one_name_are_two_data_sets(tmp_path):
    first, second = tmp_path / "A" / "splits_final.json", tmp_path / "B" / "splits_final.json"
    members = listed(first, [{"train": ["a"], "val": ["b"]}]) + listed(second, [{"train": ["b"], "val": ["a", "b"]}])
    assert len({member.key for member in members}) == 4
    (finding,) = audit(members)
    assert (finding.train_task, finding.train_cases, finding.test_task) == (str(second), "b", str(second))
    (alone,) = audit(members_of_file(second))
    assert alone.train_task == "splits_final"


def test_a_case_in_val_and_in_test_is_a_finding(tmp_path):
    members = listed(tmp_path / "s.json", {"train": ["a"], "val": ["b", "c"], "test": ["b"]})
    (finding,) = audit(members)
    assert (finding.name, finding.kind) == ("case:s/b", "same case")
    assert "both count as test" in finding.evidence


@pytest.mark.parametrize("other", ["imagesTr/liver_12_0000.nii.gz", "Liver_12", "liver_012"])
def test_a_released_name_in_two_spellings_is_a_finding(other, tmp_path):
    (finding,) = audit(listed(tmp_path / "s.json", {"train": ["liver_12"], "val": [other]}))
    assert (finding.kind, finding.test_cases, finding.evidence) == ("same case", other, "two spellings of one case")


@pytest.mark.parametrize("names", [("sub-01_ses-1", "sub-01_ses-2"), ("sub-01/ses-1/t1", "sub-01/ses-2/t1")])
def test_a_subject_of_bids_on_both_sides_is_a_finding(names, tmp_path):
    (finding,) = audit(listed(tmp_path / "s.json", {"train": [names[0]], "val": [names[1], "sub-012_ses-1"]}))
    assert (finding.kind, finding.evidence) == ("same patient", "patient sub-01")


@pytest.mark.parametrize("damage", [lambda text: "{}", lambda text: text[:20], lambda text: text.replace('"c"', '"e"')])
def test_a_damaged_split_of_a_run_is_a_problem(damage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = written_run.config()
    paths = RunPaths(config.run)
    write_json(paths.splits, written_run.splits_content({"0": {task.name: FOLD for task in config.tasks}}))
    for task in config.tasks:
        write_manifest(paths.manifest(task.name), [])
    write_json(paths.config, config.model_dump(mode="json"))
    paths.splits.write_text(damage(paths.splits.read_text()))
    with pytest.raises(InputError, match=r"splits\.json: found"):
        members_of_run(config)
