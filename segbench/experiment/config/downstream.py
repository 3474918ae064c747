"""Section `downstream`: tasks that models meet later, and the initialisations of their network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from segbench.core import cards
from segbench.core.errors import Problem, suggestion
from segbench.experiment.config.entries import control_problems, entry_problems
from segbench.experiment.config.section import (
    CONTROLS,
    Check,
    Controls,
    Distinct,
    Model,
    ModelEntry,
    Name,
    Section,
    Sha256,
    Text,
    alike,
    as_entry,
    repeated,
)

if TYPE_CHECKING:
    from segbench.experiment.config.experiment import Config

SCRATCH = "scratch"
RESERVED = ("random", "none")
"""Values of the column `initialisation` of upstream models and of models that are not trained."""


class Initialisation(Section):
    """Where the weights of a downstream run come from."""

    name: Name = Field(description="'scratch', the id of an upstream model or objective, or a name for `file`.")
    file: Text | None = Field(None, description="A state dict saved by torch.save, loaded without executing code.")
    format: Text = Field("segbench", description="Layout of `file` (docs/pretrained_weights.md).")
    sha256: Sha256 | None = Field(None, description="Checksum that `file` must have.")
    minimum_fraction: float | None = Field(
        None,
        ge=0,
        le=1,
        description="The job stops when a smaller fraction is matched of the parameters that the source hands over; "
        "default: by format.",
    )
    probe: tuple[float, float, float, float] | None = Field(
        None, description="Answer to the probe that `import-weights` printed; the job stops at another one."
    )


Weights = Annotated[Initialisation, BeforeValidator(as_entry, json_schema_input_type=Name | Initialisation)]


class Downstream(Section):
    """Tasks that models meet later, started from several initialisations."""

    tasks: Annotated[tuple[Text, ...], *Distinct] = Field(min_length=1, description="Names of data-set cards.")
    model: Model = Field(ModelEntry(name="single_task"), description="The network that is fine-tuned.")
    initialisations: tuple[Weights, ...] = Field(min_length=1, description="Where its weights come from.")
    controls: Controls = Field(("oracle",), description=CONTROLS)
    training: dict[str, Any] = Field(default_factory=dict, description="Keys of `training` that differ here.")


def _weight_names(downstream: Downstream) -> Iterator[Problem]:
    key, names = "downstream.initialisations", [item.name for item in downstream.initialisations]
    for name in repeated(names):
        yield Problem(key, f"{name!r} twice", "each once", "remove one, or give a file another name")
    for one, other in alike(names):
        yield Problem(key, f"{one!r} and {other!r}", "names that differ in more than case", "rename one")
    for item in downstream.initialisations:
        if item.name in RESERVED or (item.name == SCRATCH and item.file is not None):
            found = f"{item.name!r}" + (" with a file" if item.file else "")
            yield Problem(key, found, "a name of its own", f"rename it; {item.name} has a meaning in the score table")


def _model(config: Config) -> Iterator[Problem]:
    if config.downstream:
        entry, key = config.downstream.model, "downstream.model"
        yield from entry_problems(key, entry, config.network_cards, expected="the name of a model")


def _formats(config: Config) -> Iterator[Problem]:
    """Layouts of weights: an unknown one, one without a file, one for another network."""
    if config.downstream is None:
        return
    name = config.downstream.model.name
    for item in config.downstream.initialisations:
        key, card = f"downstream.initialisations.{item.name}", config.format_cards.get(item.format)
        if card is None:
            yield Problem(f"{key}.format", repr(item.format), "a format", suggestion(item.format, config.format_cards))
        elif item.file is None and (item.format != "segbench" or item.sha256):
            fix = "name it, or remove these"
            yield Problem(f"{key}.file", "nothing", "a file beside format or sha256", fix)
        elif name in config.network_cards and cards.loaded_prefixes(card, name, config.network_cards[name]) is None:
            found, expected = f"{item.format} for the network {name}", f"one of: {', '.join(cards.target_names(card))}"
            yield Problem(f"{key}.format", found, expected, "set downstream.model, or bring other weights")


def _controls(config: Config) -> Iterator[Problem]:
    if config.downstream:
        yield from control_problems("downstream.controls", config.downstream.controls, config)


CHECKS = (
    Check(("downstream.initialisations",), _weight_names, "downstream"),
    Check(("downstream.model",), _model),
    Check(("downstream.initialisations", "downstream.model"), _formats),
    Check(("downstream.controls",), _controls),
)
