"""Which files of the checkout decide what a rendered report looks like: code, templates, styles and data tables."""

from __future__ import annotations

from pathlib import Path

from segbench.core.provenance import ROOT

RENDERING_PARTS = (
    "segbench/reporting",
    "segbench/stats",
    "segbench/metrics",
    "segbench/core/errors.py",
    "segbench/core/files.py",
    "segbench/core/run_record.py",
    "segbench/core/vocabulary.py",
    "data/published",
)
"""Files and folders, relative to the root of the checkout, whose content a report is rendered from."""
RENDERING_SUFFIXES = (".py", ".j2", ".css", ".csv")


def rendering_files(root: Path = ROOT) -> tuple[Path, ...]:
    """Return every file that a report is rendered from beside scores.csv and run.json, sorted.

    Their bytes belong into the fingerprint of a rendering: a changed template, style sheet or table of published values
    gives another page as surely as changed code.

    Raises:
        FileNotFoundError: a part of `RENDERING_PARTS` is not there, so that the list is out of date.
    """
    found: set[Path] = set()
    for part in RENDERING_PARTS:
        path = root / part
        if not path.exists():
            raise FileNotFoundError(path)
        found |= {path} if path.is_file() else {p for p in path.rglob("*") if p.suffix in RENDERING_SUFFIXES}
    return tuple(sorted(found))
