"""Tell whether a data set is on this machine: present, partial with counts, or absent."""

from __future__ import annotations

from pathlib import Path

from segbench.core.case import CaseFiles
from segbench.core.errors import InputFaults
from segbench.data.ingest import discover


def presence(name: str, card: dict, root: Path | None) -> str:
    """Return 'present (n cases)', 'partial (n of m cases)' or 'absent' for the labelled cases below `root`.

    A case counts when all its files exist; m is the count that the card expects, or the count that the data set's own
    list names when the card expects none. Without a root, or without the card's folder, the data set is absent.
    """
    if root is None or not (root / card["folder"]).is_dir():
        return "absent"
    expected = expected_count(card)
    try:
        cases = discover(name, card, root)
    except InputFaults:
        return f"partial (0 of {expected} cases)" if expected else "partial (no readable list of cases)"
    found = sum(_complete(files) for files in cases)
    expected = expected or len(cases)
    return f"partial ({found} of {expected} cases)" if found < expected else f"present ({found} cases)"


def expected_count(card: dict) -> int:
    """Return the number of labelled cases that a card expects, 0 when it does not say."""
    counts = card.get("expected_cases", {})
    return counts["total"] if "total" in counts else sum(counts.values())


def _complete(files: CaseFiles) -> bool:
    paths = [*files.image_paths, files.label_path]
    return all(path is not None and path.is_file() for path in paths)
