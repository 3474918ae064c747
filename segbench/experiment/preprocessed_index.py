"""Which folder of the store holds each preprocessed case of a task; a folder's name ends in its content address."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segbench.core.errors import input_error
from segbench.core.files import write_json
from segbench.core.provenance import content_hash

META = "meta.json"
"""Of a case in the store; it is there when the whole case is."""
REMAKE = "delete it and run again: cases that are in the store are not preprocessed again"


@dataclass(frozen=True)
class PreprocessedIndex:
    """Case id -> folder in the store, of all cases of a task with one preprocessing recipe.

    intensities: what the recipe took from the training cases, where it takes anything. other_folds: indices of folds
    whose training cases gave other intensities, so that their preprocessed cases are other ones.
    """

    task: str
    recipe: str
    folders: Mapping[str, Path]
    intensities: Mapping[str, Any] | None = None
    other_folds: Mapping[int, PreprocessedIndex] = field(default_factory=dict)

    def of(self, fold: int) -> PreprocessedIndex:
        """Return the index of a fold."""
        return self.other_folds.get(fold, self)

    def folder(self, case: str) -> Path:
        """Return the folder of a case; raises `InputError` when the index does not name it, or it is not there."""
        path = self._place(case)
        if not (path / META).exists():
            fix = "run the workflow again: the case is preprocessed anew"
            raise input_error(path, found="no preprocessed case", expected=f"case {case} of {self.task}", fix=fix)
        return path

    def address(self, case: str) -> str:
        """Return the content address of a case: what it was made from, in 20 hexadecimal digits."""
        return self._place(case).name.rpartition("-")[2]

    def absent(self) -> list[Path]:
        """Return the descriptions of cases that are not in the store, of all folds."""
        places = {folder for index in (self, *self.other_folds.values()) for folder in index.folders.values()}
        return [place / META for place in sorted(places) if not (place / META).exists()]

    def _place(self, case: str) -> Path:
        if case not in self.folders:
            raise input_error(f"index of {self.task}", found=f"no case {case}", expected="every case", fix=REMAKE)
        return self.folders[case]

    def write(self, path: Path) -> None:
        """Write the index, whole or not at all."""
        folds = {str(fold): index._content() for fold, index in self.other_folds.items()}
        content = {"task": self.task, "recipe": self.recipe, **self._content(), "other_folds": folds}
        write_json(path, content | {"sha256": content_hash(content)})

    def _content(self) -> dict[str, Any]:
        cases = {case: folder.as_posix() for case, folder in self.folders.items()}
        return {"intensities": None if self.intensities is None else dict(self.intensities), "cases": cases}


def read_index(path: Path) -> PreprocessedIndex:
    """Read an index.

    Raises:
        InputError: the file is absent, is no index, or was edited after it was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digest = content.pop("sha256")
        task, recipe = content["task"], content["recipe"]
        others = {int(fold): _index(task, recipe, item) for fold, item in content["other_folds"].items()}
        found = replace(_index(task, recipe, content), other_folds=others)
    except OSError as error:
        raise input_error(path, found=error.strerror, expected="an index of preprocessed cases", fix=REMAKE) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found_text = f"another form ({type(error).__name__}: {error})"
        raise input_error(path, found=found_text, expected="an index of preprocessed cases", fix=REMAKE) from error
    if digest != content_hash(content):
        found_text = "content that does not match its own sha256"
        raise input_error(path, found=found_text, expected="the index as segbench wrote it", fix=REMAKE)
    return found


def _index(task: str, recipe: str, content: Mapping[str, Any]) -> PreprocessedIndex:
    folders = {case: Path(folder) for case, folder in content["cases"].items()}
    return PreprocessedIndex(task, recipe, folders, content["intensities"])
