"""Splits, indices of preprocessed cases and records: read back as written; edited ones are refused and kept."""

import json

import pytest

from segbench.core.case import Case
from segbench.core.errors import InputError
from segbench.core.files import write_json
from segbench.data.splitting.folds import make_splits
from segbench.experiment.config import Data
from segbench.experiment.identity import Identity
from segbench.experiment.preprocessed_index import PreprocessedIndex, read_index
from segbench.experiment.result_record import ResultRecord, forget_result, read_result
from segbench.experiment.splits import Sides, read_splits
from tests.unit.written_run import splits_content


def case(name):
    return Case("t", name, name, ("i",), "l", "h", "h", (1, 1, 1), (1.0, 1.0, 1.0), "RAS")


def splits(folder):
    path = folder / "splits.json"
    write_json(path, splits_content({"0": {"liver": {"train": ["b", "a"], "test": ["c"]}}}))
    return path


def index(folder):
    path = folder / "liver.json"
    (folder / "store/liver-a-0123").mkdir(parents=True)
    (folder / "store/liver-a-0123/meta.json").write_text("{}")
    folders = {"a": folder / "store/liver-a-0123", "b": folder / "store/liver-b-4567"}
    PreprocessedIndex("liver", "ct", folders).write(path)
    return path


def record(folder):
    (folder / "weights.pt").write_text("weights")
    ResultRecord.of(folder, Identity({"model": "a"}), {"status": "ok"}, ["weights.pt"]).write(folder)
    return folder / "record.json"


def read_record(path):
    return read_result(path.parent)


FILES = {"splits": (splits, read_splits), "index": (index, read_index), "record": (record, read_record)}
EDITS = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "no JSON": lambda text: "cases: a, b",
    "a list": lambda text: "[1, 2]",
    "a number": lambda text: "7",
    "no key": lambda text: "{}",
    "an empty object per key": lambda text: json.dumps({key: {} for key in json.loads(text)}),
    "a list per key": lambda text: json.dumps({key: [1] for key in json.loads(text)}),
    "a null per key": lambda text: json.dumps(dict.fromkeys(json.loads(text))),
    "no text": lambda text: "\\udcff",
}
BY_HAND = {
    "splits": ('"a"', '"z"'),
    "index": ("liver-b-4567", "liver-b-9999"),
    "record": ('"model": "a"', '"model": "b"'),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("edit", EDITS)
def test_a_damaged_file_is_named_with_the_step_that_puts_it_right(tmp_path, kind, edit):
    write, read = FILES[kind]
    path = write(tmp_path)
    text = EDITS[edit](path.read_text())
    path.write_text(text) if edit != "no text" else path.write_bytes(b"\xff\xfe{")
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        read(path)
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    assert "delete it" in problem.fix
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_was_edited_by_hand_is_refused(tmp_path, kind):
    write, read = FILES[kind]
    path = write(tmp_path)
    old, new = BY_HAND[kind]
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match="match"):
        read(path)


@pytest.mark.parametrize("kind", ["splits", "index"])
def test_an_absent_file_is_named(tmp_path, kind):
    with pytest.raises(InputError, match="No such file"):
        FILES[kind][1](tmp_path / "none.json")


def test_splits_are_read_as_they_were_made(tmp_path):
    found = read_splits(splits(tmp_path))
    assert found.of(0, "liver") == Sides(("b", "a"), ("c",))
    assert found.cases() == {("liver", "a"), ("liver", "b"), ("liver", "c")}
    for fold, task in ((1, "liver"), (0, "spleen")):
        with pytest.raises(InputError, match=rf"splits\.json: found no fold {fold} of {task}"):
            found.of(fold, task)


def test_many_folds_of_the_splitter_match_their_own_digest(tmp_path):
    data = Data(root="x", protocol="kfold", fold_count=12, folds=tuple(range(12)))
    content = make_splits({"t": [case(f"c{number:02}") for number in range(24)]}, {"t": "n"}, data)
    write_json(tmp_path / "splits.json", content)
    found = read_splits(tmp_path / "splits.json")
    assert sorted(found.folds) == list(range(12))
    assert {len(found.of(fold, "t").test) for fold in range(12)} == {2}


def test_an_index_gives_folders_and_addresses(tmp_path):
    found = read_index(index(tmp_path))
    assert (found.task, found.recipe) == ("liver", "ct")
    assert found.folder("a") == tmp_path / "store/liver-a-0123"
    assert (found.address("a"), found.address("b")) == ("0123", "4567")
    with pytest.raises(InputError, match="liver-b-4567: found no preprocessed case; expected case b of liver"):
        found.folder("b")
    for ask in (found.folder, found.address):
        with pytest.raises(InputError, match="found no case c"):
            ask("c")


def test_a_record_names_its_files(tmp_path):
    found = read_result(record(tmp_path).parent)
    assert found.outcome == {"status": "ok"}
    assert found.check_file(tmp_path, "weights.pt") == tmp_path / "weights.pt"
    (tmp_path / "weights.pt").write_text("WEIGHTS")  # as many bytes
    with pytest.raises(InputError, match=r"weights\.pt: found 7 bytes of other content; expected the 7 bytes"):
        found.check_file(tmp_path, "weights.pt")
    (tmp_path / "weights.pt").unlink()
    with pytest.raises(InputError, match=r"weights\.pt: found no file"):
        found.check_file(tmp_path, "weights.pt")
    forget_result(tmp_path)
    assert read_result(tmp_path) is None
    forget_result(tmp_path)
