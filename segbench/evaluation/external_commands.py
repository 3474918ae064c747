"""External models: run their commands, or take the masks that they wrote, and check what they hand over.

The commands get a job file and nothing else; docs/external_baselines.md states its form. Masks are label maps in our
class values on the native grid of each test case, `OUTPUT/TASK/CASE.nii.gz` for commands.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil

from segbench.core.case import Case, read_manifest
from segbench.core.errors import Problem, RunFailed, raise_problems
from segbench.core.files import sha256_of, write_json
from segbench.core.paths import RunPaths
from segbench.core.provenance import content_hash
from segbench.core.task import Task
from segbench.data.readers import read_label
from segbench.data.volumes import open_volume
from segbench.evaluation.label_maps import LabelMap, case_name, grid_problems, read_label_map
from segbench.experiment.config import Config
from segbench.experiment.jobs import Job, mask_folders, test_cases

log = logging.getLogger(__name__)
PRIVATE = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")
"""Variables of our own environment that would lead another one astray."""
GRACE_SECONDS = 5
LAST_LINES = 5


@dataclass(frozen=True)
class Masks:
    """Masks of one job: task -> case -> file, None where there is none; the SHA-256 of each file that is there."""

    paths: Mapping[str, Mapping[str, Path | None]]
    sha256: Mapping[str, Mapping[str, str]]
    seconds: float = 0.0

    @property
    def digest(self) -> str:
        """One hash over all masks."""
        return content_hash(self.sha256)

    @property
    def missing(self) -> int:
        """How many test cases have no mask."""
        return sum(path is None for of_task in self.paths.values() for path in of_task.values())


def train(config: Config, job: Job) -> dict:
    """Write the job file and run the training command; return facts for the outcome."""
    shutil.rmtree(RunPaths(config.run).external(job.id), ignore_errors=True)
    write_job_file(config, job)
    seconds = run_command(config, job, "train")
    return {"train_seconds": round(seconds, 3), "device": "external", "command": config.external(job.model).train}


def external_facts(config: Config, job: Job, masks: Masks) -> dict:
    """Return where the masks of a job come from and what they are, for its outcome."""
    entry = config.external(job.model)
    return {
        "command": entry.predict,
        "predictions": entry.predictions,
        "masks": masks.sha256,
        "masks_sha256": masks.digest,
        "masks_missing": masks.missing,
    }


def find_masks(config: Config, job: Job) -> Masks:
    """Return the masks of a job, after the prediction command where there is one.

    Raises RunFailed when the command fails or runs too long, and InputError for a folder that is not there and for
    masks of cases that are no test cases. A test case without a mask is counted, not forgiven.
    """
    seconds = 0.0
    if config.external(job.model).predict:
        work = write_job_file(config, job).parent
        shutil.rmtree(work / "output", ignore_errors=True)
        folders = {task.name: work / "output" / task.name for task in job.tasks(config)}
        for folder in folders.values():
            folder.mkdir(parents=True)
        seconds = run_command(config, job, "predict")
    else:
        folders = mask_folders(config, job)
    splits = json.loads(RunPaths(config.run).splits.read_text(encoding="utf-8"))
    found = {task: _files(folder) for task, folder in folders.items()}
    wanted = {task: test_cases(splits, job.fold, task) for task in folders}
    raise_problems(
        Problem(str(path), "a mask of no test case", f"names such as {wanted[task][0]}.nii.gz", "remove or rename it")
        for task, files in found.items()
        for case, path in sorted(files.items())
        if case not in wanted[task]
    )
    paths = {task: {case: files.get(case) for case in wanted[task]} for task, files in found.items()}
    sha256 = {task: {case: sha256_of(path) for case, path in sorted(files.items())} for task, files in found.items()}
    return Masks(paths, sha256, seconds)


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise_problems([Problem(str(folder), "no such folder", "a folder of masks", "fix predictions in the config")])
    paths = [path for path in sorted(folder.iterdir()) if case_name(path.name)]
    names = [case_name(path.name) for path in paths]
    raise_problems(
        Problem(str(folder / name), "stored twice", "one file per case", "remove the stale one")
        for name in sorted({name for name in names if names.count(name) > 1})
    )
    return dict(zip(names, paths, strict=True))


def read_mask(path: Path, case: Case, task: Task) -> LabelMap:
    """Return a mask on the case's native grid; another grid or an undeclared value raises InputError."""
    mask = read_label_map(path, frozenset(range(len(task.classes) + 1)))
    label = open_volume(case.label_path)
    raise_problems(grid_problems(LabelMap(Path(case.label_path), np.broadcast_to(0, label.shape), label.affine), mask))
    return mask


def write_job_file(config: Config, job: Job) -> Path:
    """Write what the commands may know: cases of both sides, labels of the training side only, where to write."""
    paths = RunPaths(config.run)
    work = paths.external(job.id).resolve()
    splits = json.loads(paths.splits.read_text(encoding="utf-8"))
    content = {
        "model": job.model,
        "fold": job.fold,
        "seed": job.seed,
        "work": str(work),
        "output": str(work / "output"),
        "tasks": [_task(config, job, task, splits["folds"][str(job.fold)][task.name]) for task in job.tasks(config)],
    }
    write_json(work / "job.json", content)
    return work / "job.json"


def _task(config: Config, job: Job, task: Task, sides: dict[str, list[str]]) -> dict:
    paths = RunPaths(config.run)
    known = {case.case_id: case for case in read_manifest(paths.manifest(task.name))}
    labels = paths.external(job.id).resolve() / "labels" / task.name
    return {
        "name": task.name,
        "channels": [{"name": item.name, "modality": item.modality} for item in task.channels],
        "classes": {str(value): name for value, name in enumerate(task.classes, start=1)},
        "training": [
            _case(known[name]) | {"label": _class_values(known[name], config.dataset_cards[task.name], labels)}
            for name in sides["train"]
        ],
        "test": [_case(known[name]) for name in sides["test"]],
    }


def _case(case: Case) -> dict:
    images = [str(Path(path).resolve()) for path in case.image_paths]
    return {"case": case.case_id, "patient": case.patient_id, "images": images}


def _class_values(case: Case, card: dict, folder: Path) -> str:
    """Return the path of a label map in class values: the stored file, or a copy where the card merges values."""
    if not card.get("merge"):
        return str(Path(case.label_path).resolve())
    path = folder / f"{case.case_id}.nii.gz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(read_label(case, card), open_volume(case.label_path).affine), path)
    return str(path)


def run_command(config: Config, job: Job, step: str) -> float:
    """Run the entry's command and return its seconds; all its output goes to COMMAND.log in the working folder.

    Raises RunFailed with the last lines of the log when the command fails, and when it takes longer than allowed; then
    it is ended with all the processes that it started, and so it is when this process is told to end.
    """
    entry = config.external(job.model)
    work = RunPaths(config.run).external(job.id).resolve()
    fields = {
        "job": work / "job.json",
        "work": work,
        "output": work / "output",
        "scope": job.scope,
        "fold": job.fold,
        "seed": job.seed,
    }
    command = getattr(entry, step).format(**{name: shlex.quote(str(value)) for name, value in fields.items()})
    environment = {name: value for name, value in os.environ.items() if name not in PRIVATE} | entry.environment
    path = work / f"{step}.log"
    log.info("%s: %s", path, command)
    began = time.monotonic()
    with open(path, "w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command],
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=Path.cwd(),
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        try:
            with _recorded(config, job, step, process):
                status = process.wait(timeout=entry.limit_minutes * 60)
        except subprocess.TimeoutExpired:
            raise RunFailed(f"{path}: the command took longer than {entry.limit_minutes:g} minutes") from None
        finally:
            _end(process)
    if status:
        tail = " | ".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])
        raise RunFailed(f"{path}: the command left with status {status}: {tail}")
    return time.monotonic() - began


@contextmanager
def _recorded(config: Config, job: Job, step: str, process: subprocess.Popen) -> Iterator[None]:
    """Keep a record of the command for `recover`, and turn the signal to end into an exit that ends the command."""
    path = RunPaths(config.run).root / "state" / "running" / f"command.{step}.{job.id}.json"
    former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        write_json(path, {"pid": process.pid, "created": psutil.Process(process.pid).create_time()})
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
        path.unlink(missing_ok=True)


def _end(process: subprocess.Popen) -> None:
    """End what is left of a command's process group, gently first."""
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
