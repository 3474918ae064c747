"""Links to folders are entered, circles of links are not, and a folder that cannot be opened is a problem."""

import os

import pytest

from segbench.core.errors import InputError
from segbench.core.folders import files_below, folders_below


@pytest.fixture
def folder(tmp_path):
    """A folder with a linked folder, three circles, hidden names and a link to nothing."""
    (tmp_path / "store" / "b").mkdir(parents=True)
    (tmp_path / "data" / "a" / "inner").mkdir(parents=True)
    for place in ("store/b", "data/a/inner", "data"):
        (tmp_path / place / "x.nii.gz").touch()
    for name in (".cache/x.nii.gz", "__MACOSX/x.nii.gz", "a/._x.nii.gz"):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).touch()
    (tmp_path / "data" / "b").symlink_to(tmp_path / "store" / "b")
    (tmp_path / "data" / "a" / "circle").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "again").symlink_to(".")
    (tmp_path / "store" / "b" / "back").symlink_to(tmp_path / "store" / "b")
    (tmp_path / "data" / "nothing").symlink_to("/nowhere")
    return tmp_path / "data"


def names(folder, paths):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_links_are_followed_except_in_a_circle(folder):
    assert names(folder, folders_below(folder)) == [".", "a", "a/inner", "b"]
    assert names(folder, files_below(folder)) == ["nothing", "x.nii.gz", "a/inner/x.nii.gz", "b/x.nii.gz"]


def test_nothing_lies_below_what_is_no_folder(folder):
    for path in (folder / "nowhere", folder / "x.nii.gz"):
        assert list(files_below(path)) == list(folders_below(path)) == []


def test_a_folder_that_cannot_be_opened_is_named(folder, monkeypatch):
    def listed(path):
        if path == folder / "a" / "inner":
            raise PermissionError(13, "Permission denied")
        return real(path)

    real = os.listdir
    monkeypatch.setattr(os, "listdir", listed)
    with pytest.raises(InputError, match=r"a/inner: found a folder that cannot be opened \(Permission denied\)"):
        list(files_below(folder))
