"""Section `downstream`: tasks that models meet later, and the initialisations of their network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from segbench.core import cards
from segbench.core.errors import Problem, suggestion
from segbench.core.schema import as_problem
from segbench.core.vocabulary import FROM_SCRATCH, PREPROCESSING_RECIPES
from segbench.experiment.config.entries import control_problems, entry_problems
from segbench.experiment.config.network import CHECKS as NETWORK_CHECKS
from segbench.experiment.config.network import Network
from segbench.experiment.config.section import (
    CONTROLS,
    PREPROCESSING_RECIPE,
    Check,
    Controls,
    Distinct,
    ModelEntry,
    Name,
    Section,
    Sha256,
    Text,
    alike,
    as_entry,
    one_problem,
    repeated,
    unknown_names,
)

if TYPE_CHECKING:
    from segbench.experiment.config.experiment import Config

WEIGHTS = "downstream.initialisations"
RESERVED = ("random", "none")
"""Values of the column `initialisation` of upstream models and of models that are not trained."""


class Initialisation(Section):
    """Where the weights of a downstream run come from."""

    name: Name = Field(
        description="'scratch'; 'scratch_combined', which trains from scratch for the steps of pre-training (all of "
        "upstream) and fine-tuning together; the id of an upstream model or objective; or a name for `file`."
    )
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
    upstream_recipe: Literal["equal", "published", "tuned", "own"] | None = Field(
        None, description="Which training of the upstream model, where it is trained by several recipes."
    )
    probe: tuple[float, float, float, float] | None = Field(
        None, description="Answer to the probe that `import-weights` printed; the job stops at another one."
    )
    trained_on: (
        Annotated[cards.TrainedOn, one_problem("unknown, or a mapping: data set -> list of cases, all or unknown")]
        | None
    ) = Field(
        None,
        description="Data that the weights of `file` have seen: data set -> its cases, `all` or `unknown`; or "
        "`unknown`; default: what the format states. The leak audit looks at it.",
    )
    axes: cards.AxisOrder | None = Field(
        None,
        description="Order of the axes of the images that the weights of `file` saw, where the format states none.",
    )


Weights = Annotated[Initialisation, BeforeValidator(as_entry, json_schema_input_type=Name | Initialisation)]


class DownstreamModel(ModelEntry):
    """A network that is fine-tuned, with the weights that it starts from."""

    initialisations: tuple[Weights, ...] = Field(
        (), description="Where its weights come from; default: `downstream.initialisations`."
    )
    network: dict[str, Any] = Field(default_factory=dict, description="Keys of `network` that differ for it.")
    task_network: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Keys of `network` that differ for it in single tasks: task -> keys."
    )
    preprocessing: Name | None = Field(
        None,
        description="Preprocessing recipe of its images in all downstream tasks, instead of each task's own "
        "(docs/preprocessing.md).",
    )
    task_preprocessing: dict[str, Name] = Field(
        default_factory=dict, description="Preprocessing recipe of its images in single tasks: task -> recipe."
    )

    def preprocessing_of(self, task: str) -> str | None:
        """Return the preprocessing recipe that the entry names for a task, None where it keeps the task's own."""
        return self.task_preprocessing.get(task, self.preprocessing)

    def network_of(self, task: str) -> dict[str, Any]:
        """Return the keys of `network` that differ for the entry in a task."""
        return self.network | self.task_network.get(task, {})


DownstreamEntry = Annotated[DownstreamModel, BeforeValidator(as_entry, json_schema_input_type=Name | DownstreamModel)]


class Downstream(Section):
    """Tasks that models meet later, started from several initialisations."""

    tasks: Annotated[tuple[Text, ...], *Distinct] = Field(min_length=1, description="Names of data-set cards.")
    models: tuple[DownstreamEntry, ...] = Field(
        (DownstreamModel(name="single_task"),),
        min_length=1,
        description="The networks that are fine-tuned, each beside its own training from scratch where that is among "
        "its initialisations.",
    )
    initialisations: tuple[Weights, ...] = Field((), description="Where the weights of a network come from.")
    controls: Controls = Field(("oracle",), description=CONTROLS)
    training: dict[str, Any] = Field(default_factory=dict, description="Keys of `training` that differ here.")

    def initialisations_of(self, entry: DownstreamModel) -> tuple[Initialisation, ...]:
        """Return the initialisations of a network: its own, or those of the section."""
        return entry.initialisations or self.initialisations

    def lists(self) -> Iterator[tuple[str, DownstreamModel, tuple[Initialisation, ...]]]:
        """Yield the key of each list of initialisations with a network that starts from it."""
        for entry in self.models:
            key = f"downstream.models.{entry.key}.initialisations" if entry.initialisations else WEIGHTS
            yield key, entry, self.initialisations_of(entry)


def _weight_names(downstream: Downstream) -> Iterator[Problem]:
    for key, entry, items in downstream.lists():
        names = [item.name for item in items]
        if not names:
            found, fix = f"none for {entry.key}", "name at least scratch"
            yield Problem(key, found, "at least one initialisation of each network", fix)
        for name in repeated(names):
            yield Problem(key, f"{name!r} twice", "each once", "remove one, or give a file another name")
        for one, other in alike(names):
            yield Problem(key, f"{one!r} and {other!r}", "names that differ in more than case and '_'", "rename one")
        for item in items:
            if item.name in RESERVED or (item.name in FROM_SCRATCH and item.file is not None):
                found = f"{item.name!r}" + (" with a file" if item.file else "")
                yield Problem(
                    key, found, "a name of its own", f"rename it; {item.name} has a meaning in the score table"
                )


def _models(config: Config) -> Iterator[Problem]:
    for entry in config.downstream.models if config.downstream else ():
        yield from entry_problems("downstream.models", entry, config.network_cards, expected="the name of a model")


def _network_sizes(config: Config) -> Iterator[Problem]:
    """Changed keys of `network`, with values that it accepts and that fit together."""
    for entry in config.downstream.models if config.downstream else ():
        key = f"downstream.models.{entry.key}"
        if entry.network:
            yield from _size_problems(config, f"{key}.network", entry.network)
        for task, changes in entry.task_network.items():
            yield from _size_problems(config, f"{key}.task_network.{task}", changes, entry.network)


def _size_problems(
    config: Config, key: str, changes: Mapping[str, Any], below: Mapping[str, Any] | None = None
) -> Iterator[Problem]:
    """Yield what is wrong with changed keys of `network`, on top of those below them."""
    for name in sorted(changes.keys() - Network.model_fields.keys()):
        yield Problem(f"{key}.{name}", "an unknown key", "a key of network", suggestion(name, Network.model_fields))
    known = {name: value for name, value in {**(below or {}), **changes}.items() if name in Network.model_fields}
    try:
        size = Network(**{**config.network.model_dump(), **known})
    except ValidationError as error:
        yield from (as_problem(key, item) for item in error.errors())
        return
    for check in NETWORK_CHECKS:
        for found in check.find(size):
            yield Problem(key + found.where.removeprefix("network"), found.found, found.expected, found.fix)


def _preprocessing(config: Config) -> Iterator[Problem]:
    """Preprocessing of its own: recipes that exist, for tasks of downstream."""
    recipes = (*PREPROCESSING_RECIPES, *config.preprocessing_recipes)
    for entry in config.downstream.models if config.downstream else ():
        key = f"downstream.models.{entry.key}"
        if entry.preprocessing is not None:
            yield from unknown_names(f"{key}.preprocessing", [entry.preprocessing], recipes, PREPROCESSING_RECIPE)
        for name, named in (("task_preprocessing", entry.task_preprocessing), ("task_network", entry.task_network)):
            tasks = config.downstream.tasks if config.downstream else ()
            yield from unknown_names(f"{key}.{name}", named, tasks, "a task of downstream")
        for task, recipe in entry.task_preprocessing.items():
            yield from unknown_names(f"{key}.task_preprocessing.{task}", [recipe], recipes, PREPROCESSING_RECIPE)


def _formats(config: Config) -> Iterator[Problem]:
    """Layouts of weights: an unknown one, one without a file, one for another network."""
    for where, entry, items in config.downstream.lists() if config.downstream else ():
        name = entry.name
        for item in items:
            key, card = f"{where}.{item.name}", config.format_cards.get(item.format)
            if card is None:
                fix = suggestion(item.format, config.format_cards)
                yield Problem(f"{key}.format", repr(item.format), "a format", fix)
            elif item.file is None and (item.format != "segbench" or item.sha256 or item.axes or item.trained_on):
                fix = "name it, or remove these"
                yield Problem(f"{key}.file", "nothing", "a file beside format, sha256, axes or trained_on", fix)
            elif name in config.network_cards and cards.loaded_prefixes(card, name, config.network_cards[name]) is None:
                found = f"{item.format} for the network {name}"
                expected = f"one of: {', '.join(cards.target_names(card))}"
                fix = "give the weights to a network of downstream.models that they fit, or bring other weights"
                yield Problem(f"{key}.format", found, expected, fix)


def _stated_of_weights(config: Config) -> Iterator[Problem]:
    """What is stated of weights: data sets that no card knows, and an order of axes that is not the format's."""
    for where, _, items in config.downstream.lists() if config.downstream else ():
        for item in items:
            key, card = f"{where}.{item.name}", config.format_cards.get(item.format)
            known = config.known_dataset_cards
            for name in item.trained_on if isinstance(item.trained_on, dict) else ():
                if name not in known:
                    yield Problem(f"{key}.trained_on", repr(name), "a data set with a card", suggestion(name, known))
            if card is not None and item.axes and card["axes"] not in (item.axes, "unknown"):
                found, expected = f"{item.axes} for {item.format}", f"{card['axes']}, which its weights were trained on"
                yield Problem(f"{key}.axes", found, expected, "remove it, or name the format of the file")


def _controls(config: Config) -> Iterator[Problem]:
    if config.downstream:
        yield from control_problems("downstream.controls", config.downstream.controls, config)


CHECKS = (
    Check(("downstream.initialisations", "downstream.models"), _weight_names, "downstream"),
    Check(("downstream.models",), _models),
    Check(("downstream.models", "network"), _network_sizes),
    Check(("downstream.models", "downstream.tasks", "preprocessing_recipes"), _preprocessing),
    Check(("downstream.initialisations", "downstream.models"), _formats),
    Check(("downstream.initialisations", "downstream.models"), _stated_of_weights),
    Check(("downstream.controls",), _controls),
)
