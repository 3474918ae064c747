"""Which jobs a config asks for, and which score rows they expect.

One training job is one (model, recipe, scope, fold, seed): scope is `joint` for universal models, a task for per-task
ones, and a downstream task for transfer. A self-supervised objective is a training job instead of a model, over
all upstream tasks, whose weights start downstream jobs; it predicts nothing. Every other training job and every control
has one evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from segbench.core import cards
from segbench.core.errors import Problem, raise_problems
from segbench.core.paths import OUTCOME, RunPaths
from segbench.core.task import Task, TaskSet
from segbench.core.vocabulary import EQUAL, FROM_SCRATCH, NO_RECIPE
from segbench.experiment import requests
from segbench.experiment.config import Config, Data, Initialisation, ModelEntry
from segbench.experiment.config.downstream import DownstreamModel
from segbench.experiment.splits import Splits

JOINT = "joint"
RANDOM = "random"
NOT_TRAINED = "none"


@dataclass(frozen=True, slots=True)
class Job:
    """One (experiment, model, initialisation, recipe, scope, fold, seed).

    `control` jobs are evaluated without training, `self_supervised` jobs trained without evaluation.
    """

    experiment: str
    model: str
    initialisation: str
    scope: str
    fold: int
    seed: int
    recipe: str = EQUAL
    control: bool = False
    external: bool = False
    self_supervised: bool = False

    @property
    def id(self) -> str:
        """Folder name of the job; the equal recipe is not named in it."""
        name = f"{self.experiment}.{self.model}.{self.initialisation}.{self.scope}.f{self.fold}.s{self.seed}"
        return name if self.recipe in (EQUAL, NO_RECIPE) else f"{name}.{self.recipe}"

    def entry(self, config: Config) -> ModelEntry:
        """Return the entry of the config that this job trains."""
        return config.entry_of(self.experiment, self.model, self.recipe)

    def tasks(self, config: Config) -> TaskSet:
        """Tasks that the job trains on and is scored on: those of its scope that the model supports.

        A downstream task has the preprocessing recipe of the job's entry.
        """
        asked = [task for task in config.tasks_of(self.experiment) if self.scope in (JOINT, task.name)]
        if self.control or self.self_supervised:
            return TaskSet(asked)
        served = [task for task in asked if skip_reason(config, self.model, task) is None]
        if self.experiment != "downstream":
            return TaskSet(served)
        return TaskSet(config.task_of(self.entry(config), task) for task in served)

    def source(self, config: Config) -> Job | None:
        """The upstream job whose weights start this one, if any."""
        if self.experiment != "downstream" or self.control:
            return None
        item = self.weights(config)
        if item.name in FROM_SCRATCH or item.file is not None:
            return None
        trained = [entry.recipe_name for entry in config.entries_of("upstream") if entry.key == item.name]
        return Job(
            "upstream",
            item.name,
            RANDOM,
            JOINT,
            self.fold,
            self.seed,
            item.upstream_recipe or trained[0],
            self_supervised=config.is_self_supervised(item.name),
        )

    def weights(self, config: Config) -> Initialisation:
        """The entry among the initialisations of this job's network that starts it."""
        entry = self.entry(config)
        assert config.downstream is not None, "only a downstream job has them"
        assert isinstance(entry, DownstreamModel), "a downstream job has a downstream entry"
        return next(item for item in config.downstream.initialisations_of(entry) if item.name == self.initialisation)


def skip_reason(config: Config, model: str, task: Task) -> str | None:
    """Return why a model cannot serve a task, from its card or its entry as an external one, or None."""
    outside = next((entry for entry in config.upstream.external if entry.name == model), None)
    if outside is not None:
        return None if task.name in (outside.tasks or config.upstream.tasks) else "not among the tasks it is given for"
    return cards.supports(config.model_cards[config.model_entry(model).name], task)


def _scopes(config: Config, entry: ModelEntry) -> list[str]:
    tasks = config.tasks_of("upstream")
    if config.model_cards[entry.name]["kind"] == "universal":
        return [JOINT]
    return [task.name for task in tasks if skip_reason(config, entry.key, task) is None]


def preprocessed_by_entries(config: Config) -> list[Task]:
    """Return the tasks as entries of downstream see them by another preprocessing recipe than their own, each once."""
    seen = [task for job in training_jobs(config) if job.experiment == "downstream" for task in job.tasks(config)]
    return list(dict.fromkeys(task for task in seen if config.own_preprocessing(task)))


def external_jobs(config: Config) -> list[Job]:
    """Return the jobs of external models; masks that are given serve one seed unless they name it."""
    return [
        Job("upstream", entry.name, NOT_TRAINED, scope, fold, seed, NO_RECIPE, external=True)
        for entry in config.upstream.external
        for fold in config.data.folds
        for seed in (config.seeds if entry.predict or "{seed}" in (entry.predictions or "") else config.seeds[:1])
        for scope in ([JOINT] if entry.scope == "joint" else entry.tasks or config.upstream.tasks)
    ]


def mask_folders(config: Config, job: Job) -> dict[str, Path]:
    """Return task -> folder of the masks that were given for a job."""
    text = config.external(job.model).predictions or ""
    return {task.name: Path(text.format(task=task.name, fold=job.fold, seed=job.seed)) for task in job.tasks(config)}


def is_trained(config: Config, job: Job) -> bool:
    """Tell whether a training job comes before the evaluation."""
    return not job.control and not (job.external and config.external(job.model).train is None)


def training_jobs(config: Config) -> list[Job]:
    """Return every training job: per fold and seed objectives, upstream models, downstream; then external ones."""
    jobs = []
    for fold in config.data.folds:
        for seed in config.seeds:
            jobs += [
                Job("upstream", entry.key, RANDOM, JOINT, fold, seed, entry.recipe_name, self_supervised=True)
                for entry in config.upstream.self_supervised
            ]
            jobs += [
                Job("upstream", entry.key, RANDOM, scope, fold, seed, entry.recipe_name)
                for entry in config.upstream.models
                for scope in _scopes(config, entry)
            ]
            jobs += [job for job, task in _downstream_cells(config, fold, seed) if _serves(config, job, task)]
    return jobs + [job for job in external_jobs(config) if is_trained(config, job)]


def _downstream_cells(config: Config, fold: int, seed: int) -> Iterator[tuple[Job, Task]]:
    """Yield a job for each network, initialisation and task of downstream, served or not."""
    for _, entry, items in config.downstream.lists() if config.downstream else ():
        for item in items:
            for task in config.tasks_of("downstream"):
                yield Job("downstream", entry.key, item.name, task.name, fold, seed, entry.recipe_name), task


def _serves(config: Config, job: Job, task: Task) -> bool:
    return skip_reason(config, job.model, task) is None


def control_jobs(config: Config) -> list[Job]:
    """Return one evaluation per control and experiment; controls have no seed of their own."""
    sections = {"upstream": config.upstream, "downstream": config.downstream}
    return [
        Job(experiment, name, NOT_TRAINED, JOINT, fold, config.seeds[0], NO_RECIPE, control=True)
        for experiment, section in sections.items()
        if section
        for name in section.controls
        for fold in config.data.folds
    ]


def evaluation_jobs(config: Config) -> list[Job]:
    """Return every evaluation: trained models, those with given masks, then controls."""
    return [job for job in all_jobs(config) if not job.self_supervised]


def all_jobs(config: Config) -> list[Job]:
    """Return every job: those trained, those with given masks, then controls."""
    given = [job for job in external_jobs(config) if not is_trained(config, job)]
    return training_jobs(config) + given + control_jobs(config)


def skipped_cells(config: Config) -> Iterator[tuple[Job, Task, str]]:
    """Yield (job, task, reason) for every cell that a model cannot fill, by its card."""
    yield from _skipped_external(config)
    for fold in config.data.folds:
        for seed in config.seeds:
            for entry in config.upstream.models:
                universal = config.model_cards[entry.name]["kind"] == "universal"
                for task in config.tasks_of("upstream"):
                    reason = skip_reason(config, entry.key, task)
                    if reason:
                        scope = JOINT if universal else task.name
                        yield Job("upstream", entry.key, RANDOM, scope, fold, seed, entry.recipe_name), task, reason
            for job, task in _downstream_cells(config, fold, seed):
                reason = skip_reason(config, job.model, task)
                if reason:
                    yield job, task, reason


def _skipped_external(config: Config) -> Iterator[tuple[Job, Task, str]]:
    places = {(job.model, job.fold, job.seed, job.scope == JOINT): job for job in external_jobs(config)}
    for (name, _, _, joint), job in places.items():
        for task in config.tasks_of("upstream"):
            reason = skip_reason(config, name, task)
            if reason:
                yield replace(job, scope=JOINT if joint else task.name), task, reason


def expected_keys(config: Config, splits: Splits) -> Iterator[tuple[str, ...]]:
    """Yield the key of every score row that the config expects, as strings in the order of the table."""
    for job in evaluation_jobs(config):
        for task in job.tasks(config):
            yield from row_keys(config, splits, job, task)
    for job, task, _ in skipped_cells(config):
        yield from row_keys(config, splits, job, task)


def row_keys(config: Config, splits: Splits, job: Job, task: Task) -> Iterator[tuple[str, ...]]:
    """Yield the keys of one cell: test cases x structures x metrics."""
    for case in splits.of(job.fold, task.name).test:
        for structure in task.structures:
            for metric in config.metrics:
                yield (
                    job.experiment,
                    job.model,
                    job.initialisation,
                    job.recipe,
                    job.scope,
                    str(job.fold),
                    str(job.seed),
                    config.data.protocol_of(task.name),
                    task.name,
                    task.name,
                    case,
                    structure.name,
                    metric,
                )


def folds_to_split(data: Data) -> tuple[int, ...]:
    """Return the folds that a splits file holds: all that the protocol has, so that adding one changes no file."""
    protocols = {data.protocol, *data.task_protocols.values()}
    return tuple(range(data.fold_count)) if protocols == {"kfold"} else data.folds


def failed_outcomes(config: Config) -> list[dict]:
    """Return the outcome records of all failed training and evaluation jobs; a damaged one is a problem.

    Raises:
        InputError: an outcome is not what segbench wrote.
    """
    paths = RunPaths(config.run)
    candidates: Iterable[Path] = [paths.train(job.id) / OUTCOME for job in training_jobs(config)]
    candidates = [*candidates, *(paths.evaluate(job.id) / OUTCOME for job in evaluation_jobs(config))]
    records = {path: requests.read(path) for path in candidates if path.exists()}
    raise_problems(
        Problem(str(path), "no outcome", "an outcome as segbench wrote it", "run again: the job is done anew")
        for path, record in records.items()
        if not {"status", "job", "command", "reason"} <= record.keys()
    )
    return [record for record in records.values() if record["status"] == "failed"]


def made_identities(config: Config) -> dict[str, str]:
    """Return job -> digests of what its weights and scores were made from, as its outcomes state them."""
    paths, made = RunPaths(config.run), {}
    for job in all_jobs(config):
        found = {
            name: requests.read(folder / OUTCOME).get("identity")
            for name, folder in (("weights", paths.train(job.id)), ("scores", paths.evaluate(job.id)))
        }
        made[job.id] = ", ".join(f"{name} {digest}" for name, digest in found.items() if digest)
    return made
