"""Name -> card and network; an unknown name or option lists the known ones."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from models.interface import NetworkSpec, SegmentationModel
from segbench.core import cards
from segbench.core.errors import Fault, fault, raise_faults, suggestion
from segbench.core.task import TaskSet


@cache
def model_cards() -> dict[str, dict]:
    """Return name -> card of every model, controls included."""
    return cards.model_cards()


def model_card(name: str) -> dict:
    """Return the card of a model; an unknown name raises `InputFaults` with a suggestion."""
    if name not in model_cards():
        raise fault("model", found=repr(name), expected="a registered model", mend=suggestion(name, model_cards()))
    return model_cards()[name]


def build_model(name: str, tasks: TaskSet, spec: NetworkSpec, **options: Any) -> SegmentationModel:
    """Build a network by name; unknown options and tasks that its card excludes raise `InputFaults`."""
    card = model_card(name)
    faults = [
        Fault(f"options of {name}", repr(option), "an option of its card", suggestion(option, card["options"]))
        for option in options
        if option not in card["options"]
    ]
    for task in tasks:
        reason = cards.supports(card, task)
        if reason:
            faults.append(Fault(f"model {name}", f"task {task.name}", "a task it supports", reason))
    raise_faults(faults)
    module = importlib.import_module("models.uniseg" if name == "uniseg" else f"models.baselines.{name}")
    return module.build(tasks, spec, **options)
