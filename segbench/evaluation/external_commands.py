"""External models: run their commands, or take the masks that they wrote, and check what they hand over.

The commands get a job file and nothing else; docs/external_baselines.md states its form. Masks are label maps in our
class values on the native grid of each test case, `OUTPUT/TASK/CASE.nii.gz` for commands.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib

from segbench.core.case import Case
from segbench.core.errors import Problem, RunFailed, raise_problems
from segbench.core.files import sha256_of, write_json
from segbench.core.folders import files_below
from segbench.core.provenance import content_hash
from segbench.core.seeds import seed_for
from segbench.core.task import Task
from segbench.data.readers import read_label
from segbench.data.volumes import open_volume
from segbench.evaluation.label_maps import case_name, no_file_problem, unread_problems
from segbench.experiment.config import External
from segbench.experiment.context import JobContext
from segbench.experiment.jobs import mask_folders
from segbench.experiment.ownership import running

log = logging.getLogger(__name__)
PRIVATE = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")
"""Variables of our own environment that would lead another one astray."""
GRACE_SECONDS = 5
LAST_LINES, LAST_BYTES = 5, 2000
"""How much of the log of a failed command its reason quotes; a progress bar or a dump can be one line of megabytes."""


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


def train(context: JobContext) -> dict:
    """Write the job file and run the training command; return facts for the outcome."""
    shutil.rmtree(_work(context), ignore_errors=True)
    write_job_file(context)
    seconds = run_command(context, "train")
    return {"train_seconds": round(seconds, 3), "device": "external", "shell": _entry(context).train}


def _entry(context: JobContext) -> External:
    return context.config.external(context.job.model)


def _work(context: JobContext) -> Path:
    return context.paths.external(context.job.id).resolve()


def external_facts(context: JobContext, masks: Masks) -> dict:
    """Return where the masks of a job come from and what they are, for its outcome."""
    entry = _entry(context)
    return {
        "shell": entry.predict,
        "predictions": entry.predictions,
        **entry.told,
        "masks": masks.sha256,
        "masks_sha256": masks.digest,
        "masks_missing": masks.missing,
    }


def find_masks(context: JobContext) -> Masks:
    """Return the masks of a job, after the prediction command where there is one.

    A test case without a mask is counted, not forgiven.

    Raises:
        RunFailed: the command fails or runs too long.
        InputError: a folder is absent, or holds masks of cases that are no test cases.
    """
    seconds = 0.0
    if _entry(context).predict:
        work = write_job_file(context).parent
        shutil.rmtree(work / "output", ignore_errors=True)
        folders = {task.name: work / "output" / task.name for task in context.tasks}
        for folder in folders.values():
            folder.mkdir(parents=True)
        seconds = run_command(context, "predict")
    else:
        folders = mask_folders(context.config, context.job)
    found = {task: mask_files(folder) for task, folder in folders.items()}
    wanted = {task: context.sides(task).test for task in folders}
    raise_problems(
        problem for task, files in found.items() for problem in mask_problems(folders[task], files, wanted[task])
    )
    paths = {task: {case: files.get(case) for case in wanted[task]} for task, files in found.items()}
    sha256 = {task: {case: sha256_of(path) for case, path in sorted(files.items())} for task, files in found.items()}
    return Masks(paths, sha256, seconds)


def mask_problems(folder: Path, files: Mapping[str, Path], wanted: Sequence[str]) -> Iterator[Problem]:
    """Yield masks of a folder that belong to none of the wanted test cases, or are there in a form that is not read.

    A folder without any mask of a test case is a problem too.
    """
    for case, path in sorted(files.items()):
        if case not in wanted:
            yield Problem(
                str(path), "a mask of no test case", f"names such as {wanted[0]}.nii.gz", "remove or rename it"
            )
    absent = [case for case in wanted if case not in files]
    misplaced = unread_problems(folder, absent)
    for path in files_below(folder):
        name = case_name(path.name)
        if path.parent != folder and name and (name in absent or path.parent.name in absent):
            fix = "move it there, under the name of its case"
            misplaced.append(Problem(str(path), "a mask in a folder of its own", f"a file in {folder}", fix))
    yield from misplaced
    if not files and not misplaced and absent:
        fix = "fix the path, or write an empty mask where nothing is found"
        yield Problem(str(folder), "no mask of any test case", f"names such as {absent[0]}.nii.gz", fix)


def mask_files(folder: Path) -> dict[str, Path]:
    """Return case -> mask of a folder; raises `InputError` for no folder, no file or two masks of a case."""
    if not folder.is_dir():
        raise_problems([Problem(str(folder), "no such folder", "a folder of masks", "fix predictions in the config")])
    named = [(name, path) for path in sorted(folder.iterdir()) if (name := case_name(path.name))]
    raise_problems(problem for _, path in named if (problem := no_file_problem(path)))
    names = [name for name, _ in named]
    raise_problems(
        Problem(str(folder / name), "stored twice", "one file per case", "remove the stale one")
        for name in sorted({name for name in names if names.count(name) > 1})
    )
    return dict(named)


def write_job_file(context: JobContext) -> Path:
    """Write what the commands may know: training and test cases, labels of the former only, and where to write."""
    work = _work(context)
    content = {
        "model": context.job.model,
        "fold": context.job.fold,
        "seed": context.job.seed,
        "work": str(work),
        "output": str(work / "output"),
        "tasks": [_task(context, task) for task in context.tasks],
    }
    write_json(work / "job.json", content)
    return work / "job.json"


def _task(context: JobContext, task: Task) -> dict:
    sides, card = context.sides(task.name), context.config.dataset_cards[task.name]
    labels = _work(context) / "labels" / task.name
    training = [context.case(task.name, name) for name in context.training_cases(task.name)]
    classes = {str(value): name for value, name in enumerate(task.classes, start=1)}
    texts = _entry(context).prompts.get(task.name)
    return {
        "name": task.name,
        "channels": [{"name": item.name, "modality": item.modality} for item in task.channels],
        "classes": classes,
        **({"prompts": {value: texts[name] for value, name in classes.items()}} if texts else {}),
        **_support(context, task, training),
        "training": [_case(case) | _reference(case, card, labels) for case in training],
        "test": [_case(context.case(task.name, name)) for name in sides.test],
    }


def _support(context: JobContext, task: Task, training: Sequence[Case]) -> dict:
    """Return the support cases of a task, drawn by fold and seed; nothing where the entry asks for none.

    Raises InputError where fewer training cases than asked for have all their classes annotated.
    """
    entry, job = _entry(context), context.job
    if not entry.support_cases:
        return {}
    whole = [case for case in training if case.is_annotated(range(1, len(task.classes) + 1))]
    raise_problems(support_problems(entry, task.name, len(whole)))
    whole.sort(key=lambda case: (seed_for("support", job.fold, job.seed, task.name, case.case_id), case.case_id))
    return {"support": [case.case_id for case in whole[: entry.support_cases]]}


def support_problems(entry: External, task: str, whole: int) -> list[Problem]:
    """Return the problem of an entry that asks for more support cases of a task than there are whole training cases."""
    if entry.support_cases <= whole:
        return []
    found = f"{entry.support_cases}, and {whole} training cases of {task} with every class annotated"
    return [Problem(f"{entry.where}.support_cases", found, "fewer", "ask for as many as there are")]


def _case(case: Case) -> dict:
    images = [str(Path(path).resolve()) for path in case.image_paths]
    return {"case": case.case_id, "patient": case.patient_id, "images": images}


def _reference(case: Case, card: dict, folder: Path) -> dict:
    partly = {} if case.annotated is None else {"annotated": list(case.annotated)}
    return {"label": _class_values(case, card, folder)} | partly


def _class_values(case: Case, card: dict, folder: Path) -> str:
    """Return the path of a label map in class values: the stored file, or a copy where its card changes values."""
    if not (card.get("merge") or card.get("ignore_labels")):
        return str(Path(case.label_path).resolve())
    path = folder / f"{case.case_id}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(read_label(case, card), open_volume(case.label_path).affine), path)
    return str(path)


def run_command(context: JobContext, step: str) -> float:
    """Run the entry's command and return its seconds; all its output goes to STEP.log in the working folder.

    Raises:
        RunFailed: the command fails (with the last lines of its log), or takes longer than allowed; then it is ended
            with all the processes that it started, and so it is when this process gets the signal to end.
    """
    entry, work, job = _entry(context), _work(context), context.job
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
            with _recorded(context, step, process):
                status = process.wait(timeout=entry.limit_minutes * 60)
        except subprocess.TimeoutExpired:
            raise RunFailed(f"{path}: the command took longer than {entry.limit_minutes:g} minutes") from None
        finally:
            _end(process)
    if status:
        raise RunFailed(f"{path}: the command exited with status {status}: {_tail(path)}")
    return time.monotonic() - began


def _tail(path: Path) -> str:
    """Return the last lines of a log, of its last bytes only, without characters that are no text."""
    with open(path, "rb") as stream:
        stream.seek(max(0, path.stat().st_size - LAST_BYTES))
        lines = stream.read().decode(errors="replace").splitlines()[-LAST_LINES:]
    return " | ".join("".join(letter if letter.isprintable() else " " for letter in line) for line in lines)


@contextmanager
def _recorded(context: JobContext, step: str, process: subprocess.Popen) -> Iterator[None]:
    """Keep a record of the command for `recover`, and turn the signal to end into an exit that ends the command."""
    former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with running(context.paths.running, f"command.{step}.{context.job.id}", pid=process.pid):
            yield
    finally:
        signal.signal(signal.SIGTERM, former)


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
