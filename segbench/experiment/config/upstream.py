"""Section `upstream`: the tasks that are learnt together, and the models of the comparison."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from segbench.core.errors import Problem
from segbench.experiment.config.entries import control_problems, entry_problems
from segbench.experiment.config.external import External
from segbench.experiment.config.section import CONTROLS, Check, Controls, Distinct, Model, Section, Text

if TYPE_CHECKING:
    from segbench.experiment.config.experiment import Config


class Upstream(Section):
    """The tasks that universal models learn together and single-task models one by one."""

    tasks: Annotated[tuple[Text, ...], *Distinct] = Field(
        min_length=1, description="Names of data-set cards (`python -m segbench list datasets`), in prompt order."
    )
    models: tuple[Model, ...] = Field(description="Models to compare (docs/models.md), as names or as entries.")
    external: tuple[External, ...] = Field((), description="External models (docs/external_baselines.md).")
    self_supervised: tuple[Model, ...] = Field(
        (), description="Self-supervised objectives for `downstream.initialisations` (docs/models.md)."
    )
    controls: Controls = Field(("oracle",), description=CONTROLS)


def _models(config: Config) -> Iterator[Problem]:
    for entry in config.upstream.models:
        yield from entry_problems("upstream.models", entry, config.network_cards, expected="the name of a model")


def _objectives(config: Config) -> Iterator[Problem]:
    for entry in config.upstream.self_supervised:
        cards, expected = config.objective_cards, "the name of an objective"
        yield from entry_problems("upstream.self_supervised", entry, cards, expected=expected)


def _controls(config: Config) -> Iterator[Problem]:
    yield from control_problems("upstream.controls", config.upstream.controls, config)


CHECKS = (
    Check(("upstream.models",), _models),
    Check(("upstream.self_supervised",), _objectives),
    Check(("upstream.controls",), _controls),
)
