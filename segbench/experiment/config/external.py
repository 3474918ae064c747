"""Section `upstream.external`: models that run outside segbench."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

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
    prompts: dict[str, dict[str, Text]] = Field(
        default_factory=dict, description="Texts for a text-driven system: task -> class -> text, for every class."
    )
    support_cases: int = Field(
        0,
        ge=0,
        description="Labelled training cases per task that an in-context system sees, drawn by fold and seed.",
    )
    limit_minutes: float = Field(1440.0, gt=0, description="A command that runs longer is ended and has failed.")
    environment: dict[str, str] = Field(default_factory=dict, description="Environment variables of the commands.")

    @property
    def where(self) -> str:
        """The key of this entry in a message."""
        return f"upstream.external.{self.name}"

    @property
    def told(self) -> dict[str, Any]:
        """What the commands are told beside the cases, by key; empty when nothing is."""
        return {key: value for key in ("prompts", "support_cases") if (value := getattr(self, key))}


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
            numbers = ("fold", "seed") if key == "predictions" else ()  # a command gets text only
            try:
                named = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
                if named <= set(known):
                    text.format(**{name: 0 if name in numbers else "0" for name in known})
            except (ValueError, LookupError) as error:
                yield Problem(where, f"{text!r} ({error})", "fields in braces", "write {{ for a brace")
                continue
            yield from unknown_names(where, sorted(named - set(known)), known, f"one of {', '.join(known)}")
            if key == "predictions" and text:
                several = {"task": len(entry.tasks or config.upstream.tasks), "fold": len(config.data.folds)}
                for name, count in several.items():
                    if count > 1 and name not in named:
                        yield Problem(where, f"no {{{name}}} in {text!r}", f"a folder for each {name}", "name it")


def _told(config: Config) -> Iterator[Problem]:
    """Prompts and support cases have a command that reads them; prompts have a text for each class of each task."""
    for entry in config.upstream.external:
        if entry.predictions:
            for key in entry.told:
                fix = f"give predict, or no {key}"
                yield Problem(f"{entry.where}.{key}", "a key beside predictions", "a command that reads it", fix)
        if not entry.prompts:
            continue
        served = entry.tasks or config.upstream.tasks
        where = f"{entry.where}.prompts"
        yield from unknown_names(where, entry.prompts, served, "a task of this model")
        for name in served:
            if name not in entry.prompts:
                yield Problem(where, f"no texts for {name}", "texts for every task of this model", "add them")
            elif name in config.upstream.tasks:
                classes, texts = config.task(name).classes, entry.prompts[name]
                yield from unknown_names(f"{where}.{name}", texts, classes, "a class of this task")
                for absent in (item for item in classes if item not in texts):
                    yield Problem(f"{where}.{name}", f"no text for {absent}", "a text for every class", "add it")


CHECKS = (
    Check(("upstream.external", "upstream.tasks"), _sources),
    Check(("upstream.external", "upstream.tasks", "data.folds"), _fields),
    Check(("upstream.external", "upstream.tasks"), _told),
)
