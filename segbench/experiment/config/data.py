"""Section `data`: where labelled volumes are, and how they are split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field

from segbench.core.errors import Problem
from segbench.experiment.config.section import Check, Distinct, Number, Numbers, Section, Sha256, Text, Texts

Protocol = Literal["seeded", "kfold", "listed", "as_published", "corrected", "btcv_21_9", "btcv_24_6", "btcv_18_12"]
WITH_LISTS = ("listed", "as_published", "corrected", "btcv_24_6", "btcv_18_12")
"""Protocols that follow lists which are no part of segbench."""
PICKLES = (".pkl", ".pickle")
LIST_SUFFIXES = (*PICKLES, ".json")
OUTPUT_FOLDERS = ("results", "reports")
"""Folders of the run's own files, relative to the working directory."""


class Phantom(Section):
    """The synthetic world that is written when no real data are asked for."""

    seed: Number = Field(2023, description="Seed of the synthetic world; same seed, same bytes.")
    train_cases: int = Field(10, ge=1, description="Training cases per task.")
    test_cases: int = Field(4, ge=1, description="Test cases per task.")

    @property
    def cases(self) -> int:
        """Cases per task."""
        return self.train_cases + self.test_cases


class Data(Section):
    """Where labelled volumes are and how they are split."""

    root: Text | None = Field(
        None, description="Folder that holds one folder per data set. Default: the environment variable SEGBENCH_DATA."
    )
    phantom: Phantom | None = Field(None, description="Generate the synthetic world under `root` first.")
    cards: Texts = Field((), description="Folders with your own data-set cards (*.yaml, *.json).")
    protocol: Protocol = Field("seeded", description="How cases are split; named on every table (docs/protocols.md).")
    task_protocols: dict[str, Protocol] = Field(
        default_factory=dict, description="Another protocol for single tasks, such as `{btcv: btcv_21_9}`."
    )
    split_files: Texts = Field(
        (),
        description="Lists that you bring, below `root`: the released split files (*.pkl), or your own lists (*.json).",
    )
    accept_leaks: Texts = Field(
        (), description="Names of findings of the leak audit that do not stop the run; the report shows them."
    )
    accept_partial: Texts = Field(
        (), description="Tasks whose data set may have fewer cases than its card expects; the report says how many."
    )
    accept_split_files: Annotated[tuple[Sha256, ...], *Distinct] = Field(
        (), description="SHA-256 of files in the form of the released split files, other than those released."
    )
    split_seed: Number = Field(1234, description="Seed of the protocols `seeded` and `kfold`.")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="Fraction of patients held out by the protocol `seeded`.")
    folds: Numbers = Field((0,), min_length=1, description="Folds to run; only the protocol `kfold` has more than 0.")
    fold_count: int = Field(5, ge=2, description="Number of folds of the protocol `kfold`.")

    def protocol_of(self, task: str) -> str:
        """Return the name of the protocol that splits a task."""
        return self.task_protocols.get(task, self.protocol)


def _root(data: Data) -> Iterator[Problem]:
    """A folder of the data sets that is named, and that is no folder of the run's own files."""
    if data.root is None:
        fix = "set data.root, or the environment variable SEGBENCH_DATA"
        yield Problem("data.root", "nothing", "a folder with the data sets", fix)
        return
    parts = PurePath(data.root).parts
    if (
        ".." not in parts
        and not PurePath(data.root).is_absolute()
        and parts[:1] in [(name,) for name in OUTPUT_FOLDERS]
    ):
        expected = f"a folder outside {' and '.join(OUTPUT_FOLDERS)}, which the run writes"
        yield Problem("data.root", repr(data.root), expected, "move the data sets")


def _list_names(data: Data) -> Iterator[Problem]:
    for name in data.split_files:
        if PurePath(name).suffix.lower() not in LIST_SUFFIXES:
            yield Problem("data.split_files", repr(name), " or ".join(LIST_SUFFIXES), "see docs/protocols.md")


CHECKS = (
    Check(("data.root",), _root, "data"),
    Check(("data.split_files",), _list_names, "data"),
)
