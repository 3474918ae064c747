"""Check a rendered report: rebuild it from its own score rows and record, and compare every byte."""

from __future__ import annotations

import tempfile
from pathlib import Path

from segbench.reporting.page import render


def differing_files(report: Path) -> list[str]:
    """Return what differs between a report and one rebuilt from its scores.csv and run.json, sorted by file.

    Empty when both hold the same files with the same bytes. Raises `InputError` when the two files are missing or do
    not describe a finished run.
    """
    with tempfile.TemporaryDirectory() as folder:
        rebuilt = Path(folder) / "report"
        render(report, rebuilt)
        committed, again = _files(report), _files(rebuilt)
        named = dict.fromkeys(committed.keys() - again.keys(), "is not rebuilt")
        named |= dict.fromkeys(again.keys() - committed.keys(), "is missing")
        named |= {
            name: "differs"
            for name in committed.keys() & again.keys()
            if not committed[name].is_file() or committed[name].read_bytes() != again[name].read_bytes()
        }
    return [f"{name} {what}" for name, what in sorted(named.items())]


def _files(folder: Path) -> dict[str, Path]:
    """Return name -> path of all that is no folder; a link to a folder is none."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix(): path for path in paths}
