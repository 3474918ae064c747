"""From what the pieces of a run cost to its jobs: seconds of each, what waits for what, and the time of the whole."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from segbench.cli._forecast_costs import job_windows, mirrored_predictions
from segbench.core.paths import preprocessed_name
from segbench.core.vocabulary import EQUAL

if TYPE_CHECKING:
    from segbench.core.case import Case
    from segbench.core.task import Task
    from segbench.experiment.config import Config
    from segbench.experiment.jobs import Job

DATA, CONTROLS = "data", "controls"


@dataclass(frozen=True)
class ForecastJob:
    """A job of the workflow: its name, the row of the table that counts it, its seconds, and the jobs it waits for."""

    name: str
    row: str
    seconds: float
    after: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Counts:
    """Cases of a task: all, and those tested in a fold; `cases` are the tested ones where they are known."""

    total: int
    test: int
    cases: tuple[Case, ...] | None = None


def distinct_networks(config: Config) -> list[list[Job]]:
    """Return the trained jobs of networks, in groups of the same model, recipe, experiment, size, images and labels."""
    from segbench.experiment.jobs import training_jobs

    groups: dict[tuple[Any, ...], list[Job]] = {}
    for job in training_jobs(config):
        if job.external:
            continue
        shapes = tuple(
            (config.own_preprocessing(task), task.num_channels, task.num_classes) for task in job.tasks(config)
        )
        size = repr(config.network_of(job.experiment, job.entry(config), job.scope))
        groups.setdefault((job.model, job.recipe, job.experiment, size, shapes), []).append(job)
    return list(groups.values())


def row_of(job: Job) -> str:
    """Return the row of the table that counts a job: its experiment, model and recipe."""
    return f"{job.experiment} {job.model}" + ("" if job.recipe == EQUAL else f" ({job.recipe})")


def counts_of(config: Config, task: str, fold: int, known: int) -> Counts:
    """Return the cases of a task: from manifest and splits where they are there, else by the protocol's fraction.

    Args:
        config: config of the run.
        task: name of the task.
        fold: fold that is tested.
        known: cases that the data set has; 0 where it is not there.
    """
    from segbench.core.case import read_manifest
    from segbench.core.paths import RunPaths
    from segbench.experiment.splits import read_splits

    paths = RunPaths(config.run)
    if paths.manifest(task).exists() and paths.splits.exists():
        cases = {case.case_id: case for case in read_manifest(paths.manifest(task))}
        tested = tuple(cases[name] for name in read_splits(paths.splits).of(fold, task).test if name in cases)
        return Counts(len(cases), len(tested), tested)
    data = config.data
    fraction = 1 / data.fold_count if data.protocol_of(task) == "kfold" else data.test_fraction
    return Counts(known, max(1, round(fraction * known)) if known else 0)


def data_jobs(config: Config, costs: Mapping[str, Any]) -> Iterator[ForecastJob]:
    """Yield the jobs before the first training.

    Args:
        config: config of the run.
        costs: what `measured_data` found, with `starts`: command -> seconds of its start.
    """
    from segbench.data.preprocessing_recipes import preprocessing_recipe
    from segbench.experiment.jobs import folds_to_split, preprocessed_by_entries

    starts, tasks = costs["starts"], [task for task in config.tasks if costs["tasks"][task.name]["there"]]
    folds = len(folds_to_split(config.data))
    count = {task.name: counts_of(config, task.name, config.data.folds[0], _known(costs, task.name)) for task in tasks}
    world: tuple[str, ...] = ()
    if config.data.phantom is not None:
        world = ("phantom world",)
        cases = sum(count[task.name].total for task in tasks)
        yield ForecastJob(world[0], DATA, starts["preprocess"] + cases * costs["phantom_seconds"])
    for task in tasks:
        seconds = starts["ingest"] + count[task.name].total * costs["tasks"][task.name]["ingest_seconds"]
        yield ForecastJob(f"ingest {task.name}", DATA, seconds, world)
    yield ForecastJob("split splits", DATA, starts["ingest"], tuple(f"ingest {task.name}" for task in tasks))
    seconds = sum(count[task.name].total * costs["tasks"][task.name]["audit_seconds"] for task in tasks)
    yield ForecastJob("audit findings", DATA, starts["audit"] + seconds, ("split splits",))
    for task in (*tasks, *(task for task in preprocessed_by_entries(config) if task.name in count)):
        recipe = preprocessing_recipe(task, config.preprocessing_recipes)
        times = folds if recipe.needs_training_cases(task) else 1
        cost = costs["tasks"][task.name]["preprocess_seconds"]
        seconds = starts["preprocess"] + times * count[task.name].total * cost
        yield ForecastJob(f"preprocess {_preprocessed(config, task)}", DATA, seconds, ("audit findings",))


def _preprocessed(config: Config, task: Task) -> str:
    return preprocessed_name(task.name, config.own_preprocessing(task))


def _known(costs: Mapping[str, Any], task: str) -> int:
    return int(costs["tasks"][task]["count"])


def network_jobs(
    config: Config, group: Sequence[Job], costs: Mapping[str, Any], data: Mapping[str, Any], start_evaluation: float
) -> Iterator[ForecastJob]:
    """Yield training and evaluation of networks of equal cost.

    Args:
        config: config of the run.
        group: the jobs.
        costs: what `measured_network` found for the first of them, with `start_seconds`.
        data: what `measured_data` found.
        start_evaluation: seconds that the start of an evaluation takes.
    """
    for job in group:
        tasks, row = job.tasks(config), row_of(job)
        source = job.source(config)
        after = tuple(f"preprocess {_preprocessed(config, task)}" for task in tasks) + (
            (f"train {source.id}",) if source else ()
        )
        seconds = steps_of(config, job) * costs["step_seconds"]
        saves = seconds / config.training_of(job.experiment, job.entry(config), job.initialisation).save_every_seconds
        train = costs["start_seconds"] + seconds + int(saves) * costs["save_seconds"]
        if job.self_supervised:
            yield ForecastJob(f"train {job.id}", row, train, after)
            continue
        seconds = start_evaluation
        for task in tasks:
            counts = counts_of(config, task.name, job.fold, _known(data, task.name))
            cost = costs["tasks"].get(task.name) or _of_equal_shape(config, job, task, group[0], costs)
            train += validation_seconds(config, job, task, counts, cost["predict_seconds"])
            size = counts.test
            if counts.cases:
                size = job_windows(config, job, task.name, counts.cases) / max(1, cost["windows"])
            seconds += size * cost["predict_seconds"] + counts.test * data["tasks"][task.name]["score_seconds"]
        yield ForecastJob(f"train {job.id}", row, train, after)
        yield ForecastJob(f"evaluate {job.id}", row, seconds, (f"train {job.id}",))


def validation_seconds(config: Config, job: Job, task: Task, counts: Counts, predict_seconds: float) -> float:
    """Return what the Dice of held-out cases of a task, and of as many others at the end, costs; 0 without these.

    A held-out case is as large as a tested one, whose prediction takes `predict_seconds`; it is predicted without
    mirroring, in windows that overlap by half, whose number grows with the third power of their density.
    """
    settings = config.training_of(job.experiment, job.entry(config), job.initialisation)
    measured = []
    if settings.validation_fraction:
        points = min(settings.validation_points, steps_of(config, job))
        measured.append((settings.validation_fraction, points + 1))  # and once as many cases that were trained on
    if settings.tuning is not None:
        measured.append((settings.tuning.validation_fraction, len(settings.tuning.learning_rates)))
    training = counts.total - counts.test
    cases = sum(times * max(1, int(fraction * training)) for fraction, times in measured) if counts.total else 0
    mirrors = mirrored_predictions(config, task, mirror_sides=settings.mirror_sides)
    return cases * predict_seconds / mirrors * (2 * config.inference.step) ** 3


def _of_equal_shape(config: Config, job: Job, task: Any, measured: Job, costs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the cost of a task that was not measured: that of the task in the same position of the measured job."""
    position = job.tasks(config).names.index(task.name)
    found: Mapping[str, Any] = costs["tasks"][measured.tasks(config).names[position]]
    return found


def steps_of(config: Config, job: Job) -> int:
    """Return the steps of a training job, those of its trials included."""
    settings = config.training_of(job.experiment, job.entry(config), job.initialisation)
    steps, tuning = settings.iterations_per_task, settings.tuning
    if tuning is not None:
        steps += len(tuning.learning_rates) * tuning.iterations_per_task
    return len(job.tasks(config)) * steps


def control_jobs(
    config: Config, costs: Mapping[str, Mapping[str, float]], data: Mapping[str, Any]
) -> Iterator[ForecastJob]:
    """Yield the evaluations of controls; costs: experiment and control -> start_seconds and case_seconds."""
    from segbench.experiment.jobs import control_jobs as controls

    for job in controls(config):
        cost, tasks = costs[f"{job.experiment} {job.model}"], list(job.tasks(config))
        cases = sum(counts_of(config, task.name, job.fold, _known(data, task.name)).test for task in tasks)
        after = tuple(f"preprocess {task.name}" for task in tasks)
        seconds = cost["start_seconds"] + cases * cost["case_seconds"]
        yield ForecastJob(f"evaluate {job.id}", CONTROLS, seconds, after)


def makespan(jobs: Sequence[ForecastJob], processes: int) -> float:
    """Return the seconds until the last of these jobs ends when as many run at a time, each as early as it can.

    A job waits for those of its `after` that are among the jobs. Of the jobs that can start, the first of the list
    does.

    Args:
        jobs: each after those it waits for.
        processes: how many run at a time.
    """
    position = {job.name: number for number, job in enumerate(jobs)}
    needs = [{position[name] for name in job.after if name in position} for job in jobs]
    waiting, running, now = list(range(len(jobs))), [], 0.0
    done: set[int] = set()
    while waiting or running:
        for number in [number for number in waiting if needs[number] <= done]:
            if len(running) == processes:
                break
            heapq.heappush(running, (now + jobs[number].seconds, number))
            waiting.remove(number)
        assert running, "a job waits for one that waits for it"
        now, ended = heapq.heappop(running)
        done.add(ended)
    return now


def row_sums(jobs: Iterable[ForecastJob]) -> dict[str, dict[str, float]]:
    """Return row -> hours by command, and the number of jobs of the row."""
    rows: dict[str, dict[str, float]] = {}
    for job in jobs:
        row = rows.setdefault(job.row, {"jobs": 0, "train": 0.0, "evaluate": 0.0, "data": 0.0})
        command = job.name.partition(" ")[0]
        row["jobs"] += 1
        row[command if command in row else "data"] += job.seconds / 3600
    return rows
