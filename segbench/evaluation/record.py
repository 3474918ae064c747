"""run.json: what the report needs to know about a run beside its score rows.

The report is rendered from the two files alone and carries both, so nothing that belongs to one machine (folders,
environment, commands) is written here; the resolved config stays in results/.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
import time
from collections import Counter
from pathlib import Path

from models.titles import title_for
from segbench.core.case import read_manifest
from segbench.core.errors import RunFailed
from segbench.core.paths import RunPaths
from segbench.core.provenance import commit, content_hash, host, versions
from segbench.core.task import Task
from segbench.data.presence import expected_count
from segbench.experiment import jobs
from segbench.experiment.config import Config, External
from segbench.experiment.splits import Splits, read_splits
from segbench.stats.aggregate import DEFAULT_POLICIES

CURVE_POINTS = 200


def run_record(config: Config) -> dict:
    """Return methods, tasks, jobs, costs and provenance of a finished run.

    Raises RunFailed when the cells were trained by different versions of the training code, unless config allows it.
    """
    paths = RunPaths(config.run)
    splits = read_splits(paths.splits)
    dump = config.model_dump(mode="json")
    job_records = [_job_record(config, paths, job) for job in jobs.all_jobs(config)]
    _refuse_mixed_code(config, job_records)
    phases = _phases(paths, job_records)
    return {
        "run": config.run,
        "description": config.description,
        "synthetic": config.synthetic,
        "protocol": _protocol_text(config),
        "audit": _audit(config, paths, splits),
        "config_sha256": content_hash(dump),
        "provenance": {"commit": commit(), "versions": versions(), "host": host(), **_times(job_records)},
        "methods": _methods(config),
        "self_supervised": [_objective(config, entry.key) for entry in config.upstream.self_supervised],
        "tasks": _tasks(config, splits),
        "jobs": job_records,
        "policies": {**DEFAULT_POLICIES, **dump["missing_masks"]},
        "skipped": [
            {
                "experiment": job.experiment,
                "model": job.model,
                "initialisation": job.initialisation,
                "task": task.name,
                "reason": reason,
            }
            for job, task, reason in jobs.skipped_cells(config)
        ],
        "phases": phases,
        "wall_seconds": _wall_seconds(job_records),
        "inference": {"step": config.inference.step, "mirror_axes": list(config.inference.mirror_axes)},
        "budget": {
            "iterations_per_task": config.training.iterations_per_task,
            "downstream_iterations_per_task": config.training_of("downstream").iterations_per_task,
            "batch_size": config.training.batch_size,
            "patch_size_zyx": list(config.network.patch_size_zyx),
        },
        "notices": _notices(config, paths),
    }


def _protocol_text(config: Config) -> str:
    """Return the protocol's name, with the tasks that follow another one."""
    others = [f"{name} for {task}" for task, name in config.data.task_protocols.items() if name != config.data.protocol]
    return ", ".join([config.data.protocol, *others])


def _audit(config: Config, paths: RunPaths, splits: Splits) -> dict:
    """Return what the leak audit compared and found, and how lists were repaired."""
    with open(paths.audit, newline="", encoding="utf-8") as stream:
        findings = list(csv.DictReader(stream))
    return {"cases": len(splits.cases()), "findings": findings, "changes": list(splits.changes)}


def _job_record(config: Config, paths: RunPaths, job: jobs.Job) -> dict:
    trained = {} if not jobs.is_trained(config, job) else _read(paths.train(job.id) / "outcome.json")
    evaluated = {} if job.self_supervised else _read(paths.evaluate(job.id) / "outcome.json")
    failed = next((record for record in (trained, evaluated) if record.get("status", "ok") != "ok"), None)
    outcomes = [record for record in (trained, evaluated) if record]
    return {
        "job": job.id,
        "experiment": job.experiment,
        "model": job.model,
        "initialisation": job.initialisation,
        "scope": job.scope,
        "fold": job.fold,
        "seed": job.seed,
        "status": "failed" if failed else "ok",
        "reason": failed["reason"] if failed else "",
        "train_seconds": trained.get("train_seconds", 0.0),
        "predict_seconds": evaluated.get("predict_seconds", 0.0),
        "score_seconds": evaluated.get("score_seconds", 0.0),
        "process_seconds": round(sum(record["finished"] - record["started"] for record in outcomes), 3),
        "iterations": trained.get("iterations", 0),
        "parameters": trained.get("parameters", 0),
        "training_code": trained.get("training_code"),
        "model_code": trained.get("model_code"),
        "match": trained.get("match"),
        "device": trained.get("device", "cpu"),
        "started": min(record["started"] for record in outcomes),
        "finished": max(record["finished"] for record in outcomes),
        "curve": _curve(paths.train(job.id) / "log.csv") if trained.get("status") == "ok" else None,
    }


def _curve(path: Path) -> dict[str, list[float]] | None:
    """Return iteration and loss of a training log as at most CURVE_POINTS means of consecutive lines, None without."""
    if not path.exists():  # an external model trains without one
        return None
    with open(path, newline="", encoding="utf-8") as stream:
        lines = [(float(row["iteration"]), float(row["loss"])) for row in csv.DictReader(stream)]
    together = max(1, math.ceil(len(lines) / CURVE_POINTS))
    blocks = [lines[first : first + together] for first in range(0, len(lines), together)]
    return {
        name: [round(statistics.fmean(line[i] for line in block), 6) for block in blocks]
        for i, name in enumerate(("iteration", "loss"))
    }


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _refuse_mixed_code(config: Config, records: list[dict]) -> None:
    shared = {record["training_code"] for record in records if record["training_code"]}
    trained = (record for record in records if record["model_code"])
    own = {(config.model_entry(record["model"]).name, record["model_code"]) for record in trained}
    mixed = [name for name, versions in Counter(name for name, _ in own).items() if versions > 1]
    if (len(shared) > 1 or mixed) and not config.allow_mixed_training_code:
        what = f"{len(shared)} versions of the training code" if len(shared) > 1 else f"two versions of {mixed[0]}"
        raise RunFailed(
            f"the cells of this run were trained by {what}; delete "
            f"results/{config.run}/train to train all again, or set allow_mixed_training_code: true"
        )


def _methods(config: Config) -> list[dict]:
    methods = [
        _method("upstream", entry.key, jobs.RANDOM, config.card(entry.key), entry.options)
        for entry in config.upstream.models
    ]
    methods += [
        _method("upstream", name, jobs.NOT_TRAINED, config.model_cards[name], {}) for name in config.upstream.controls
    ]
    methods += [_external(entry) for entry in config.upstream.external]
    if config.downstream:
        entry = config.downstream.model
        for item in config.downstream.initialisations:
            method = _method("downstream", entry.key, item.name, config.model_cards[entry.name], entry.options)
            methods.append(method | {"title": _start_title(config, item.name), "kind": "transfer"})
        methods += [
            _method("downstream", name, jobs.NOT_TRAINED, config.model_cards[name], {})
            for name in config.downstream.controls
        ]
    return methods


def _method(experiment: str, key: str, initialisation: str, card: dict, options: dict) -> dict:
    text = ", ".join(f"{name} = {value}" for name, value in options.items())
    named = title_for(card, options)
    return {
        "experiment": experiment,
        "model": key,
        "initialisation": initialisation,
        "title": named,
        "kind": card.get("kind", "self_supervised"),
        "fidelity": card["fidelity"],
        "options_text": text,
        "citation": card["citation"],
        "url": card["url"],
    }


def _objective(config: Config, key: str) -> dict:
    method = _method("upstream", key, jobs.RANDOM, config.card(key), config.model_entry(key).options)
    return method | {"title": _start_title(config, key)}


def _external(entry: External) -> dict:
    how = "given masks" if entry.predictions else "trained by its own command" if entry.train else "its own command"
    return {
        "experiment": "upstream",
        "model": entry.name,
        "initialisation": jobs.NOT_TRAINED,
        "title": entry.title,
        "kind": "external",
        "fidelity": "external",
        "options_text": how,
        "citation": entry.citation,
        "url": entry.url,
    }


def _start_title(config: Config, name: str) -> str:
    if name == "scratch":
        return "From scratch"
    if config.is_self_supervised(name):
        return f"Self-supervised: {title_for(config.card(name), config.model_entry(name).options)}"
    source = next((entry for entry in config.upstream.models if entry.key == name), None)
    return f"Pre-trained: {config.model_cards[source.name]['title'] if source else name}"


def _tasks(config: Config, splits: Splits) -> list[dict]:
    return [
        _task(config, splits, experiment, task)
        for experiment in ("upstream", "downstream")
        for task in config.tasks_of(experiment)
    ]


def _task(config: Config, splits: Splits, experiment: str, task: Task) -> dict:
    card = config.dataset_cards[task.name]
    return {
        "name": task.name,
        "title": task.title,
        "experiment": experiment,
        "modality": task.modality,
        "structures": [
            {"name": structure.name, "lesion": structure.lesion, "tolerance_mm": structure.tolerance_mm}
            for structure in task.structures
        ],
        "n_test": sum(len(splits.of(fold, task.name).test) for fold in config.data.folds),
        "n_train": len(splits.of(config.data.folds[0], task.name).train),
        "spacing_is_nominal": task.spacing_is_nominal,
        "synthetic": task.synthetic,
        "licence": card["licence"],
        "citation": card["citation"],
    }


def _times(records: list[dict]) -> dict:
    clock = "%Y-%m-%d %H:%M:%S UTC"
    return {
        "started": time.strftime(clock, time.gmtime(min(record["started"] for record in records))),
        "finished": time.strftime(clock, time.gmtime(max(record["finished"] for record in records))),
    }


def _wall_seconds(records: list[dict]) -> float:
    return round(max(record["finished"] for record in records) - min(record["started"] for record in records), 1)


def _phases(paths: RunPaths, records: list[dict]) -> dict[str, float]:
    """Seconds of processes by phase; `overhead` is start-up, reading and everything else inside training jobs."""
    phases = {
        "training": sum(record["train_seconds"] for record in records),
        "inference": sum(record["predict_seconds"] for record in records),
        "scoring": sum(record["score_seconds"] for record in records),
    }
    processes = 0.0
    for rule in sorted((paths.root / "benchmarks").glob("*")):
        seconds = sum(_benchmark_seconds(path) for path in rule.glob("*.tsv"))
        if rule.name in ("train", "evaluate"):
            processes += seconds
        else:
            phases[rule.name] = seconds
    phases["start-up of training and evaluation"] = max(0.0, processes - sum(list(phases.values())[:3]))
    return {name: round(seconds, 1) for name, seconds in phases.items()}


def _benchmark_seconds(path: Path) -> float:
    with open(path, newline="", encoding="utf-8") as stream:
        return sum(float(row["s"]) for row in csv.DictReader(stream, delimiter="\t"))


def _notices(config: Config, paths: RunPaths) -> list[str]:
    notices = []
    if config.synthetic:
        notices.append("Synthetic data: the volumes were generated; no figure here says anything about patients.")
    nominal = [task.title for task in config.tasks if task.spacing_is_nominal]
    if nominal:
        notices.append(f"The spacing of {', '.join(nominal)} is nominal, so distances in mm are not defined there.")
    for task in config.tasks:
        path = paths.notices(task.name)
        if not task.synthetic and path.exists():
            notices += [f"{task.title}: {notice}." for notice in json.loads(path.read_text(encoding="utf-8"))]
    return notices + [
        f"Only {found} of {expected} labelled cases of {config.task(name).title}."
        for name in config.data.accept_partial
        for expected in [expected_count(config.dataset_cards[name])]
        for found in [len(read_manifest(paths.manifest(name)))]
        if found < expected
    ]
