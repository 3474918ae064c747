"""Section `upstream.external`: models that run outside segbench."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from segbench.core.errors import Problem
from segbench.experiment.config.section import Check, Name, Section, Text, Texts, unknown_names

if TYPE_CHECKING:
    from segbench.experiment.config.experiment import Config

PREDICTION_FIELDS = ("task", "fold", "seed")
COMMAND_FIELDS = ("job", "work", "output", "scope", "fold", "seed")


class External(Section):
    """An external model: masks that it has written, or commands that train it and let it predict."""

    name: Name = Field(description="Name in the score table.")
    title: Text = Field(description="Name in the tables of the report.")
    citation: str = Field("", description="What to cite.")
    url: str = Field("", description="Where it is from.")
    tasks: Texts = Field((), description="Tasks that it serves; default: all of `upstream.tasks`.")
    scope: Literal["task", "joint"] = Field("task", description="One model per task, or one for all tasks.")
    predictions: Text | None = Field(
        None, description="Folder of masks, one CASE.nii.gz per test case; may name {task}, {fold} and {seed}."
    )
    train: Text | None = Field(None, description="Bash command that trains (docs/external_baselines.md).")
    predict: Text | None = Field(None, description="Bash command that writes the masks; without `predictions`.")
    limit_minutes: float = Field(1440.0, gt=0, description="A command that runs longer is ended and has failed.")
    environment: dict[str, str] = Field(default_factory=dict, description="Environment variables of the commands.")

    @property
    def where(self) -> str:
        """The key of this entry in a message."""
        return f"upstream.external.{self.name}"


def _sources(config: Config) -> Iterator[Problem]:
    """Masks or a command, one of them, for tasks of the run."""
    for entry in config.upstream.external:
        expected = "one of upstream.tasks"
        yield from unknown_names(f"{entry.where}.tasks", entry.tasks, config.upstream.tasks, expected)
        if (entry.predictions is None) == (entry.predict is None):
            fix = "give the folder of masks, or the command that writes them"
            yield Problem(entry.where, "both or neither of predictions and predict", "one of them", fix)
        elif entry.predictions and entry.train:
            fix = "give predict, or no train"
            yield Problem(f"{entry.where}.train", "a command beside predictions", "predict", fix)


def _fields(config: Config) -> Iterator[Problem]:
    """Fields in braces that are known, and enough of them to keep the masks of two jobs apart."""
    for entry in config.upstream.external:
        for key in ("predictions", "train", "predict"):
            where, text = f"{entry.where}.{key}", getattr(entry, key) or ""
            known = PREDICTION_FIELDS if key == "predictions" else COMMAND_FIELDS
            try:
                named = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
            except ValueError as error:
                yield Problem(where, f"{text!r} ({error})", "fields in braces", "write {{ for a brace")
                continue
            yield from unknown_names(where, sorted(named - set(known)), known, f"one of {', '.join(known)}")
            if key == "predictions" and text:
                several = {"task": len(entry.tasks or config.upstream.tasks), "fold": len(config.data.folds)}
                for name, count in several.items():
                    if count > 1 and name not in named:
                        yield Problem(where, f"no {{{name}}} in {text!r}", f"a folder for each {name}", "name it")


CHECKS = (
    Check(("upstream.external", "upstream.tasks"), _sources),
    Check(("upstream.external", "upstream.tasks", "data.folds"), _fields),
)
