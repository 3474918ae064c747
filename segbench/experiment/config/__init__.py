"""The typed configuration: every key with its meaning and default; unknown keys are refused with a suggestion.

`load_config` reads YAML, fills defaults, looks up cards and collects all problems before raising once. This module
alone reads the environment (`SEGBENCH_DATA`). It needs pydantic and PyYAML only, so that the workflow's graph builds
in an environment that holds Snakemake and nothing else.
"""

from __future__ import annotations

import math
import os
import string
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError

from segbench.core import cards
from segbench.core.errors import Problem, input_error, raise_problems, suggestion
from segbench.core.task import Task, TaskSet
from segbench.core.vocabulary import METRIC_NAMES, POLICY_STATUSES

NAME = r"^[A-Za-z0-9][A-Za-z0-9_]*$"
Triple = tuple[PositiveInt, PositiveInt, PositiveInt]
RESERVED_INITIALISATIONS = ("scratch",)
Protocol = Literal["seeded", "kfold", "listed", "as_published", "corrected", "btcv_21_9", "btcv_24_6", "btcv_18_12"]


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Phantom(Section):
    """The synthetic world that is written when no real data are asked for."""

    seed: int = Field(2023, description="Seed of the synthetic world; same seed, same bytes.")
    train_cases: int = Field(10, ge=1, description="Training cases per task.")
    test_cases: int = Field(4, ge=1, description="Test cases per task.")


class Data(Section):
    """Where labelled volumes are and how they are split."""

    root: str | None = Field(
        None, description="Folder that holds one folder per data set. Default: the environment variable SEGBENCH_DATA."
    )
    phantom: Phantom | None = Field(None, description="Generate the synthetic world under `root` first.")
    cards: tuple[str, ...] = Field((), description="Folders with your own data-set cards (*.yaml, *.json).")
    protocol: Protocol = Field("seeded", description="How cases are split; named on every table (docs/protocols.md).")
    task_protocols: dict[str, Protocol] = Field(
        default_factory=dict, description="Another protocol for single tasks, such as `{btcv: btcv_21_9}`."
    )
    split_files: tuple[str, ...] = Field(
        (),
        description="Lists that you bring, below `root`: the released split files (*.pkl), or your own lists (*.json).",
    )
    accept_leaks: tuple[str, ...] = Field(
        (), description="Names of findings of the leak audit that do not stop the run; the report shows them."
    )
    accept_partial: tuple[str, ...] = Field(
        (), description="Tasks whose data set may have fewer cases than its card expects; the report says how many."
    )
    accept_split_files: tuple[str, ...] = Field(
        (), description="SHA-256 of files in the form of the released split files, other than those released."
    )
    split_seed: int = Field(1234, description="Seed of the protocols `seeded` and `kfold`.")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="Fraction of patients held out by the protocol `seeded`.")
    folds: tuple[int, ...] = Field((0,), min_length=1, description="Folds to run; `seeded` has fold 0 only.")
    fold_count: int = Field(5, ge=2, description="Number of folds of the protocol `kfold`.")

    def protocol_of(self, task: str) -> str:
        """Return the name of the protocol that splits a task."""
        return self.task_protocols.get(task, self.protocol)


def _as_model_entry(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class ModelEntry(Section):
    """One model of the comparison: a registered name, options, and an id when it is used twice."""

    name: str = Field(description="File name of the model below models/, or of the objective, without .py.")
    id: str | None = Field(None, pattern=NAME, description="Name in the score table; default: `name`.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the model's card.")

    @property
    def key(self) -> str:
        """The value of the column `model`."""
        return self.id or self.name


class Initialisation(Section):
    """Where the weights of a downstream run come from."""

    name: str = Field(
        pattern=NAME, description="'scratch', the id of an upstream model or objective, or a name for `file`."
    )
    file: str | None = Field(None, description="A state dict saved by torch.save, loaded without executing code.")
    format: str = Field("segbench", description="Layout of `file` (docs/pretrained_weights.md).")
    sha256: str | None = Field(None, description="Checksum that `file` must have.")
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


def _with_ceiling(names: tuple[str, ...]) -> tuple[str, ...]:
    return names if "oracle" in names else ("oracle", *names)


CONTROLS = (
    "Control predictors that bound the scale; `oracle`, the ceiling that preprocessing sets, is always among them."
)
Controls = Annotated[tuple[str, ...], AfterValidator(_with_ceiling)]
Model = Annotated[ModelEntry, BeforeValidator(_as_model_entry)]
Weights = Annotated[Initialisation, BeforeValidator(_as_model_entry)]


class Network(Section):
    """Size of every network, so that only the concept under test differs."""

    patch_size_zyx: Triple = Field((64, 192, 192), description="Training and inference patch in voxels.")
    base_features: int = Field(32, ge=4, description="Width of the first stage.")
    max_features: int = Field(320, ge=4, description="Largest width.")
    pool_kernels_zyx: tuple[Triple, ...] = Field(
        ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)), description="One down-sampling kernel per stage."
    )
    conv_kernels_zyx: tuple[Triple, ...] = Field(
        ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        description="One convolution kernel per stage, one more than there are poolings.",
    )


class Training(Section):
    """The recipe, the same for every model."""

    iterations_per_task: int = Field(50000, ge=1, description="Optimiser steps per task: the compute budget.")
    batch_size: int = Field(2, ge=1, description="Patches per step, all of one task.")
    schedule: Literal["equal", "proportional", "sqrt"] = Field(
        "equal", description="Fraction of each task in the steps: equal as published, by size, or by its square root."
    )
    initial_learning_rate: float = Field(0.01, gt=0, description="Learning rate of the first step.")
    momentum: float = Field(0.99, ge=0, lt=1, description="Nesterov momentum of SGD.")
    weight_decay: float = Field(3e-5, ge=0, description="Weight decay of SGD.")
    poly_exponent: float = Field(0.9, ge=0, description="Exponent of the polynomial decay of the learning rate.")
    gradient_clip: float = Field(12.0, gt=0, description="Largest norm of the gradient.")
    foreground_fraction: float = Field(0.33, ge=0, le=1, description="Fraction of patches centred on foreground.")
    augmentation: Literal["none", "light", "full"] = Field("full", description="Augmentation of the nnU-Net family.")
    mirror_axes: tuple[int, ...] = Field((0, 1, 2), description="Axes (z, y, x) mirrored at random in training.")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Arithmetic of the forward pass.")
    save_every_seconds: float = Field(30.0, gt=0, description="Interval between resumable states.")


class Inference(Section):
    """Part of a method's identity: it moves ranks by itself."""

    step: float = Field(0.5, gt=0, le=1, description="Step of the sliding window as a fraction of the patch.")
    mirror_axes: tuple[int, ...] = Field((), description="Axes (z, y, x) mirrored at test time and averaged.")
    keep_predictions: bool = Field(True, description="Write predicted label maps below results/.")


class External(Section):
    """An external model: masks that it has written, or commands that train it and let it predict."""

    name: str = Field(pattern=NAME, description="Name in the score table.")
    title: str = Field(description="Name in the tables of the report.")
    citation: str = Field("", description="What to cite.")
    url: str = Field("", description="Where it is from.")
    tasks: tuple[str, ...] = Field((), description="Tasks that it serves; default: all of `upstream.tasks`.")
    scope: Literal["task", "joint"] = Field("task", description="One model per task, or one for all tasks.")
    predictions: str | None = Field(
        None, description="Folder of masks, one CASE.nii.gz per test case; may name {task}, {fold} and {seed}."
    )
    train: str | None = Field(None, description="Bash command that trains (docs/external_baselines.md).")
    predict: str | None = Field(None, description="Bash command that writes the masks; without `predictions`.")
    limit_minutes: float = Field(1440.0, gt=0, description="A command that runs longer is ended and has failed.")
    environment: dict[str, str] = Field(default_factory=dict, description="Environment variables of the commands.")


class Upstream(Section):
    """The tasks that universal models learn together and single-task models one by one."""

    tasks: tuple[str, ...] = Field(min_length=1, description="Names of data-set cards, in prompt order.")
    models: tuple[Model, ...] = Field(description="Models to compare.")
    external: tuple[External, ...] = Field((), description="External models (docs/external_baselines.md).")
    self_supervised: tuple[Model, ...] = Field(
        (), description="Self-supervised objectives for `downstream.initialisations` (docs/models.md)."
    )
    controls: Controls = Field(("oracle",), description=CONTROLS)


class Downstream(Section):
    """Tasks that models meet later, started from several initialisations."""

    tasks: tuple[str, ...] = Field(min_length=1, description="Names of data-set cards.")
    model: Model = Field(ModelEntry(name="single_task"), description="The network that is fine-tuned.")
    initialisations: tuple[Weights, ...] = Field(min_length=1, description="Where its weights come from.")
    controls: Controls = Field(("oracle",), description=CONTROLS)
    training: dict[str, Any] = Field(default_factory=dict, description="Keys of `training` that differ here.")


class Config(Section):
    """The whole experiment. Holds facts of the experiment only; threads and devices live in workflow/profiles."""

    run: str = Field(pattern=NAME, description="Name of the run: results/<run>/ and reports/<run>/.")
    description: str = Field("", description="What the run is for, its expected time and figures.")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="Repetitions; every model sees the same data order.")
    data: Data = Field(Data(), description=Data.__doc__)
    preprocessing_recipes: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Own preprocessing recipes, or changed keys of a named one."
    )
    task_preprocessing: dict[str, str] = Field(
        default_factory=dict, description="PreprocessingRecipe of a task, instead of its card's."
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
    metrics: tuple[str, ...] = Field(("dice", "hd95", "hd95_max"), min_length=1, description="Metrics to compute.")
    policies: dict[str, dict[str, float | Literal["exclude"]]] = Field(
        default_factory=dict, description="Per metric: what a status counts as, a number or `exclude`."
    )
    allow_mixed_training_code: bool = Field(
        False, description="Render a table whose cells were trained by different versions of the training code."
    )

    @cached_property
    def dataset_cards(self) -> dict[str, dict]:
        """All data-set cards, the user's included, with the structures that this config asks for."""
        found = cards.dataset_cards([Path(folder) for folder in self.data.cards])
        for name in self.structures.keys() & found.keys():
            asked = found[name] | {"structures": self.structures[name]}
            found[name] = cards.checked(asked, cards.DatasetCard, f"structures.{name}")
        return found

    @cached_property
    def model_cards(self) -> dict[str, dict]:
        """All model cards, controls included."""
        return cards.model_cards()

    @cached_property
    def format_cards(self) -> dict[str, dict]:
        """The cards of all layouts of weights."""
        return cards.format_cards()

    @cached_property
    def objective_cards(self) -> dict[str, dict]:
        """All cards of self-supervised objectives."""
        return cards.objective_cards()

    def task(self, name: str) -> Task:
        """Return the task of a data-set card."""
        task = cards.task_from_card(name, self.dataset_cards[name])
        recipe = self.task_preprocessing.get(name)
        return task if recipe is None else Task(**{**task.__dict__, "preprocessing": recipe})

    def tasks_of(self, experiment: str) -> TaskSet:
        """Return the tasks of 'upstream' or 'downstream' in order; empty without a downstream part."""
        section = self.upstream if experiment == "upstream" else self.downstream
        return TaskSet(self.task(name) for name in (section.tasks if section else ()))

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks, upstream first, each once."""
        names = dict.fromkeys(self.upstream.tasks + (self.downstream.tasks if self.downstream else ()))
        return tuple(self.task(name) for name in names)

    @property
    def synthetic(self) -> bool:
        """True when any task of the run is synthetic."""
        return any(task.synthetic for task in self.tasks)

    @property
    def data_root(self) -> Path:
        """Folder with one folder per data set."""
        return Path(self.data.root)

    @property
    def split_paths(self) -> tuple[Path, ...]:
        """The lists that the user brings, below the folder of the data sets unless their path is absolute."""
        return tuple(self.data_root / name for name in self.data.split_files)

    def training_of(self, experiment: str) -> Training:
        """Return the training recipe of an experiment, downstream changes applied."""
        if experiment == "downstream" and self.downstream:
            return Training(**{**self.training.model_dump(), **self.downstream.training})
        return self.training

    def model_entry(self, key: str) -> ModelEntry:
        """Return the entry of the model, or of the self-supervised objective, with this id."""
        upstream, downstream = self.upstream, self.downstream
        entries = upstream.models + upstream.self_supervised + ((downstream.model,) if downstream else ())
        return next(entry for entry in entries if entry.key == key)

    def card(self, key: str) -> dict[str, Any]:
        """Return the card of the model, or of the self-supervised objective, with this id."""
        name = self.model_entry(key).name
        return self.objective_cards[name] if self.is_self_supervised(key) else self.model_cards[name]

    def is_self_supervised(self, key: str) -> bool:
        """Tell whether an id is that of a self-supervised objective."""
        return any(entry.key == key for entry in self.upstream.self_supervised)

    def external(self, name: str) -> External:
        """Return the external model with this name."""
        return next(entry for entry in self.upstream.external if entry.name == name)


def load_config(path: Path | str) -> Config:
    """Read and check a YAML or JSON config file; all problems are raised at once as `InputError`."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise input_error(path, found=error.strerror, expected="a config file", fix="check --config") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise input_error(path, found=f"not YAML ({error})", expected="YAML", fix="fix the syntax") from error
    return parse_config(content, where=str(path))


def parse_config(content: Any, *, where: str) -> Config:
    """Check a mapping that was read from `where`; all problems are raised at once as `InputError`."""
    if not isinstance(content, Mapping):
        raise input_error(where, found=type(content).__name__, expected="a mapping of keys", fix="see config/README.md")
    content = dict(content)
    data = dict(content.get("data") or {})
    if data.get("root") is None and os.environ.get("SEGBENCH_DATA"):
        data["root"] = os.environ["SEGBENCH_DATA"]
    content["data"] = data
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        raise_problems(_as_problem(where, item) for item in error.errors())
    raise_problems(_meaning_problems(where, config))
    return config


def _as_problem(where: str, item: dict) -> Problem:
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        return Problem(f"{where}: {key}", "an unknown key", "a known key", suggestion(location[-1], known))
    found = "nothing" if item["type"] == "missing" else repr(item["input"])
    return Problem(f"{where}: {key}", found[:120], item["msg"], "see config/README.md")


def _known_keys(location: list[str]) -> list[str]:
    section: Any = Config
    for part in location:
        field = getattr(section, "model_fields", {}).get(part)
        if field is None:
            continue  # an index of a list or the tag of a union
        section = section_of(field.annotation)
    return list(getattr(section, "model_fields", {}))


def section_of(annotation: Any) -> Any:
    """Return the config section inside a type annotation, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = section_of(inner)
        if found is not None:
            return found
    return None


def _meaning_problems(where: str, config: Config) -> list[Problem]:
    """Problems that need more than one key: names of cards, sizes that do not divide, policies."""
    problems = [*_name_problems(where, config), *_self_supervised_problems(where, config)]
    problems += [*_network_problems(where, config.network), *_metric_problems(where, config)]
    if config.data.root is None:
        problems.append(
            Problem(f"{where}: data.root", "nothing", "a folder with the data sets", "set data.root or SEGBENCH_DATA")
        )
    if config.downstream:
        unknown = set(config.downstream.training) - set(Training.model_fields)
        problems += [
            Problem(
                f"{where}: downstream.training.{key}",
                "an unknown key",
                "a key of training",
                suggestion(key, Training.model_fields),
            )
            for key in sorted(unknown)
        ]
        if not unknown:
            try:
                config.training_of("downstream")
            except ValidationError as error:
                problems += [_as_problem(f"{where}: downstream.training", item) for item in error.errors()]
    return problems


def _name_problems(where: str, config: Config) -> list[Problem]:
    problems = []
    datasets, models = config.dataset_cards, config.model_cards
    networks = {name: card for name, card in models.items() if card["kind"] != "control"}
    controls = [name for name, card in models.items() if card["kind"] == "control"]

    def check(key: str, names: list[str], known: Any, what: str) -> None:
        for name in names:
            if name not in known:
                problems.append(Problem(f"{where}: {key}", repr(name), what, suggestion(name, known)))
        for name in sorted({name for name in names if names.count(name) > 1}):
            problems.append(Problem(f"{where}: {key}", f"{name!r} twice", "each once", "remove one, or give it an id"))

    upstream, downstream = config.upstream, config.downstream
    check("upstream.tasks", list(upstream.tasks), datasets, "the name of a data-set card")
    check("upstream.controls", list(upstream.controls), controls, "the name of a control")
    keys = [entry.key for entry in upstream.models]
    keys += [entry.name for entry in upstream.external] + [entry.key for entry in upstream.self_supervised]
    check("upstream.models", keys, set(keys), "distinct ids")
    for entry in upstream.external:
        check(f"upstream.external.{entry.name}.tasks", list(entry.tasks), upstream.tasks, "one of upstream.tasks")
        problems += _external_problems(f"{where}: upstream.external.{entry.name}", entry, config)
    entries = list(upstream.models)
    if downstream:
        check("downstream.tasks", list(downstream.tasks), datasets, "the name of a data-set card")
        check("downstream.controls", list(downstream.controls), controls, "the name of a control")
        sources = [item.name for item in downstream.initialisations if item.file is None]
        joint = [entry.key for entry in upstream.models if models.get(entry.name, {}).get("kind") == "universal"]
        check(
            "downstream.initialisations",
            sources,
            [*RESERVED_INITIALISATIONS, *joint, *(entry.key for entry in upstream.self_supervised)],
            "scratch, a universal model of upstream, an entry of upstream.self_supervised, or a name with a file",
        )
        entries.append(downstream.model)
        if any(entry.key == downstream.model.key and entry != downstream.model for entry in upstream.models):
            found, fix = f"{downstream.model.key} with other options than upstream", "give it an id of its own"
            problems.append(Problem(f"{where}: downstream.model", found, "one network by one id", fix))
        problems += _weights_problems(where, config)
    for entry in entries:
        problems += _entry_problems(where, entry, networks, key="models", expected="the name of a model")
    problems += [
        Problem(f"{where}: {key}", repr(name), "a task of this run", suggestion(name, datasets))
        for key, names in {"task_preprocessing": config.task_preprocessing, "structures": config.structures}.items()
        for name in names
        if name not in datasets
    ]
    named = {"task_protocols": config.data.task_protocols, "accept_partial": config.data.accept_partial}
    tasks = () if problems else [task.name for task in config.tasks]
    problems += [
        Problem(f"{where}: data.{key}", repr(name), "a task of this run", suggestion(name, tasks))
        for key, names in named.items()
        for name in names
        if tasks and name not in tasks
    ]
    return problems


def _weights_problems(where: str, config: Config) -> list[Problem]:
    """Problems of layouts of weights: an unknown one, one without a file, one for another network."""
    name, problems = config.downstream.model.name, []
    for item in config.downstream.initialisations:
        key, card = f"{where}: downstream.initialisations.{item.name}", config.format_cards.get(item.format)
        if card is None:
            fix = suggestion(item.format, config.format_cards)
            problems.append(Problem(f"{key}.format", repr(item.format), "a format", fix))
        elif item.file is None and (item.format != "segbench" or item.sha256):
            problems.append(
                Problem(f"{key}.file", "nothing", "a file beside format or sha256", "name it, or remove these")
            )
        elif name in config.model_cards and cards.loaded_prefixes(card, name, config.model_cards[name]) is None:
            expected = f"one of: {', '.join(cards.target_names(card))}"
            found = f"{item.format} for the network {name}"
            problems.append(Problem(f"{key}.format", found, expected, "set downstream.model, or bring other weights"))
    return problems


def _entry_problems(
    where: str, entry: ModelEntry, known: Mapping[str, dict], *, key: str, expected: str
) -> list[Problem]:
    """Problems of an entry's name and options against the cards that it may name."""
    if entry.name not in known:
        fix = suggestion(entry.name, known)
        return [Problem(f"{where}: {key}", repr(entry.name), expected, fix)]
    options = known[entry.name]["options"]
    return [
        Problem(f"{where}: options of {entry.key}", repr(option), "an option of its card", suggestion(option, options))
        for option in entry.options
        if option not in options
    ]


def _self_supervised_problems(where: str, config: Config) -> list[Problem]:
    """Problems of the self-supervised objectives: names, options, and training that nothing would use."""
    place, downstream = f"{where}: upstream.self_supervised", config.downstream
    used = {item.name for item in downstream.initialisations if item.file is None} if downstream else set()
    problems = []
    for entry in config.upstream.self_supervised:
        expected = "the name of an objective"
        problems += _entry_problems(
            where, entry, config.objective_cards, key="upstream.self_supervised", expected=expected
        )
        if entry.key not in used:
            fix = f"add {entry.key} to downstream.initialisations, or remove it"
            problems.append(Problem(place, f"{entry.key}, from which nothing starts", "an initialisation", fix))
    card = config.model_cards.get(downstream.model.name) if downstream else None
    if config.upstream.self_supervised and card and card["backbone"] != "shared":
        found = f"{downstream.model.name} as downstream.model, which has its own backbone"
        problems.append(Problem(place, found, "a network on the shared backbone", "use single_task, or no objectives"))
    return problems


PREDICTION_FIELDS = ("task", "fold", "seed")
COMMAND_FIELDS = ("job", "work", "output", "scope", "fold", "seed")


def _external_problems(where: str, entry: External, config: Config) -> list[Problem]:
    """Problems of an external model: masks or a command, and the fields that each may name."""
    if (entry.predictions is None) == (entry.predict is None):
        fix = "give the folder of masks, or the command that writes them"
        return [Problem(where, "both or neither of predictions and predict", "one of them", fix)]
    if entry.predictions and entry.train:
        return [Problem(f"{where}.train", "a command beside predictions", "predict", "give predict, or no train")]
    problems = []
    for key in ("predictions", "train", "predict"):
        text = getattr(entry, key) or ""
        known = PREDICTION_FIELDS if key == "predictions" else COMMAND_FIELDS
        try:
            named = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        except ValueError as error:
            problems.append(
                Problem(f"{where}.{key}", f"{text!r} ({error})", "fields in braces", "write {{ for a brace")
            )
            continue
        problems += [
            Problem(f"{where}.{key}", f"{{{name}}}", f"one of {', '.join(known)}", suggestion(name, known))
            for name in sorted(named - set(known))
        ]
        several = {"task": len(entry.tasks or config.upstream.tasks), "fold": len(config.data.folds)}
        problems += [
            Problem(f"{where}.predictions", f"no {{{name}}} in {text!r}", f"a folder for each {name}", "name it")
            for name, count in several.items()
            if key == "predictions" and text and count > 1 and name not in named
        ]
    return problems


def _network_problems(where: str, network: Network) -> list[Problem]:
    problems = []
    if len(network.conv_kernels_zyx) != len(network.pool_kernels_zyx) + 1:
        problems.append(
            Problem(
                f"{where}: network.conv_kernels_zyx",
                f"{len(network.conv_kernels_zyx)} kernels",
                f"{len(network.pool_kernels_zyx) + 1}, one more than pool_kernels_zyx",
                "add or remove a kernel",
            )
        )
    even = [kernel for kernel in network.conv_kernels_zyx if any(size % 2 == 0 for size in kernel)]
    if even:
        key = f"{where}: network.conv_kernels_zyx"
        problems.append(
            Problem(key, f"{list(even[0])}", "odd sizes, which keep the grid", "use 1 or 3 along each axis")
        )
    factors = [math.prod(kernel[axis] for kernel in network.pool_kernels_zyx) for axis in range(3)]
    if list(network.patch_size_zyx) == factors:
        key, fix = f"{where}: network.patch_size_zyx", "double one axis, or pool once less"
        problems.append(Problem(key, f"{factors}, pooled to one position", "at least two, to normalise over them", fix))
    for letter, size, factor in zip("zyx", network.patch_size_zyx, factors, strict=True):
        if size < factor or size % factor:
            problems.append(
                Problem(
                    f"{where}: network.patch_size_zyx",
                    f"{size} along {letter}",
                    f"a positive multiple of {factor}",
                    f"try {max(factor, round(size / factor) * factor)}",
                )
            )
    return problems


def _metric_problems(where: str, config: Config) -> list[Problem]:
    problems = [
        Problem(f"{where}: metrics", repr(name), "a metric", suggestion(name, METRIC_NAMES))
        for name in config.metrics
        if name not in METRIC_NAMES
    ]
    for name, policy in config.policies.items():
        if name not in METRIC_NAMES:
            problems.append(Problem(f"{where}: policies", repr(name), "a metric", suggestion(name, METRIC_NAMES)))
        problems += [
            Problem(f"{where}: policies.{name}", repr(status), "a status", suggestion(status, POLICY_STATUSES))
            for status in policy
            if status not in POLICY_STATUSES
        ]
    return problems


def schema() -> dict:
    """Return the JSON schema of the config, as written to config/schema.json."""
    return Config.model_json_schema()
