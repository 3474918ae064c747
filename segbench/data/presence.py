"""Tell whether a data set is on this machine: present, partial with counts, or absent."""

from __future__ import annotations

from pathlib import Path

from segbench.core.case import CaseFiles
from segbench.core.errors import InputError
from segbench.data.ingest import discover


def presence(name: str, card: dict, root: Path) -> str:
    """Return 'present (n cases)', 'partial (n of m cases)' or 'absent' for the labelled cases below `root`.

    A case counts when all its files exist; m is the count that the card expects, or the count that the data set's own
    list names when the card expects none. Without the card's folder the data set is absent.
    """
    if not (root / card["folder"]).is_dir():
        return "absent"
    found, expected = count_cases(name, card, root)
    if expected == 0:
        return "partial (no readable list of cases)"
    plural = "" if expected == 1 else "s"
    return f"partial ({found} of {expected} case{plural})" if found < expected else f"present ({found} case{plural})"


def is_present(name: str, card: dict, root: Path) -> bool:
    """Return whether every case that is expected lies below `root`."""
    found, expected = count_cases(name, card, root)
    return 0 < expected <= found


def count_cases(name: str, card: dict, root: Path) -> tuple[int, int]:
    """Return (cases whose files all exist, cases expected); both are 0 where neither card nor data set says."""
    expected = expected_count(card)
    try:
        cases = discover(name, card, root)
    except InputError:
        return 0, expected
    return sum(_complete(files) for files in cases), expected or len(cases)


def expected_count(card: dict) -> int:
    """Return the number of labelled cases that a card expects, 0 when it does not say."""
    counts = card.get("expected_cases", {})
    return counts["total"] if "total" in counts else sum(counts.values())


def _complete(files: CaseFiles) -> bool:
    paths = [*files.image_paths, files.label_path]
    return all(path is not None and path.is_file() for path in paths)
