"""Protocols that follow lists: our case ids, the leaks kept or fixed, what does not fit refused."""

import json
import pickle

import pytest

from segbench.core.cards import dataset_cards, task_from_card
from segbench.core.case import Case
from segbench.core.errors import InputError
from segbench.core.files import sha256_of
from segbench.data.splitting import protocols
from segbench.data.splitting.folds import make_splits
from segbench.experiment.config import Data


def cases(task: str, names: list[str]) -> list[Case]:
    return [
        Case(task, name, name.split("/")[0], ("i.nii.gz",), "l.nii.gz", "a", "b", (2, 2, 2), (1.0, 1.0, 1.0), "RAS")
        for name in names
    ]


KIDNEYS = {"kits19": cases("kits19", [f"case_{number:05d}" for number in range(4)])}


@pytest.fixture
def released(tmp_path, monkeypatch):
    """Return a writer of a file in the released form that passes for a released one."""

    def write(sides: dict):
        path = tmp_path / "lists.pkl"
        path.write_bytes(pickle.dumps([sides]))
        monkeypatch.setattr(protocols, "RELEASED_SHA256", {path.name: sha256_of(path)})
        return path

    return write


def split(cases, path, protocol: str, **data):
    namespaces = dict.fromkeys(cases, "somebody")
    return make_splits(cases, namespaces, Data(root="x", protocol=protocol, **data), lists=[path] if path else [])


def test_published_lists_keep_their_leak_and_corrected_ones_do_not(released):
    path = released({"train": ["kidney_0", "kidney_1"], "val": ["kidney_1", "kidney_2", "kidney_3"]})
    kept = split(KIDNEYS, path, "as_published")
    assert kept["folds"]["0"]["kits19"]["test"] == ["case_00001", "case_00002", "case_00003"]
    assert not kept["changes"]
    fixed = split(KIDNEYS, path, "corrected")
    assert fixed["folds"]["0"]["kits19"] == {
        "train": ["case_00000", "case_00001"],
        "test": ["case_00002", "case_00003"],
    }
    assert fixed["changes"] == ["kits19: kidney_1: on both sides, kept in training, removed from test"]


def test_the_order_of_the_cases_does_not_matter(released):
    path = released({"train": ["kidney_0", "kidney_1"], "val": ["kidney_2", "kidney_3"]})
    backwards = {"kits19": KIDNEYS["kits19"][::-1]}
    assert split(KIDNEYS, path, "corrected")["folds"] == split(backwards, path, "corrected")["folds"]


def test_another_file_than_the_released_one_is_refused(tmp_path):
    path = tmp_path / "splits_final_11_tasks.pkl"
    path.write_bytes(pickle.dumps([{"train": ["kidney_0"], "val": ["kidney_1"]}]))
    with pytest.raises(InputError, match="SHA-256"):
        split(KIDNEYS, path, "as_published")


def test_listed_cases_that_are_not_there_are_named(released):
    path = released({"train": ["kidney_0", "kidney_7"], "val": ["kidney_2"]})
    with pytest.raises(InputError, match="kidney_7"):
        split(KIDNEYS, path, "corrected")


def test_own_lists_and_other_protocols_for_single_tasks(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"kits19": {"train": ["case_00003"], "test": ["case_00000"]}}))
    both = KIDNEYS | {"other": cases("other", [f"x{number}" for number in range(10)])}
    made = split(both, path, "seeded", task_protocols={"kits19": "listed"})
    assert made["folds"]["0"]["kits19"] == {"train": ["case_00003"], "test": ["case_00000"]}
    assert len(made["folds"]["0"]["other"]["test"]) == 2
    assert made["task_protocols"] == {"kits19": "listed", "other": "seeded"}


def test_lists_have_one_fold(tmp_path):
    with pytest.raises(InputError, match=r"data\.folds"):
        split(KIDNEYS, tmp_path / "mine.json", "listed", folds=(1,))


SCANS = [*range(1, 11), *range(21, 41)]
BTCV = {"btcv": cases("btcv", [f"img{number:04d}" for number in SCANS])}


def test_btcv_21_9_needs_no_file():
    made = split(BTCV, None, "btcv_21_9")["folds"]["0"]["btcv"]
    assert (len(made["train"]), len(made["test"])) == (21, 9)
    assert made["test"] == [f"img{number:04d}" for number in range(32, 41)]


@pytest.mark.parametrize(("protocol", "train"), [("btcv_24_6", 24), ("btcv_18_12", 18)])
def test_the_other_btcv_protocols_want_lists_of_their_length(tmp_path, protocol, train):
    names = [case.case_id for case in BTCV["btcv"]]
    path = tmp_path / "btcv.json"
    with pytest.raises(InputError, match="no list"):
        split(BTCV, None, protocol)
    path.write_text(json.dumps({"btcv": {"train": names[:train], "test": names[train:]}}))
    assert len(split(BTCV, path, protocol)["folds"]["0"]["btcv"]["train"]) == train
    path.write_text(json.dumps({"btcv": {"train": names[:20], "test": names[20:]}}))
    with pytest.raises(InputError, match="20 training and 10 test"):
        split(BTCV, path, protocol)


def test_a_btcv_protocol_scores_its_own_organs():
    cards = dataset_cards()
    tasks = {name: task_from_card(name, cards[name]) for name in ("btcv", "btcv_8_organs")}
    protocols.check_organs([tasks["btcv"]], Data(root="x", protocol="btcv_21_9"))
    protocols.check_organs([tasks["btcv_8_organs"]], Data(root="x", protocol="btcv_18_12"))
    with pytest.raises(InputError, match="13 structures"):
        protocols.check_organs([tasks["btcv"]], Data(root="x", protocol="btcv_18_12"))
