"""Raw files are compared by content: touched and stray ones cost nothing, changed and repaired ones are seen."""

import json
import os

import pytest

from segbench.core.case import Case
from segbench.core.files import sha256_of
from segbench.experiment import source_files
from segbench.experiment.source_files import generation, write_record


@pytest.fixture
def data(tmp_path):
    """A data set with an image, a label map and a table, ingested once; and the record."""
    folder, record = tmp_path / "set", tmp_path / "set.sources.json"
    for name in ("imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "cases.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    write_record(folder, record, [])
    return folder, record


def test_before_the_first_ingest_it_is_the_first(tmp_path):
    assert generation(tmp_path, tmp_path / "none.json") == 1


def test_unchanged_files_keep_the_number(data):
    assert [generation(*data) for _ in range(2)] == [1, 1]


def test_a_touched_file_keeps_the_number_and_is_read_once(data, monkeypatch):
    folder, record = data
    os.utime(folder / "imagesTr/a.nii.gz", ns=(5, 5))
    read = []
    monkeypatch.setattr(source_files, "sha256_of", lambda path: read.append(path) or sha256_of(path))
    assert [generation(folder, record) for _ in range(3)] == [1, 1, 1]
    assert read == [folder / "imagesTr/a.nii.gz"]


@pytest.mark.parametrize("name", ["imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "cases.csv"])
@pytest.mark.parametrize("text", ["x", "longer than what was there before"])
def test_a_changed_file_is_the_next_generation(data, name, text):
    folder, record = data
    size = (folder / name).stat().st_size
    (folder / name).write_text(text.ljust(size, "x"))
    assert [generation(folder, record) for _ in range(2)] == [2, 2]


def test_a_repaired_file_is_another_generation_still(data):
    folder, record = data
    path = folder / "imagesTr/a.nii.gz"
    good = path.read_text()
    path.write_text("bad")
    write_record(folder, record, [])
    assert generation(folder, record) == 2
    path.write_text(good)
    assert generation(folder, record) == 3
    write_record(folder, record, [])
    assert generation(folder, record) == 3


def test_a_file_that_is_repaired_before_it_was_ingested_is_the_former_one(data):
    folder, record = data
    path = folder / "cases.csv"
    good = path.read_text()
    path.write_text("bad")
    assert generation(folder, record) == 2
    path.write_text(good)
    assert generation(folder, record) == 1


@pytest.mark.parametrize("name", [".DS_Store", "._a.nii.gz", "notes.docx", ".git/a.json", "imagesTr/a.nii.gz~"])
def test_stray_and_hidden_files_are_no_part(data, name):
    folder, record = data
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("stray")
    assert generation(folder, record) == 1


@pytest.mark.parametrize("name", ["imagesTr/b.nii.gz", "imagesTr/B.NII.GZ", "new/list.json"])
def test_a_new_data_file_is_the_next_generation(data, name):
    folder, record = data
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("new")
    assert generation(folder, record) == 2


def test_a_removed_and_a_renamed_file_are_the_next_generation(data):
    folder, record = data
    (folder / "cases.csv").rename(folder / "other.csv")
    assert generation(folder, record) == 2
    (folder / "other.csv").unlink()
    assert generation(folder, record) == 2


def test_links_to_folders_are_followed_and_circles_are_not(data, tmp_path):
    folder, record = data
    (folder / "one").symlink_to(".")
    (folder / "two").symlink_to(folder)
    assert generation(folder, record) == 1
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "b.nii.gz").touch()
    (folder / "linked").symlink_to(tmp_path / "store")
    assert generation(folder, record) == 2


def test_a_folder_that_cannot_be_opened_is_the_next_generation(data, monkeypatch):
    def refused(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refused)
    assert generation(*data) == 2


def test_an_absent_folder_is_the_next_generation(data):
    folder, record = data
    folder.rename(folder.with_name("moved"))
    assert generation(folder, record) == 2
    assert generation(folder.with_name("moved"), record) == 1


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"generation": 3}', '{"generation": 3, "files": {"cases.csv": 1}}']
)
def test_a_damaged_record_is_none(data, content):
    folder, record = data
    record.write_text(content)
    assert generation(folder, record) == 1


def test_the_hashes_of_the_manifest_are_used_where_they_are_of_one_file(data, monkeypatch):
    folder, record = data
    image, label = (str(folder / name) for name in ("imagesTr/a.nii.gz", "labelsTr/a.nii.gz"))
    case = Case("t", "a", "a", (image,), label, "image hash", "label hash", (1, 1, 1), (1.0, 1.0, 1.0), "RAS")
    write_record(folder, record, [case])
    files = json.loads(record.read_text())["files"]
    assert {name: facts[2] for name, facts in files.items()} == {
        "imagesTr/a.nii.gz": "image hash",
        "labelsTr/a.nii.gz": "label hash",
        "cases.csv": sha256_of(folder / "cases.csv"),
    }
