"""The writer of run.json: what one finished run has to say beside its score rows (model: core.run_record)."""

from __future__ import annotations

import csv
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from models.titles import title_for
from segbench.core.case import read_manifest
from segbench.core.errors import RunFailed, in_words, input_error, short
from segbench.core.files import sha256_of
from segbench.core.paths import OUTCOME, TRAINING_LOG, WEIGHTS, RunPaths, preprocessed_name
from segbench.core.provenance import commit, content_hash, host, versions
from segbench.core.run_record import (
    SYNTHETIC_NOTICE,
    Attempt,
    Audit,
    Budget,
    Curve,
    Finding,
    InferenceSettings,
    JobRecord,
    Method,
    PromptSimilarity,
    Provenance,
    RunRecord,
    ScoredStructure,
    ScoredTask,
    SkippedCell,
    StatisticsSettings,
    ValidationDice,
    WeightsMatch,
)
from segbench.core.task import Task
from segbench.core.vocabulary import EQUAL, EXPERIMENTS, NO_RECIPE, SCRATCH, SCRATCH_COMBINED
from segbench.data.preprocessing_recipes import preprocessing_recipe
from segbench.data.preprocessing_words import described
from segbench.data.presence import expected_count
from segbench.experiment import jobs
from segbench.experiment.config import Config, External, ModelEntry
from segbench.experiment.config.training import recipe_text
from segbench.experiment.fidelity import fidelity
from segbench.experiment.held_out import held_out_cases
from segbench.experiment.splits import Splits, read_splits
from segbench.experiment.weights import unknown_data
from segbench.stats.missing_masks import handling_of

CURVE_POINTS = 200


def run_record(config: Config) -> RunRecord:
    """Return methods, tasks, jobs, costs and provenance of a finished run, whose scores.csv is already written.

    Raises:
        RunFailed: the cells were trained by different versions of the training code, and config does not allow it.
        InputError: an outcome file is missing or is not one.
    """
    paths = RunPaths(config.run)
    splits = read_splits(paths.splits)
    dump = config.model_dump(mode="json")
    records = [_job_record(config, paths, job) for job in jobs.all_jobs(config)]
    _refuse_mixed_code(config, records)
    return RunRecord(
        run=config.run,
        description=config.description,
        synthetic=config.synthetic,
        protocol=_protocol_text(config),
        config_sha256=content_hash(dump),
        scores_sha256=sha256_of(paths.scores),
        provenance=Provenance(commit=commit(), versions=versions(), host=host(), **_times(records)),
        methods=tuple(_methods(config)),
        self_supervised=tuple(_objective(config, entry) for entry in config.upstream.self_supervised),
        tasks=tuple(_tasks(config, splits)),
        jobs=tuple(records),
        missing_masks={metric: dict(handling_of(metric, config.missing_masks)) for metric in config.metrics},
        statistics=StatisticsSettings(decision_rule=config.statistics.decision_rule),
        identities=jobs.made_identities(config),
        skipped=tuple(
            SkippedCell(
                experiment=job.experiment,
                model=job.model,
                initialisation=job.initialisation,
                recipe=job.recipe,
                task=task.name,
                reason=reason,
            )
            for job, task, reason in jobs.skipped_cells(config)
        ),
        audit=_audit(paths, splits),
        phases=_phases(config, paths, records),
        wall_seconds=_wall_seconds(records),
        inference=InferenceSettings(step=config.inference.step, mirror_axes=tuple(config.inference.mirror_axes)),
        budget=Budget(
            iterations_per_task=config.training.iterations_per_task,
            downstream_iterations_per_task=config.training_of("downstream").iterations_per_task,
            batch_size=config.training.batch_size,
            patch_size_zyx=tuple(config.network.patch_size_zyx),
        ),
        notices=tuple(_notices(config, paths)),
    )


def _protocol_text(config: Config) -> str:
    """Return the protocol's name, with the tasks that follow another one."""
    others = [f"{name} for {task}" for task, name in config.data.task_protocols.items() if name != config.data.protocol]
    return ", ".join([config.data.protocol, *others])


def _audit(paths: RunPaths, splits: Splits) -> Audit:
    """Return what the leak audit compared and found, and how lists were repaired."""
    try:
        with open(paths.audit, newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            findings = tuple(Finding.model_validate(row) for row in reader)
            found = "" if reader.fieldnames == list(Finding.model_fields) else f"columns {reader.fieldnames}"
    except (OSError, ValueError) as error:
        found = short(error)
    if found:
        fix = "delete it and run the workflow again"
        raise input_error(paths.audit, found=found, expected="the findings as the leak audit wrote them", fix=fix)
    return Audit(cases=len(splits.cases()), findings=findings, changes=tuple(splits.changes))


def _job_record(config: Config, paths: RunPaths, job: jobs.Job) -> JobRecord:
    trained = _outcome(paths.train(job.id)) if jobs.is_trained(config, job) else {}
    evaluated = {} if job.self_supervised else _outcome(paths.evaluate(job.id))
    curve = _curve(paths.train(job.id) / TRAINING_LOG) if trained.get("status") == "ok" else None
    try:
        return _record_of(config, job, trained, evaluated, curve)
    except (ValueError, TypeError, AttributeError) as error:
        where = " or ".join(str(folder(job.id) / OUTCOME) for folder in (paths.train, paths.evaluate))
        fix = "delete it and run the workflow again"
        raise input_error(where, found=short(error), expected="outcomes as segbench wrote them", fix=fix) from error


def _record_of(
    config: Config, job: jobs.Job, trained: dict[str, Any], evaluated: dict[str, Any], curve: Curve | None
) -> JobRecord:
    outcomes = [record for record in (trained, evaluated) if record]
    failed = next((record for record in outcomes if record.get("status", "ok") != "ok"), None)
    train_seconds = trained.get("train_seconds", 0.0)
    match, similarity, validation = (trained.get(name) for name in ("match", "prompt_similarity", "validation"))
    return JobRecord(
        job=job.id,
        experiment=job.experiment,
        model=job.model,
        initialisation=job.initialisation,
        recipe=job.recipe,
        batch_size=_batch_size(config, job),
        scope=job.scope,
        fold=job.fold,
        seed=job.seed,
        status="failed" if failed else "ok",
        reason=failed["reason"] if failed else "",
        train_seconds=train_seconds,
        predict_seconds=evaluated.get("predict_seconds", 0.0),
        score_seconds=evaluated.get("score_seconds", 0.0),
        process_seconds=round(_seconds(trained, at_least=train_seconds) + _seconds(evaluated), 3),
        iterations=trained.get("iterations", 0),
        parameters=trained.get("parameters", 0),
        forward_flops=trained.get("forward_flops", 0),
        training_code=trained.get("training_code"),
        model_code=trained.get("model_code"),
        match=WeightsMatch.model_validate_json(json.dumps(match)) if match else None,
        device=trained.get("device", "cpu"),
        attempts=tuple(map(Attempt.model_validate, trained.get("attempts", ()))),
        started=min(record["started"] for record in outcomes),
        finished=max(record["finished"] for record in outcomes),
        curve=curve,
        prompt_similarity=PromptSimilarity.model_validate_json(json.dumps(similarity)) if similarity else None,
        tuned_learning_rate=trained.get("tuning", {}).get("learning_rate"),
        validation=ValidationDice.model_validate_json(json.dumps(validation)) if validation else None,
    )


def _batch_size(config: Config, job: jobs.Job) -> int:
    if job.control or job.external:
        return 0
    return config.training_of(job.experiment, job.entry(config)).batch_size


def _seconds(outcome: Mapping[str, Any], *, at_least: float = 0.0) -> float:
    """Return the seconds of a job's processes; a resumed job trained longer than its last attempt, which was timed."""
    return max(outcome["finished"] - outcome["started"], at_least) if outcome else 0.0


def _curve(path: Path) -> Curve | None:
    """Return iteration and loss of a training log as at most CURVE_POINTS means of consecutive lines, None without."""
    if not path.exists():  # an external model trains without one
        return None
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            lines = [(float(row["iteration"]), float(row["loss"])) for row in csv.DictReader(stream)]
        if not lines:
            raise ValueError("no line")
    except (ValueError, TypeError, KeyError) as error:
        fix = f"restore it, or delete {path.parent / WEIGHTS} to train again"
        raise input_error(path, found=short(error), expected="a training log as segbench wrote it", fix=fix) from error
    together = max(1, math.ceil(len(lines) / CURVE_POINTS))
    blocks = [lines[first : first + together] for first in range(0, len(lines), together)]
    iteration, loss = (tuple(round(statistics.fmean(line[i] for line in block), 6) for block in blocks) for i in (0, 1))
    return Curve(iteration=iteration, loss=loss)


def _outcome(folder: Path) -> dict[str, Any]:
    """Return outcome.json of a job; raises `InputError` when it is missing, truncated or without times."""
    path = folder / OUTCOME
    try:
        outcome = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in ("status", "reason", "started", "finished") if key not in outcome]
        found = f"no key {', '.join(missing)}" if missing else ""
        if not missing and not all(isinstance(outcome[key], int | float) for key in ("started", "finished")):
            found = "times that are no numbers"
    except (OSError, ValueError, TypeError) as error:
        found = in_words(error)
    if found:
        raise input_error(
            path, found=found, expected="the outcome of a job", fix="delete it and run the workflow again"
        )
    return outcome


def _refuse_mixed_code(config: Config, records: Iterable[JobRecord]) -> None:
    records = list(records)
    shared = {record.training_code for record in records if record.training_code}
    own = {(config.model_entry(record.model).name, record.model_code) for record in records if record.model_code}
    mixed = [name for name, count in Counter(name for name, _ in own).items() if count > 1]
    if (len(shared) > 1 or mixed) and not config.allow_mixed_training_code:
        what = f"{len(shared)} versions of the training code" if len(shared) > 1 else f"two versions of {mixed[0]}"
        raise RunFailed(
            f"the cells of this run were trained by {what}; delete "
            f"results/{config.run}/train to train all again, or set allow_mixed_training_code: true"
        )


def _methods(config: Config) -> list[Method]:
    methods = [_method(config, "upstream", entry, jobs.RANDOM) for entry in config.upstream.models]
    methods += [_control(config, "upstream", name) for name in config.upstream.controls]
    methods += [_external(entry) for entry in config.upstream.external]
    if config.downstream:
        several = len({entry.key for entry in config.downstream.models}) > 1
        for _, entry, items in config.downstream.lists():
            for item in items:
                method = _method(config, "downstream", entry, item.name)
                start = _transfer_title(config, item.name)
                if item.upstream_recipe not in (None, EQUAL):
                    start += f" ({item.upstream_recipe} recipe)"
                start += " (training data unknown)" if unknown_data(config, item) else ""
                title = f"{method.title}: {start[0].lower()}{start[1:]}" if several else start
                title += _preprocessing_names(config, entry)
                methods.append(method.model_copy(update={"title": title, "kind": "transfer"}))
        methods += [_control(config, "downstream", name) for name in config.downstream.controls]
    return methods


def _method(config: Config, experiment: str, entry: ModelEntry, initialisation: str) -> Method:
    card, options = config.card(entry.key), entry.options
    level, differs = fidelity(config, experiment, entry)
    return Method(
        experiment=experiment,
        model=entry.key,
        initialisation=initialisation,
        recipe=entry.recipe_name,
        recipe_text=recipe_text(config.training_of(experiment, entry)),
        title=title_for(card, options),
        kind=card.get("kind", "self_supervised"),
        fidelity=level,
        differs=differs,
        options_text=", ".join(f"{name} = {value}" for name, value in options.items()),
        citation=card["citation"],
        url=card["url"],
        variant_of=_variant_of(config, experiment, entry),
        preprocessing=_preprocessing_text(config, entry) if experiment == "downstream" else "",
    )


def _preprocessed_otherwise(config: Config, entry: ModelEntry) -> list[Task]:
    """Return the downstream tasks that an entry sees by another preprocessing recipe than their own."""
    seen = (config.task_of(entry, task) for task in config.tasks_of("downstream"))
    return [task for task in seen if config.own_preprocessing(task)]


def _preprocessing_names(config: Config, entry: ModelEntry) -> str:
    """Return what a title says of preprocessing that is not the tasks' own; empty where it is."""
    names = dict.fromkeys(task.preprocessing for task in _preprocessed_otherwise(config, entry))
    return f" (preprocessing {' and '.join(names)})" if names else ""


def _preprocessing_text(config: Config, entry: ModelEntry) -> str:
    """Return how an entry's images are preprocessed where that is not the tasks' own recipe, task by task."""
    texts = []
    for task in _preprocessed_otherwise(config, entry):
        recipe = preprocessing_recipe(task, config.preprocessing_recipes)
        texts.append(f"{task.title}: {recipe.name}, {described(recipe, task)}")
    return "; ".join(texts)


def _variant_of(config: Config, experiment: str, entry: ModelEntry) -> str:
    """Return the id of the entry of the same network and recipe with the default options; '' for that entry itself."""
    if experiment == "upstream":
        entries = config.upstream.models
    else:
        entries = config.downstream.models if config.downstream else ()
    same = [other for other in entries if _apart_from_options(other) == _apart_from_options(entry)]
    default = next((other for other in same if not config.changed_options(other)), None)
    return "" if default is None or default.key == entry.key else default.key


def _apart_from_options(entry: ModelEntry) -> dict[str, Any]:
    return entry.model_dump(exclude={"id", "options", "initialisations"})


def _control(config: Config, experiment: str, name: str) -> Method:
    card = config.model_cards[name]
    return Method(
        experiment=experiment,
        model=name,
        initialisation=jobs.NOT_TRAINED,
        recipe=NO_RECIPE,
        recipe_text="",
        title=title_for(card, {}),
        kind=card["kind"],
        fidelity=card["fidelity"],
        options_text="",
        citation=card["citation"],
        url=card["url"],
    )


def _objective(config: Config, entry: ModelEntry) -> Method:
    method = _method(config, "upstream", entry, jobs.RANDOM)
    return method.model_copy(update={"title": _transfer_title(config, entry.key)})


def _external(entry: External) -> Method:
    how = "given masks" if entry.predictions else "trained by its own command" if entry.train else "its own command"
    how += ", told by texts" if entry.prompts else ""
    how += f", {entry.support_cases} support cases per task" if entry.support_cases else ""
    return Method(
        experiment="upstream",
        model=entry.name,
        initialisation=jobs.NOT_TRAINED,
        recipe=NO_RECIPE,
        recipe_text="",
        title=entry.title,
        kind="external",
        fidelity="external",
        options_text=how,
        citation=entry.citation,
        url=entry.url,
    )


def _transfer_title(config: Config, name: str) -> str:
    if name == SCRATCH:
        return "From scratch"
    if name == SCRATCH_COMBINED:
        return "From scratch, combined budget"
    if config.is_self_supervised(name):
        return f"Self-supervised: {title_for(config.card(name), config.model_entry(name).options)}"
    source = next((entry for entry in config.upstream.models if entry.key == name), None)
    return f"Pre-trained: {config.model_cards[source.name]['title'] if source else name}"


def _tasks(config: Config, splits: Splits) -> list[ScoredTask]:
    first = config.data.folds[0]
    return [
        _task(config, splits, experiment, task, held_out=len(held_out[task.name]))
        for experiment in EXPERIMENTS
        for held_out in [held_out_cases(config, splits, experiment, first)]
        for task in config.tasks_of(experiment)
    ]


def _task(config: Config, splits: Splits, experiment: str, task: Task, *, held_out: int) -> ScoredTask:
    card = config.dataset_cards[task.name]
    return ScoredTask(
        name=task.name,
        title=task.title,
        experiment=experiment,
        modality=task.modality,
        structures=tuple(
            ScoredStructure(name=structure.name, lesion=structure.lesion, tolerance_mm=structure.tolerance_mm)
            for structure in task.structures
        ),
        n_test=sum(len(splits.of(fold, task.name).test) for fold in config.data.folds),
        n_train=len(splits.of(config.data.folds[0], task.name).train) - held_out,
        n_validation=held_out,
        spacing_is_nominal=task.spacing_is_nominal,
        synthetic=task.synthetic,
        licence=card["licence"],
        citation=card["citation"],
    )


def _times(records: Iterable[JobRecord]) -> dict[str, str]:
    clock = "%Y-%m-%d %H:%M:%S UTC"
    return {
        "started": time.strftime(clock, time.gmtime(min(record.started for record in records))),
        "finished": time.strftime(clock, time.gmtime(max(record.finished for record in records))),
    }


def _wall_seconds(records: Iterable[JobRecord]) -> float:
    """Return the seconds in which at least one job of the run was at work.

    Days between a first run and an added seed do not count. Earlier attempts of a resumed job, whose clock times are
    not kept, are added as if nothing else had run beside them.
    """
    covered, end = 0.0, -math.inf
    for record in sorted(records, key=lambda record: record.started):
        covered += max(0.0, record.finished - max(record.started, end))
        end = max(end, record.finished)
    earlier = sum(max(0.0, record.process_seconds - (record.finished - record.started)) for record in records)
    return round(covered + earlier, 1)


def _phases(config: Config, paths: RunPaths, records: Iterable[JobRecord]) -> dict[str, float]:
    """Return process seconds by phase, of the jobs and tasks of this run only.

    A folder of results may hold benchmark files of jobs that config no longer asks for; they do not count. Start-up
    holds what a training or evaluation process does beside training, inference and scoring.
    """
    records = list(records)
    validation = {record.job: record.validation.seconds for record in records if record.validation}
    phases = {
        "training": sum(record.train_seconds for record in records),
        "inference": sum(record.predict_seconds for record in records),
        "scoring": sum(record.score_seconds for record in records),
    }
    start_up = sum(
        max(
            0.0,
            _benchmark_seconds(paths.benchmark("train", record.job))
            - record.train_seconds
            - validation.get(record.job, 0.0),
        )
        + max(
            0.0,
            _benchmark_seconds(paths.benchmark("evaluate", record.job)) - record.predict_seconds - record.score_seconds,
        )
        for record in records
    )
    tasks = [task.name for task in config.tasks]
    others = [
        preprocessed_name(task.name, config.own_preprocessing(task)) for task in jobs.preprocessed_by_entries(config)
    ]
    once = {"audit": ["findings"], "ingest": tasks, "preprocess": tasks + others}
    if config.data.phantom:
        once["phantom"] = ["world"]
    for rule, names in once.items():
        phases[rule] = sum(_benchmark_seconds(paths.benchmark(rule, name)) for name in names)
    phases["start-up of training and evaluation"] = start_up
    if validation:
        phases["validation"] = sum(validation.values())
    return {name: round(seconds, 1) for name, seconds in phases.items()}


def _benchmark_seconds(path: Path) -> float:
    """Return the seconds in a benchmark file of Snakemake; 0 without one, as for a job that made nothing anew."""
    if not path.exists():
        return 0.0
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            return sum(float(row["s"]) for row in csv.DictReader(stream, delimiter="\t"))
    except (ValueError, TypeError, KeyError) as error:
        fix = "delete it: its seconds are then left out of the phases"
        raise input_error(path, found=short(error), expected="a benchmark file of Snakemake", fix=fix) from error


def _notices_of_data(paths: RunPaths, task: Task) -> list[str]:
    """Return what ingest said of a task's data; raises `InputError` when the file is missing or damaged."""
    path = paths.notices(task.name)
    try:
        return [str(notice) for notice in list(json.loads(path.read_text(encoding="utf-8")))]
    except (OSError, ValueError, TypeError) as error:
        fix = f"delete {paths.manifest(task.name)} and run the workflow again"
        raise input_error(path, found=in_words(error), expected="the notices that ingest wrote", fix=fix) from error


def _notices(config: Config, paths: RunPaths) -> list[str]:
    notices = []
    if config.synthetic:
        notices.append(SYNTHETIC_NOTICE)
    nominal = [task.title for task in config.tasks if task.spacing_is_nominal]
    if nominal:
        notices.append(f"The spacing of {', '.join(nominal)} is nominal, so distances in mm are not defined there.")
    for task in config.tasks:
        if not task.synthetic:
            notices += [f"{task.title}: {notice}." for notice in _notices_of_data(paths, task)]
    return notices + [
        f"Only {found} of {expected} labelled cases of {config.task(name).title}."
        for name in config.data.accept_partial
        for expected in [expected_count(config.dataset_cards[name])]
        for found in [len(read_manifest(paths.manifest(name)))]
        if found < expected
    ]
