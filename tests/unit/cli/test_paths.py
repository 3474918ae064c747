"""Paths that a command cannot write to: one line that names the path, status 2, and nothing half-written."""

import pytest

from segbench.__main__ import main
from tests.paths import ROOT


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("file/x.md", "--out: found file, which is no folder"),
        ("folder", "folder: found Is a directory"),
        (f"{'a' * 300}.md", "a.md: found File name too long"),
    ],
)
def test_an_output_of_the_wrong_kind_is_refused(out, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    assert main(["checklist", str(ROOT / "reports" / "real"), "--out", out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert "; name another path" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


def test_a_file_that_is_read_is_not_written_to(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a.nii.gz", "b.nii.gz"):
        (tmp_path / name).write_bytes(b"kept")
    (tmp_path / "link.nii.gz").symlink_to("b.nii.gz")
    options = ["--reference", "a.nii.gz", "--prediction", "b.nii.gz", "--labels", "1=organ"]
    for out in ("a.nii.gz", "link.nii.gz"):
        assert main(["score", *options, "--out", out]) == 2
        assert f"--out: found {out}, a file that is read" in capsys.readouterr().err
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"kept"}
