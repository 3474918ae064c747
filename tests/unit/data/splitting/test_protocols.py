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


def listed(folder, *contents):
    """Split two tasks by lists in as many files as there are contents, each JSON or the text of a file."""
    paths = []
    for number, content in enumerate(contents):
        paths.append(folder / f"{number}.json")
        paths[-1].write_text(content if isinstance(content, str) else json.dumps(content))
    namespaces = dict.fromkeys(KIDNEYS, "somebody")
    return make_splits(KIDNEYS, namespaces, Data(root="x", protocol="listed"), lists=paths)


SIDES = {"train": ["case_00000"], "test": ["case_00001"]}


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    text = '{"kits19": {"train": ["case_00000"], "test": ["case_00001"], "train": ["case_00002"]}}'
    with pytest.raises(InputError, match="the key 'train' twice in one mapping"):
        listed(tmp_path, text)
    with pytest.raises(InputError, match="the key 'kits19' twice"):
        listed(tmp_path, f'{{"kits19": {json.dumps(SIDES)}, "kits19": {json.dumps(SIDES)}}}')


def test_two_files_with_lists_of_one_task_are_refused(tmp_path):
    with pytest.raises(InputError, match="lists of kits19, as in a file before it"):
        listed(tmp_path, {"kits19": SIDES}, {"kits19": {"train": ["case_00001"], "test": ["case_00000"]}})
    made = listed(tmp_path, {"kits19": SIDES}, {"other": SIDES})
    assert made["folds"]["0"]["kits19"] == SIDES


def test_released_lists_of_a_task_do_not_clash_with_own_ones(released, tmp_path):
    path = released({"train": ["kidney_2"], "val": ["kidney_3"]})
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"kits19": SIDES}))
    for files in ([path, mine], [mine, path]):
        made = make_splits(KIDNEYS, {"kits19": "k"}, Data(root="x", protocol="listed"), lists=files)
        assert made["folds"]["0"]["kits19"] == SIDES
        made = make_splits(KIDNEYS, {"kits19": "k"}, Data(root="x", protocol="corrected"), lists=files)
        assert made["folds"]["0"]["kits19"]["test"] == ["case_00003"]


@pytest.mark.parametrize(("train", "test"), [("training", "validation"), ("Train", "Valid"), ("train", "testing")])
def test_other_words_for_the_sides_are_read(train, test, tmp_path):
    made = listed(tmp_path, {"kits19": {train: SIDES["train"], test: SIDES["test"]}})
    assert made["folds"]["0"]["kits19"] == SIDES


def test_val_beside_test_is_said(tmp_path):
    both = {"train": ["case_00000"], "val": ["case_00001", "case_00002"], "test": ["case_00002"]}
    made = listed(tmp_path, {"kits19": both, "other": both})
    assert made["folds"]["0"]["kits19"]["test"] == ["case_00001", "case_00002"]
    assert made["changes"] == ["kits19: 0.json lists val and test, both count as test (1 case(s) in both)"]
    assert not listed(tmp_path, {"kits19": SIDES})["changes"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"kits19": SIDES | {"seed": ["3"]}}, "the key 'seed'"),
        ({"kits19": SIDES | {"training": []}}, "two keys for 'train'"),
        ({"kits19": {"train": [{"image": "a.nii.gz"}], "val": []}}, "no list of names under 'train'"),
        ({"fold_0": SIDES, "fold_1": SIDES}, "lists without the name of a task"),
        (SIDES, "lists without the name of a task"),
        ("case,split\n", "content that cannot be read as JSON"),
    ],
)
def test_other_lists_are_refused_in_plain_words(content, found, tmp_path):
    with pytest.raises(InputError) as error:
        listed(tmp_path, content)
    assert found in str(error.value)
    assert "get the released file" not in str(error.value)


def test_another_encoding_is_refused_on_one_line(tmp_path):
    path = tmp_path / "mine.json"
    path.write_bytes(json.dumps({"kits19": SIDES}).encode("utf-16"))
    with pytest.raises(InputError, match=r"another encoding than UTF-8.*write the lists as JSON in UTF-8"):
        split(KIDNEYS, path, "listed")


def test_folds_by_number():
    assert protocols.numbered_folds("s.json", {"fold_0": SIDES, "Fold 1": SIDES}) == {"0": SIDES, "1": SIDES}
    assert protocols.numbered_folds("s.json", {"0": SIDES}) == {"0": SIDES}
    assert protocols.numbered_folds("s.json", {"liver": SIDES, "0": SIDES}) is None
    with pytest.raises(InputError, match="each fold once"):
        protocols.numbered_folds("s.json", {"fold_0": SIDES, "0": SIDES})
