"""A made-up run folder for the report's tests: synthetic scores drawn from a seeded generator, no model involved.

It holds every kind of cell: whole and partly failed, skipped, missing predictions, empty masks, nominal spacing.
`python -m tests.unit.reporting.synthetic_run DIR` writes one to look at.
"""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np

from segbench.core.files import sha256_of
from segbench.core.run_record import FORMAT, RunRecord, write_run_record
from segbench.core.vocabulary import KEY_COLUMNS, SCORE_COLUMNS

# name, title, modality, structures (name, lesion), difficulty in 0..1, nominal spacing
UPSTREAM = [
    ("toy_liver", "Liver and tumour (CT)", "CT", [("liver", False), ("liver tumour", True)], 0.25, False),
    ("toy_kidney", "Kidney and tumour (CT)", "CT", [("kidney", False), ("kidney tumour", True)], 0.3, False),
    ("toy_vessel", "Hepatic vessel and tumour (CT)", "CT", [("vessel", False), ("tumour", True)], 0.5, False),
    ("toy_pancreas", "Pancreas and tumour (CT)", "CT", [("pancreas", False), ("tumour", True)], 0.55, False),
    ("toy_colon", "Colon tumour (CT)", "CT", [("colon tumour", True)], 0.7, False),
    ("toy_lung", "Lung tumour (CT)", "CT", [("lung tumour", True)], 0.55, False),
    ("toy_spleen", "Spleen (CT)", "CT", [("spleen", False)], 0.15, False),
    ("toy_vertebrae", "Vertebrae (CT)", "CT", [("vertebrae", False)], 0.3, False),
    ("toy_prostate", "Prostate (MR)", "MR", [("prostate", False)], 0.25, True),
    ("toy_brain", "Brain tumour (MR)", "MR", [("oedema", False), ("core", True), ("enhancing", True)], 0.4, False),
    ("toy_petct", "Whole-body tumour (PET and CT)", "PET+CT", [("tumour", True)], 0.6, False),
]
DOWNSTREAM = [
    (
        "toy_abdomen",
        "Thirteen abdominal organs (CT)",
        "CT",
        [(organ, False) for organ in ("spleen", "kidney", "gallbladder", "liver", "aorta")],
        0.35,
        False,
    ),
    ("toy_schwannoma", "Vestibular schwannoma (MR)", "MR", [("schwannoma", True)], 0.5, False),
]
# model, initialisation, title, kind, fidelity, skill
UPSTREAM_METHODS = [
    ("uniseg", "random", "UniSeg", "universal", "description", 0.93),
    ("dodnet", "random", "DoDNet (dynamic head)", "universal", "description", 0.9),
    ("multi_head", "random", "Multi-head U-Net", "universal", "concept", 0.88),
    ("single_task", "random", "Single-task U-Net", "single_task", "description", 0.91),
    ("nnformer", "random", "nnFormer", "single_task", "description", 0.8),
    ("swin_unetr", "random", "Swin UNETR", "single_task", "numerical", 0.84),
    ("unetr", "random", "UNETR", "single_task", "numerical", 0.72),
    ("oracle", "none", "Oracle (reference copied)", "control", "control", 2.0),
    ("shifted_oracle", "none", "Reference shifted by one voxel", "control", "control", 0.9),
    ("mean_shape", "none", "Mean shape", "control", "control", 0.5),
    ("threshold", "none", "Best intensity window", "control", "control", 0.55),
    ("empty", "none", "Empty prediction", "control", "control", 0.0),
]
DOWNSTREAM_METHODS = [
    ("single_task", "scratch", "From scratch", "transfer", "description", 0.85),
    ("single_task", "multi_head", "Pre-trained: Multi-head U-Net", "transfer", "description", 0.88),
    ("single_task", "dodnet", "Pre-trained: DoDNet (dynamic head)", "transfer", "description", 0.89),
    ("single_task", "uniseg", "Pre-trained: UniSeg", "transfer", "description", 0.92),
    ("mean_shape", "none", "Mean shape", "control", "control", 0.5),
    ("empty", "none", "Empty prediction", "control", "control", 0.0),
]
RECIPE_TEXT = "sgd, poly, initial_learning_rate 0.01"
OBJECTIVE = {
    "experiment": "upstream",
    "model": "restoration",
    "initialisation": "random",
    "recipe": "equal",
    "recipe_text": RECIPE_TEXT,
    "title": "Self-supervised: Restoration",
    "kind": "self_supervised",
    "fidelity": "concept",
    "options_text": "",
    "citation": "The paper of restoration",
    "url": "https://example.org/restoration",
}
OBJECTIVE_JOB = {
    "job": "upstream.restoration.random.joint.f0.s0",
    "experiment": "upstream",
    "model": "restoration",
    "initialisation": "random",
    "recipe": "equal",
    "batch_size": 2,
    "scope": "joint",
    "fold": 0,
    "seed": 0,
    "status": "ok",
    "reason": "",
    "train_seconds": 77.0,
    "predict_seconds": 0.0,
    "iterations": 150,
    "parameters": 400_000,
    "match": None,
}
METRICS = {"dice": "1", "hd95": "mm", "hd95_max": "mm"}
MISSED = ("reference_empty", "prediction_empty", "prediction_missing", "failed")
MISSING_MASKS = {
    "dice": {"both_empty": 1, **dict.fromkeys(MISSED, 0)},
    "hd95": {"both_empty": 0, **dict.fromkeys(MISSED, "diagonal")},
    "hd95_max": {"both_empty": 0, **dict.fromkeys(MISSED, "diagonal")},
}


def write_run(
    folder: Path, *, seeds=(0, 1), cases=6, upstream=11, methods=12, curves=True, validation=0, rng_seed=7
) -> Path:
    """Write scores.csv, run.json below `folder` and return it; same arguments, same bytes.

    `validation` is the number of points at which the Dice of held-out cases was measured.
    """
    rng = np.random.default_rng(rng_seed)
    folder.mkdir(parents=True, exist_ok=True)
    experiments = [
        ("upstream", UPSTREAM[:upstream], UPSTREAM_METHODS[:methods]),
        ("downstream", DOWNSTREAM, DOWNSTREAM_METHODS),
    ]
    rows, jobs = [], []
    for experiment, tasks, listed in experiments:
        for method in listed:
            for task in tasks:
                for seed in seeds if method[3] != "control" else seeds[:1]:
                    rows += _rows(experiment, method, task, seed, cases, rng)
            own = list(_jobs(experiment, method, tasks, seeds, rng))
            if validation:
                for job in own:
                    job["validation"] = _validation(job, [task[0] for task in tasks], validation)
            jobs += own
    jobs.append(dict(OBJECTIVE_JOB))
    for job in jobs:
        seconds = job["train_seconds"] + job["predict_seconds"]
        job |= {"score_seconds": 0.5, "process_seconds": seconds + 1.5, "device": "cpu"}
        job |= {"started": 1767261600.0, "finished": 1767261600.0 + seconds + 1.5}
        job |= {"training_code": "0" * 16, "model_code": "1" * 16}
        job["curve"] = _curve(rng, job["iterations"] or 1, known=curves and job["iterations"] > 0)
    rows.sort(key=lambda row: tuple(str(row[name]) for name in KEY_COLUMNS))
    with open(folder / "scores.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, SCORE_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    record = _record(experiments, jobs, cases, n_validation=2 if validation else 0) | {
        "scores_sha256": sha256_of(folder / "scores.csv")
    }
    write_run_record(folder / "run.json", RunRecord.model_validate(record, strict=False))
    return folder


def cell_status(method: str, task: str, seed: int) -> str:
    """Return what the made-up run did with a cell: 'ok', 'failed' or 'skipped'."""
    if method == "nnformer" and task == "toy_brain":
        return "skipped"
    if (method == "unetr" and task == "toy_colon") or (method == "swin_unetr" and task == "toy_petct" and seed == 1):
        return "failed"
    return "ok"


def _rows(experiment, method, task, seed, cases, rng):
    model, initialisation, _, kind, _, skill = method
    name, _, _, structures, difficulty, nominal = task
    state = cell_status(model, name, seed)
    for case in range(cases):
        case_level = np.random.default_rng([31, case, sum(map(ord, name))]).normal(0, 0.5)
        for structure, lesion in structures:
            level = 2.2 * skill - 2.2 * difficulty + 0.5 * case_level - 0.5 * lesion + rng.normal(0, 0.35)
            quality = 1.0 if model == "oracle" else 1 / (1 + math.exp(-1.6 * level - 0.4))
            status, reason, dice, distance = _status(model, lesion, state, quality, case, rng)
            for metric, scope in METRICS.items():
                value, cell, why = (dice if metric == "dice" else distance), status, reason
                if metric != "dice" and nominal and status not in ("failed", "skipped"):
                    value, cell, why = None, "not_defined", "the spacing of this data set is nominal"
                yield dict(
                    zip(
                        SCORE_COLUMNS,
                        (
                            experiment,
                            model,
                            initialisation,
                            "none" if kind == "control" else "equal",
                            "joint" if kind in ("universal", "control") else name,
                            0,
                            seed,
                            "seeded",
                            name,
                            name,
                            f"{name}_{case:03d}",
                            structure,
                            metric,
                            f"{name}_{case:03d}",
                            "" if value is None else f"{value:.9g}",
                            scope,
                            cell,
                            why,
                            _volume(status, "reference", "1000"),
                            _volume(status, "prediction", "1000"),
                            "" if nominal else "400",
                        ),
                        strict=True,
                    )
                )


def _volume(status: str, side: str, volume: str) -> str:
    if status in ("both_empty", f"{side}_empty"):
        return "0"
    return "" if status in ("failed", "skipped", "prediction_missing") else volume


def _status(model, lesion, state, quality, case, rng):
    """Status, reason, Dice and distance of one structure of one case."""
    if state == "skipped":
        return "skipped", "accepts 1 input channel, the task has 4", None, None
    if state == "failed":
        return "failed", "RunFailed: the loss is nan at step 40", None, None
    if model == "unetr" and case == 1:
        return "prediction_missing", "no file", None, None
    if lesion and case == 2:
        nothing = model == "empty" or quality > 0.5
        return ("both_empty", "", None, None) if nothing else ("reference_empty", "", 0.0, None)
    if model == "empty":
        return "prediction_empty", "", 0.0, None
    if quality < 0.08:
        return "prediction_empty", "", 0.0, None
    return "ok", "", quality, 0.0 if quality == 1 else float(40 * (1 - quality) ** 1.5 + rng.gamma(2, 0.6))


def _jobs(experiment, method, tasks, seeds, rng):
    model, initialisation, _, kind, _, _ = method
    scopes = ["joint"] if kind in ("universal", "control") else [task[0] for task in tasks]
    for scope in scopes:
        for seed in seeds if kind != "control" else seeds[:1]:
            state = cell_status(model, scope, seed)
            if state == "skipped":
                continue
            control, ok, per_task = kind == "control", state == "ok", len(tasks) if scope == "joint" else 1
            job = f"{experiment}.{model}.{initialisation}.{scope}.f0.s{seed}"
            yield {
                "job": job,
                "experiment": experiment,
                "model": model,
                "initialisation": initialisation,
                "recipe": "none" if control else "equal",
                "batch_size": 0 if control else 2,
                "scope": scope,
                "fold": 0,
                "seed": seed,
                "status": state,
                "reason": "" if ok else "RunFailed: the loss is nan at step 40",
                "train_seconds": 0.0 if control or not ok else round(float(rng.uniform(9, 14)) * per_task, 1),
                "predict_seconds": round(float(rng.uniform(1, 3)), 1),
                "iterations": 0 if control or not ok else (150 * len(tasks) if scope == "joint" else 150),
                "parameters": 0 if control or not ok else int(rng.integers(300_000, 900_000)),
                "match": _match(initialisation) if initialisation in ("uniseg", "dodnet", "multi_head") else None,
            }


def _match(source):
    """A match report as a training job stores it; a source with a prompt lost inputs."""
    resized = ["decoder.up.0.weight"] if source == "uniseg" else []
    return {
        "source": f"upstream.{source}.random.joint.f0.s0",
        "format": "segbench",
        "sha256": "0" * 64,
        "fraction": 0.98,
        "matched": [f"encoder.{number}" for number in range(40)],
        "resized": resized,
        "missing": ["heads.0", "heads.1"],
        "unused": ["heads.2"],
        "reasons": dict.fromkeys(resized, "8 of its 9 inputs taken"),
        "probe": [0.1, 1.2, -3.4, 5.6],
    }


def _curve(rng, iterations, *, known):
    steps = np.linspace(1, iterations, 100).astype(int)
    losses = 1.5 - 1.6 * (1 - np.exp(-steps / iterations * 3)) + rng.normal(0, 0.05, len(steps))
    return {"iteration": steps.tolist(), "loss": [round(float(loss), 5) for loss in losses]} if known else None


def _validation(job, tasks, points):
    """Dice of held-out cases of a finished training: the same rise for every task, the first task 10 points above."""
    if not job["iterations"]:
        return None
    own = tasks if job["scope"] == "joint" else [job["scope"]]
    steps = [job["iterations"] * number // points for number in range(1, points + 1)]
    dice = [[0.5 * number / points + 0.1 * (task == tasks[0]) for task in own] for number in range(1, points + 1)]
    found = {"tasks": own, "cases": [2] * len(own), "steps": steps, "dice": dice}
    return found | {"seen_dice": [value + 0.2 for value in dice[-1]], "seconds": 1.0}


def _record(experiments, jobs, cases, *, n_validation):
    return {
        "format": FORMAT,
        "run": "toy",
        "description": "Made-up scores for the tests of the report.",
        "synthetic": True,
        "protocol": "seeded",
        "config_sha256": "0" * 64,
        "provenance": {
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "versions": {"python": "3.11.9", "torch": "2.13.0"},
            "host": "Linux x86_64",
            "started": "2026-01-01 10:00:00 UTC",
            "finished": "2026-01-01 10:11:00 UTC",
        },
        "methods": [
            {
                "experiment": experiment,
                "model": model,
                "initialisation": initialisation,
                "recipe": "none" if kind == "control" else "equal",
                "recipe_text": "" if kind == "control" else RECIPE_TEXT,
                "title": title,
                "kind": kind,
                "fidelity": fidelity,
                "options_text": "",
                "citation": f"The paper of {title}",
                "url": "https://example.org",
            }
            for experiment, _, listed in experiments
            for model, initialisation, title, kind, fidelity, _ in listed
        ],
        "tasks": [
            {
                "name": name,
                "title": title,
                "experiment": experiment,
                "modality": modality,
                "structures": [{"name": s, "lesion": lesion, "tolerance_mm": 2.0} for s, lesion in structures],
                "n_test": cases,
                "n_train": 10,
                "n_validation": n_validation,
                "spacing_is_nominal": nominal,
                "synthetic": True,
                "licence": "CC0",
                "citation": "made up",
            }
            for experiment, tasks, _ in experiments
            for name, title, modality, structures, _, nominal in tasks
        ],
        "self_supervised": [OBJECTIVE],
        "jobs": jobs,
        "missing_masks": MISSING_MASKS,
        "skipped": [
            {
                "experiment": experiment,
                "model": method[0],
                "initialisation": method[1],
                "recipe": "equal",
                "task": task[0],
                "reason": "accepts 1 input channel, the task has 4",
            }
            for experiment, tasks, listed in experiments
            for method in listed
            for task in tasks
            if cell_status(method[0], task[0], 0) == "skipped"
        ],
        "phases": {
            "training": 520.4,
            "inference": 61.0,
            "scoring": 12.5,
            "preprocess": 31.0,
            "phantom": 9.1,
            "start-up of training and evaluation": 55.2,
        },
        "wall_seconds": 660.0,
        "inference": {"step": 0.5, "mirror_axes": []},
        "budget": {
            "iterations_per_task": 150,
            "downstream_iterations_per_task": 150,
            "batch_size": 2,
            "patch_size_zyx": [32, 32, 32],
        },
        "notices": ["Synthetic data: the volumes were generated; no result here says anything about patients."],
        "audit": {
            "cases": 70,
            "changes": ["T: c1: on both sides, kept in training, removed from test"],
            "findings": [
                {
                    "name": "patient:n/p7",
                    "kind": "same patient",
                    "relation": "across tasks",
                    "fold": "0",
                    "train_task": experiments[0][1][0][0],
                    "train_cases": "c7",
                    "test_task": experiments[0][1][1][0],
                    "test_cases": "c8",
                    "evidence": "patient p7",
                    "accepted": "True",
                },
            ],
        },
    }


if __name__ == "__main__":
    write_run(Path(sys.argv[1]))
