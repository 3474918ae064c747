"""The whole config: all sections together, and what follows from them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from segbench.core import cards
from segbench.core.task import Task, TaskSet
from segbench.core.vocabulary import PUBLISHED, SCRATCH_COMBINED, TUNED
from segbench.experiment.config.data import Data
from segbench.experiment.config.downstream import Downstream, DownstreamModel
from segbench.experiment.config.external import External
from segbench.experiment.config.inference import Inference
from segbench.experiment.config.network import Network
from segbench.experiment.config.section import ModelEntry, Name, Numbers, Section, Text
from segbench.experiment.config.statistics import Metrics, MissingMasks, Statistics
from segbench.experiment.config.training import Training, merged
from segbench.experiment.config.upstream import Upstream


class Config(Section):
    """The whole experiment. Holds facts of the experiment only; threads and devices are set in workflow/profiles."""

    run: Name = Field(description="Name of the run: results/RUN/, and reports/RUN/ when its report is published.")
    description: str = Field("", description="What the run is for, its expected time and results.")
    seeds: Numbers = Field((0,), min_length=1, description="Repetitions; every model sees the same data order.")
    data: Data = Field(Data(), description=Data.__doc__)
    preprocessing_recipes: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Own preprocessing recipes, or changed keys of a named one."
    )
    task_preprocessing: dict[str, Text] = Field(
        default_factory=dict,
        description="Preprocessing recipe of a task, instead of its card's (docs/preprocessing.md).",
    )
    structures: dict[str, list[dict[str, Any]]] = Field(
        default_factory=dict,
        description="What is scored in a task, in the form of its card's `structures` and instead of them, such as "
        "organs that include their tumour.",
    )
    network: Network = Field(Network(), description=Network.__doc__)
    training: Training = Field(Training(), description=Training.__doc__)
    inference: Inference = Field(Inference(), description=Inference.__doc__)
    upstream: Upstream = Field(description=Upstream.__doc__)
    downstream: Downstream | None = Field(None, description=Downstream.__doc__)
    metrics: Metrics = Field(
        ("dice", "hd95", "hd95_max"), min_length=1, description="Metrics to compute (docs/metrics.md)."
    )
    missing_masks: MissingMasks = Field(
        default_factory=dict,
        description="Handling of empty or missing masks: per metric, what a status counts as, a number or `exclude`.",
    )
    statistics: Statistics = Field(Statistics(), description=Statistics.__doc__)
    allow_mixed_training_code: bool = Field(
        False, description="Render a table whose cells were trained by different versions of the training code."
    )

    @cached_property
    def known_dataset_cards(self) -> dict[str, dict]:
        """All data-set cards, the user's included, as they are written."""
        return cards.dataset_cards([Path(folder) for folder in self.data.cards])

    @cached_property
    def dataset_cards(self) -> dict[str, dict]:
        """All data-set cards, the user's included, with the structures that this config asks for."""
        found = dict(self.known_dataset_cards)
        for name in self.structures.keys() & found.keys():
            asked = found[name] | {"structures": self.structures[name]}
            found[name] = cards.checked(asked, cards.DatasetCard, f"structures.{name}")
        return found

    @cached_property
    def model_cards(self) -> dict[str, dict]:
        """All model cards, controls included."""
        return cards.model_cards()

    @property
    def network_cards(self) -> dict[str, dict]:
        """The cards of all models that are networks."""
        return {name: card for name, card in self.model_cards.items() if card["kind"] != "control"}

    @cached_property
    def format_cards(self) -> dict[str, dict]:
        """The cards of all layouts of weights."""
        return cards.format_cards()

    @cached_property
    def objective_cards(self) -> dict[str, dict]:
        """All cards of self-supervised objectives."""
        return cards.objective_cards()

    @cached_property
    def _tasks(self) -> dict[str, Task]:
        return {}

    @cached_property
    def _task_sets(self) -> dict[str, TaskSet]:
        return {}

    def task(self, name: str) -> Task:
        """Return the task of a data-set card."""
        if name not in self._tasks:
            task, recipe = cards.task_from_card(name, self.dataset_cards[name]), self.task_preprocessing.get(name)
            self._tasks[name] = task if recipe is None else Task(**{**task.__dict__, "preprocessing": recipe})
        return self._tasks[name]

    def tasks_of(self, experiment: str) -> TaskSet:
        """Return the tasks of 'upstream' or 'downstream' in order; empty without a downstream part."""
        if experiment not in self._task_sets:
            section = self.upstream if experiment == "upstream" else self.downstream
            self._task_sets[experiment] = TaskSet(self.task(name) for name in (section.tasks if section else ()))
        return self._task_sets[experiment]

    @property
    def all_task_names(self) -> tuple[str, ...]:
        """Names of all tasks, upstream first, each once."""
        return tuple(dict.fromkeys(self.upstream.tasks + (self.downstream.tasks if self.downstream else ())))

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks, upstream first, each once."""
        return tuple(self.task(name) for name in self.all_task_names)

    @property
    def synthetic(self) -> bool:
        """True when any task of the run is synthetic."""
        return any(task.synthetic for task in self.tasks)

    @property
    def data_root(self) -> Path:
        """Folder with one folder per data set."""
        assert self.data.root is not None, "a checked config names the folder"
        return Path(self.data.root)

    @property
    def split_paths(self) -> tuple[Path, ...]:
        """The lists that the user brings, below the folder of the data sets unless their path is absolute."""
        return tuple(self.data_root / name for name in self.data.split_files)

    def training_of(
        self, experiment: str, entry: ModelEntry | None = None, initialisation: str | None = None
    ) -> Training:
        """Return the effective training settings of an experiment, or of one of its models.

        Defaults < `training` < `downstream.training` < the recipe of the entry. From scratch at the combined budget,
        the steps of a joint upstream training are added. `tuning` stays for the entries that it acts on.
        """
        changes = self.downstream.training if experiment == "downstream" and self.downstream else {}
        values = merged(self.training.model_dump(), changes, self.recipe_of(entry) if entry else {})
        if initialisation == SCRATCH_COMBINED:
            values["iterations_per_task"] += len(self.upstream.tasks) * self.training.iterations_per_task
        if entry is not None and entry.recipe != TUNED:
            values["tuning"] = None
        return Training(**values)

    def recipe_of(self, entry: ModelEntry) -> dict[str, Any]:
        """Return which keys the recipe of an entry states: none, those of its card's published recipe, or its own.

        A published recipe that states no warm-up has none, whatever the experiment says.
        """
        if isinstance(entry.recipe, dict):
            return entry.recipe
        if entry.recipe != PUBLISHED:
            return {}
        card = self.model_cards.get(entry.name) or self.objective_cards.get(entry.name) or {}
        return {"warmup": 0} | (card.get("published_recipe") or {}).get("keys", {})

    def network_of(self, experiment: str, entry: ModelEntry, scope: str) -> Network:
        """Return the size of a network: that of the config, with what its downstream entry changes.

        Args:
            experiment: `upstream` or `downstream`.
            entry: the entry of the network.
            scope: scope of the job: the task of a downstream network; '' for what all its tasks share.
        """
        changes = entry.network_of(scope) if experiment == "downstream" and isinstance(entry, DownstreamModel) else {}
        return Network(**{**self.network.model_dump(), **changes})

    def task_of(self, entry: ModelEntry, task: Task) -> Task:
        """Return a task as an entry of downstream sees it: with the preprocessing recipe that the entry names."""
        recipe = entry.preprocessing_of(task.name) if isinstance(entry, DownstreamModel) else None
        return task if recipe in (None, task.preprocessing) else Task(**{**task.__dict__, "preprocessing": recipe})

    def own_preprocessing(self, task: Task) -> str:
        """Return the recipe of a task as an entry sees it where it is not the task's own recipe, else ''."""
        return "" if task.preprocessing == self.task(task.name).preprocessing else task.preprocessing

    def entries_of(self, experiment: str) -> tuple[ModelEntry, ...]:
        """Return the entries of the models that an experiment trains, objectives included."""
        if experiment == "upstream":
            return self.upstream.models + self.upstream.self_supervised
        return self.downstream.models if self.downstream else ()

    def entry_of(self, experiment: str, key: str, recipe: str) -> ModelEntry:
        """Return the entry with this id and recipe in an experiment."""
        found = (entry for entry in self.entries_of(experiment) if (entry.key, entry.recipe_name) == (key, recipe))
        return next(found)

    def model_entry(self, key: str) -> ModelEntry:
        """Return the first entry with this id; all have one name and the same options."""
        entries = self.entries_of("upstream") + self.entries_of("downstream")
        return next(entry for entry in entries if entry.key == key)

    def card(self, key: str) -> dict[str, Any]:
        """Return the card of the model, or of the self-supervised objective, with this id."""
        name = self.model_entry(key).name
        return self.objective_cards[name] if self.is_self_supervised(key) else self.model_cards[name]

    def changed_options(self, entry: ModelEntry) -> dict[str, Any]:
        """Return the options of an entry that are not those of its card by default."""
        options = self.card(entry.key)["options"]
        return {name: value for name, value in entry.options.items() if value != options[name]["default"]}

    def is_self_supervised(self, key: str) -> bool:
        """Tell whether an id is that of a self-supervised objective."""
        return any(entry.key == key for entry in self.upstream.self_supervised)

    def external(self, name: str) -> External:
        """Return the external model with this name."""
        return next(entry for entry in self.upstream.external if entry.name == name)
