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
