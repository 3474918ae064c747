"""Files of a run, written by the harness's own writers: splits, and a small run of real images for whole jobs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from segbench.core.case import Case, write_manifest
from segbench.core.files import sha256_of, write_json
from segbench.core.paths import PREPROCESSED_ROOT, RunPaths
from segbench.core.provenance import content_hash
from segbench.data.preprocess import preprocess_folds
from segbench.data.preprocessing_recipes import preprocessing_recipe
from segbench.experiment.config import Config, parse_config
from segbench.experiment.context import JobContext
from segbench.experiment.jobs import all_jobs
from segbench.experiment.splits import Splits
from tests.small_network import NETWORK

SPLEEN, LIVER, SCHWANNOMA = "phantom_spleen", "phantom_liver", "phantom_schwannoma"
SIDES = {"train": ["a", "b"], "test": ["c", "d"]}
SHAPE_XYZ = (18, 17, 16)
CONTENT = {
    "run": "small",
    "data": {"root": "raw"},
    "network": NETWORK,
    "training": {"iterations_per_task": 4, "augmentation": "light"},
    "inference": {"step": 1.0},
    "upstream": {
        "tasks": [SPLEEN, LIVER],
        "models": ["uniseg", "single_task", "dodnet_original"],
        "controls": ["oracle", "threshold"],
    },
    "downstream": {"tasks": [SCHWANNOMA], "initialisations": ["scratch", "uniseg"]},
    "metrics": ["dice"],
}
UNISEG = "upstream.uniseg.random.joint.f0.s0"
SINGLE = f"upstream.single_task.random.{SPLEEN}.f0.s0"
DODNET = "upstream.dodnet_original.random.joint.f0.s0"
THRESHOLD = "upstream.threshold.none.joint.f0.s0"
SCRATCH = f"downstream.single_task.scratch.{SCHWANNOMA}.f0.s0"
TRANSFER = f"downstream.single_task.uniseg.{SCHWANNOMA}.f0.s0"


def changed(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy with nested keys replaced."""
    found = copy.deepcopy(dict(content))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = changed(found[key], value) if both else copy.deepcopy(value)
    return found


def config(**changes: Any) -> Config:
    """Return the config of the small run with nested keys replaced."""
    return parse_config(changed(CONTENT, changes), where="test")


def job(settings: Config, job_id: str) -> JobContext:
    """Return the context of a job."""
    return JobContext(settings, {item.id: item for item in all_jobs(settings)}[job_id])


def splits_content(folds: Mapping[str, Mapping[str, Mapping[str, list[str]]]]) -> dict[str, Any]:
    """Return the content of a splits file."""
    content = {"protocol": "seeded", "task_protocols": {}, "folds": folds, "changes": []}
    return content | {"sha256": content_hash(content)}


def splits_of(folds: Mapping[str, Mapping[str, Mapping[str, list[str]]]]) -> Splits:
    """Return splits."""
    return Splits.from_dict(splits_content(folds))


def write_map(path: Path, values_XYZ: np.ndarray, spacing_mm: tuple[float, float, float]) -> Path:
    """Write an image or label map."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values_XYZ, np.diag([*spacing_mm, 1.0])), path)
    return path


def write_cases(settings: Config, task: str, *, brightness: float = 300.0) -> list[Case]:
    """Write four cases of a task as raw files: bright blocks in noise, one per class."""
    recipe = preprocessing_recipe(settings.task(task), settings.preprocessing_recipes)
    z, y, x = recipe.spacing_mm_zyx or (2.0, 2.0, 2.0)
    cases = []
    for number, name in enumerate("abcd"):
        rng = np.random.default_rng(number)
        labels_XYZ = np.zeros(SHAPE_XYZ, np.uint8)
        labels_XYZ[4 + number : 12, 4:11, 3:10] = 1
        for value in range(2, len(settings.task(task).classes) + 1):
            labels_XYZ[12:15, 4:11, 3 * value : 3 * value + 3] = value
        values_XYZ = (rng.normal(0, 40, SHAPE_XYZ) + brightness * (labels_XYZ > 0) + 1).astype(np.int16)
        folder = Path(settings.data.root or "") / task
        image = write_map(folder / "images" / f"{name}.nii.gz", values_XYZ, (x, y, z))
        label = write_map(folder / "labels" / f"{name}.nii.gz", labels_XYZ, (x, y, z))
        hashes = sha256_of(image), sha256_of(label)
        cases.append(Case(task, name, name, (str(image),), str(label), *hashes, SHAPE_XYZ, (x, y, z), "RAS"))
    return cases


def write_run(settings: Config, **options: Any) -> dict[str, list[Case]]:
    """Write raw files, manifests, splits and preprocessed cases of all tasks below the working directory."""
    paths, written = RunPaths(settings.run), {}
    write_json(paths.splits, splits_content({"0": {task.name: SIDES for task in settings.tasks}}))
    for task in settings.tasks:
        cases = written[task.name] = write_cases(settings, task.name, **options)
        write_manifest(paths.manifest(task.name), cases)
        preprocess(settings, task.name, cases)
    return written


def preprocess(settings: Config, name: str, cases: list[Case]) -> None:
    """Preprocess the cases of a task and write their index."""
    task = settings.task(name)
    recipe = preprocessing_recipe(task, settings.preprocessing_recipes)
    card = settings.dataset_cards[name]
    index = preprocess_folds(cases, task, card, recipe, sides={0: SIDES["train"]}, store_root=PREPROCESSED_ROOT)
    index.write(RunPaths(settings.run).preprocessed(name))
