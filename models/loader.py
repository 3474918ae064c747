"""Name -> card and network; an unknown name or option lists the known ones."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from models.interface import NetworkSpec, SegmentationModel
from segbench.core import cards
from segbench.core.errors import Problem, input_error, raise_problems, suggestion
from segbench.core.task import TaskSet


@cache
def model_cards() -> dict[str, dict]:
    """Return name -> card of every model, controls included."""
    return cards.model_cards()


def model_card(name: str) -> dict:
    """Return the card of a model; an unknown name raises `InputError` with a suggestion."""
    if name not in model_cards():
        raise input_error("model", found=repr(name), expected="a registered model", fix=suggestion(name, model_cards()))
    return model_cards()[name]


def build_model(name: str, tasks: TaskSet, spec: NetworkSpec, **options: Any) -> SegmentationModel:
    """Build a network by name; unknown options and tasks that its card excludes raise `InputError`."""
    card = model_card(name)
    problems = [
        Problem(f"options of {name}", repr(option), "an option of its card", suggestion(option, card["options"]))
        for option in options
        if option not in card["options"]
    ]
    for task in tasks:
        reason = cards.supports(card, task)
        if reason:
            problems.append(Problem(f"model {name}", f"task {task.name}", "a task it supports", reason))
    raise_problems(problems)
    module = importlib.import_module("models.uniseg" if name == "uniseg" else f"models.baselines.{name}")
    return module.build(tasks, spec, **options)
