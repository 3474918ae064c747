"""Files appear whole or not at all."""

import os

import pytest

from segbench.core.files import atomic_path, unwritable, write_json, write_text


def fail_halfway(target):
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    target = tmp_path / "table.csv"
    write_text(target, "old\n")
    with pytest.raises(RuntimeError):
        fail_halfway(target)
    assert target.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [target]


def test_json_is_sorted_so_equal_content_gives_equal_bytes(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [2]})
    write_json(tmp_path / "b.json", {"a": [2], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_the_temporary_name_keeps_the_suffixes(tmp_path):
    with atomic_path(tmp_path / "label.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")


def test_a_name_of_any_length_that_the_file_system_takes_is_written(tmp_path):
    path = tmp_path / f"{'ü' * 120}.nii.gz"
    write_text(path, "whole")
    assert path.read_text() == "whole"


def test_what_cannot_be_written_is_said_in_words(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert unwritable(tmp_path / "new" / "newer" / "scores.csv") is None
    assert unwritable(tmp_path) is None
    assert unwritable(tmp_path / "file") is None
    assert unwritable(tmp_path / "file" / "below" / "scores.csv") == f"{tmp_path / 'file'}, which is no folder"
    os.mkfifo(tmp_path / "pipe")
    assert unwritable(tmp_path / "pipe") == f"{tmp_path / 'pipe'}, which is no regular file"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert unwritable(tmp_path / "new" / "scores.csv") == f"{tmp_path}, a folder in which you may not write"
