"""What the workflow asks of each job, as small files that are the jobs' inputs.

A request holds the digest of the job's settings and the number of the attempt. It is written when either changes, and
only then, so that a changed setting, a failed outcome or a deleted result asks for its job again, with Snakemake's
metadata or without, and nothing else does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segbench.core.files import write_small_json


def ask(path: Path, settings: str, *, outcome: Path | None = None, products: Iterable[Path] = ()) -> Path:
    """Write a request unless it stands as it should, and return its path.

    Args:
        path: the request.
        settings: digest of what the job depends on beside its other input files.
        outcome: the job's declared output; a failed or damaged one asks for the next attempt.
        products: what the job leaves beside its outcome unless it failed; when one is absent although the outcome is
            there, the next attempt is asked for. Without an outcome they are what the job has made before.

    Returns:
        The path, for the rule's input.
    """
    former = read(path)
    content = {"settings": settings, "attempt": _attempt(_number(former), outcome, products)}
    if former != content:
        write_small_json(path, content)
    return path


def attempt_of(path: Path) -> int:
    """Return the number of the attempt that a request asks for; 1 without a request."""
    return _number(read(path))


def _number(request: dict[str, Any]) -> int:
    attempt = request.get("attempt", 1)
    return attempt if isinstance(attempt, int) else 1


def _attempt(asked: int, outcome: Path | None, products: Iterable[Path]) -> int:
    gone = any(not product.exists() for product in products)
    if outcome is None:
        return asked + gone
    if not outcome.exists():  # not run yet, or running: Snakemake removes it when a job starts
        return asked
    record = read(outcome)
    made, status = record.get("attempt"), record.get("status")
    if not isinstance(made, int) or status is None:
        return asked + 1
    return made + 1 if gone or status == "failed" else max(made, asked)


def read(path: Path) -> dict[str, Any]:
    """Return a JSON object, empty when there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
