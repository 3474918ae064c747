"""The splits of a run, parsed once: which cases of a task are trained on and tested in a fold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.core.errors import InputError, input_error
from segbench.core.provenance import content_hash

REMAKE = "delete it and run again: the split is made anew from the config"


@dataclass(frozen=True)
class Sides:
    """Case ids of one task in one fold, in the order in which training draws from them."""

    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Splits:
    """Sides per fold and task, the protocol of each task, and in words how lists were repaired.

    `digest` is the SHA-256 of the content as it is written, so that an edit by hand is seen.
    """

    protocol: str
    task_protocols: Mapping[str, str]
    folds: Mapping[int, Mapping[str, Sides]]
    changes: tuple[str, ...]
    digest: str

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Splits:
        """Return the splits that `data.splitting` made, or that a file holds.

        Raises:
            KeyError, TypeError, ValueError: the content has another form.
        """
        folds = {
            int(fold): {task: Sides(_names(sides["train"]), _names(sides["test"])) for task, sides in tasks.items()}
            for fold, tasks in content["folds"].items()
        }
        return cls(
            content["protocol"], dict(content["task_protocols"]), folds, tuple(content["changes"]), content["sha256"]
        )

    def of(self, fold: int, task: str) -> Sides:
        """Return both sides of a task in a fold; raises `InputError` when the file has no such fold or task."""
        try:
            return self.folds[fold][task]
        except KeyError:
            raise input_error(
                "splits.json", found=f"no fold {fold} of {task}", expected="every fold and task of the run", fix=REMAKE
            ) from None

    def cases(self) -> set[tuple[str, str]]:
        """Return (task, case) of every case on either side of any fold."""
        return {
            (task, case)
            for tasks in self.folds.values()
            for task, sides in tasks.items()
            for case in sides.train + sides.test
        }


def _names(cases: Any) -> tuple[str, ...]:
    if not isinstance(cases, list | tuple) or not all(isinstance(case, str) for case in cases):
        raise TypeError("a side is a list of names")
    return tuple(cases)


def read_splits(path: Path) -> Splits:
    """Read a splits file.

    Raises:
        InputError: the file is absent, is no splits file, or was edited after it was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = Splits.from_dict(content)
    except OSError as error:
        raise input_error(path, found=error.strerror, expected="the splits of the run", fix=REMAKE) from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"another form ({type(error).__name__}: {error})") from error
    if content_hash({key: value for key, value in content.items() if key != "sha256"}) != found.digest:
        raise _damaged(path, "content that does not match its own sha256")
    return found


def no_such_case(manifest: Path, case: str) -> InputError:
    """Return the problem of a case of the split that is not in its task's manifest."""
    fix = "delete splits.json and the manifest, and run again"
    return input_error(manifest, found=f"no case {case}", expected="every case of the split", fix=fix)


def _damaged(path: Path, found: str) -> InputError:
    return input_error(path, found=found, expected="the splits as segbench wrote them", fix=REMAKE)
