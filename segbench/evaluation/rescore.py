"""Score cases of a finished run again, and say which of its rows differ.

The cases are drawn by a random axis of their own, so that nobody who made the table chose them. A label map is
predicted again from the weights of its job, or by its control; where that cannot be done, the kept label map is read.
Nothing of the run is changed. Images come from the store of preprocessed cases, whose addresses name what they were
made from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from segbench.core.case import Case
from segbench.core.errors import InputError, Problem, input_error, raise_problems
from segbench.core.files import sha256_of
from segbench.core.paths import OUTCOME, RunPaths
from segbench.core.provenance import content_hash
from segbench.core.run_record import RunRecord
from segbench.core.seeds import seed_for
from segbench.core.task import Task
from segbench.core.vocabulary import KEY_COLUMNS, SCORE_COLUMNS
from segbench.evaluation.evaluate import scored_rows
from segbench.evaluation.external_commands import Masks, mask_files
from segbench.evaluation.predictors import Predictor
from segbench.evaluation.rows import Row
from segbench.experiment import requests
from segbench.experiment.config import Config, load_config
from segbench.experiment.context import JobContext
from segbench.experiment.jobs import Job, evaluation_jobs, mask_folders

AXIS = "rescored cases"
JOB_COLUMNS = ("experiment", "model", "initialisation", "recipe", "scope", "fold", "seed")
COMPUTED_COLUMNS = ("value", "prediction_volume_mm3")
"""Numbers that rounding of a network can move; every other column must be equal."""
NOT_SCORED = ("skipped", "failed")
PREDICTED, FITTED, GIVEN, KEPT = (
    "predicted again from the weights",
    "predicted again by the control",
    "given mask read",
    "kept label map read, as it cannot be predicted here",
)
ROUNDING = 0.01
"""Where a network computes with other roundings, numbers may differ by this much and by this fraction of themselves."""


@dataclass(frozen=True)
class Drawn:
    """A test case of a job, and its rows in the score table."""

    context: JobContext
    task: Task
    case: Case
    rows: Sequence[Row]

    @property
    def name(self) -> str:
        """Job, task and case."""
        return f"{self.context.job.id} {self.task.name}/{self.case.case_id}"


@dataclass(frozen=True)
class Rescored:
    """What became of a drawn case.

    how: where its label map comes from. other: what differs from the computation of the run, so that numbers may differ
    by `ROUNDING`; empty where rows must be equal. differences: one line for each cell that differs.
    """

    drawn: Drawn
    how: str
    other: str
    differences: Sequence[str]


def results_config(record: RunRecord, configs: Iterable[Mapping[str, Any]]) -> Config:
    """Return the config of the results from which a report was made; they lie below the working directory.

    Args:
        record: the report's run.json.
        configs: resolved configs of a bundle, several when it joins sites, of which one suffices; none for a report.

    Raises:
        InputError: the results are not here, or are those of another config.
    """
    wanted = [(str(config["run"]), content_hash(config)) for config in configs] or [(record.run, record.config_sha256)]
    problems = []
    for run, digest in wanted:
        path = RunPaths(run).config
        expected, found = f"the config of the results of {run}", "no file"
        if path.is_file():
            if content_hash(requests.read(path)) == digest:
                return load_config(path)
            found = "another config than the report was made from"
        problems.append(Problem(str(path), found, expected, "change to the folder that holds the run's results"))
    raise InputError(problems)


def drawn_cases(config: Config, rows: Iterable[Row], number: int, *, draw: int = 0) -> list[Drawn]:
    """Return cases of a score table, drawn by a named random axis, ordered by job.

    Args:
        config: config of the run, whose results are below the working directory.
        rows: its score table.
        number: how many; all when the table has fewer. Failed and skipped cases are never drawn.
        draw: another number draws other cases.

    Raises:
        InputError: the table has no case that can be scored again, or a manifest is absent.
    """
    jobs = {job_key(job): job for job in evaluation_jobs(config)}
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        key = key_of_job(row)
        if key in jobs:
            groups.setdefault((*key, row["task"], row["case"]), []).append(row)
    known = sorted(key for key, own in groups.items() if not any(row["status"] in NOT_SCORED for row in own))
    if not known:
        expected = "scored cases of jobs of its config"
        raise input_error("scores.csv", found="none", expected=expected, fix="name the report of a run that is here")
    rng = np.random.default_rng(seed_for(AXIS, draw))
    chosen = [known[index] for index in sorted(rng.choice(len(known), min(number, len(known)), replace=False))]
    contexts = {key[:-2]: JobContext(config, jobs[key[:-2]]) for key in chosen}
    return [
        Drawn(context, config.task(key[-2]), context.case(*key[-2:]), groups[key])
        for key in chosen
        for context in [contexts[key[:-2]]]
    ]


def job_key(job: Job) -> tuple[str, ...]:
    """Return what the rows of a job have in `JOB_COLUMNS`."""
    return tuple(str(getattr(job, name)) for name in JOB_COLUMNS)


def key_of_job(row: Row) -> tuple[str, ...]:
    """Return a row's values of `JOB_COLUMNS`."""
    return tuple(row[name] for name in JOB_COLUMNS)


def rescored(drawn: Sequence[Drawn], device: Callable[[], str]) -> Iterator[Rescored]:
    """Yield what became of each case, after it is known that all can be scored.

    Args:
        drawn: what `drawn_cases` returned.
        device: returns where networks predict; called only when one does.

    Raises:
        InputError: images, weights or preprocessed cases are absent or are not those of the run; nothing was predicted.
    """
    problems = []
    sources: dict[str, str] = {}
    for item in drawn:
        try:
            _check_reference(item)
            sources[item.name] = _source(item)
        except InputError as error:
            problems += error.problems
    raise_problems(dict.fromkeys(problems))
    of_job: tuple[JobContext, Predictor, str] | None = None
    for item in drawn:
        other = ""
        if sources[item.name] == KEPT:
            labels_XYZ: np.ndarray | None = _kept(item)
        else:
            if of_job is None or of_job[0] is not item.context:  # one network at a time
                of_job = item.context, *_predictor(item.context, device)
            _, predictor, other = of_job
            labels_XYZ = predictor.predict(item.task, item.case, predictor.read(item.task, item.case))
        found = scored_rows(item.context, item.task, item.case, labels_XYZ)
        differences = row_differences(item.rows, found, rounding=bool(other))
        yield Rescored(item, sources[item.name], other, differences)


def row_differences(expected: Iterable[Row], found: Iterable[Row], *, rounding: bool = False) -> list[str]:
    """Return one line for each cell of rows that differs, and for each row that only one side has.

    Args:
        expected: rows of the score table.
        found: rows that were made now.
        rounding: allow `ROUNDING` in the columns that a network's roundings can move.
    """
    before, now = ({tuple(row[name] for name in KEY_COLUMNS): row for row in rows} for rows in (expected, found))
    lines = [f"{_name_of(key)}: not scored now" for key in sorted(before.keys() - now.keys())]
    lines += [f"{_name_of(key)}: not in scores.csv" for key in sorted(now.keys() - before.keys())]
    for key in sorted(before.keys() & now.keys()):
        for column in SCORE_COLUMNS:
            old, new = before[key][column], now[key][column]
            if old != new and not (rounding and column in COMPUTED_COLUMNS and _near(old, new)):
                lines.append(f"{_name_of(key)}: {column} is {new or 'blank'}, in scores.csv {old or 'blank'}")
    return lines


def _name_of(key: tuple[str, ...]) -> str:
    row = dict(zip(KEY_COLUMNS, key, strict=True))
    return f"{row['task']}/{row['case']} {row['structure']} {row['metric']}"


def _near(old: str, new: str) -> bool:
    return bool(old and new) and abs(float(old) - float(new)) <= ROUNDING * (1 + abs(float(old)))


def _check_reference(item: Drawn) -> None:
    """Raise `InputError` when the reference is absent or is not the file that was ingested."""
    path = Path(item.case.label_path)
    if not path.is_file():
        fix = "put the data set where data.root of the config says"
        raise input_error(path, found="no file", expected=f"the reference of {item.case.case_id}", fix=fix)
    if sha256_of(path) != item.case.label_sha256:
        expected = "the file that was ingested"
        raise input_error(path, found="another SHA-256", expected=expected, fix="restore the file")


def _source(item: Drawn) -> str:
    """Return where the label map of a case comes from; raises `InputError` with what is absent."""
    context, job = item.context, item.context.job
    if job.external:
        return GIVEN
    try:
        fitted = context.training_cases(item.task.name) if job.control else ()
        for name in (item.case.case_id, *fitted):
            context.folder(item.task.name, name)
        if job.control:
            return FITTED
        context.trained_weights()
        return PREDICTED
    except InputError:
        if _is_kept(item):
            return KEPT
        raise


def _predictor(context: JobContext, device: Callable[[], str]) -> tuple[Predictor, str]:
    """Return what predicts the cases of a job, and what of the computation is another than the run's."""
    if context.job.external:
        from segbench.evaluation.predictors.masks import MaskPredictor

        return MaskPredictor(_given_masks(context)), ""
    if context.job.control:
        from segbench.evaluation.predictors.control import ControlPredictor

        return ControlPredictor(context), ""
    from segbench.evaluation.predictors.network import NetworkPredictor

    network = NetworkPredictor(context, device=device())
    return network, _other_circumstances(context, network.device, network.precision)


def _given_masks(context: JobContext) -> Masks:
    """Return the masks of an external model, as they were given or as its command left them."""
    folders = mask_folders(context.config, context.job)
    if context.config.external(context.job.model).predict:
        folders = {task: context.paths.external(context.job.id) / "output" / task for task in folders}
    paths = {}
    for task, folder in folders.items():
        files = mask_files(folder)
        paths[task] = {case: files.get(case) for case in context.sides(task).test}
    return Masks(paths, {})


def _other_circumstances(context: JobContext, device: str, precision: str) -> str:
    """Return what of the computation is another than the run's, or is not known to give equal numbers."""
    import torch

    evaluated: Mapping[str, Any] = requests.read(context.evaluate_folder / OUTCOME)
    attempts = requests.read(context.train_folder / OUTCOME).get("attempts") or [{}]
    if device != "cpu":
        return "the order of sums on a GPU"
    here: dict[str, Any] = {"device": device, "precision": precision}
    other = [name for name, value in here.items() if evaluated.get(name) != value]
    here = {
        "device": f"cpu {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "torch": metadata.version("torch"),
    }
    other += [name for name, value in here.items() if attempts[-1].get(name) != value]
    return ", ".join(dict.fromkeys(other))


def _is_kept(item: Drawn) -> bool:
    """Tell whether the label map that was scored is still there, by its SHA-256."""
    path, beside = _kept_files(item)
    return path.is_file() and requests.read(beside).get("sha256") == sha256_of(path)


def _kept_files(item: Drawn) -> tuple[Path, Path]:
    paths, key = item.context.paths, (item.context.job.id, item.task.name, item.case.case_id)
    return paths.prediction(*key), paths.prediction_identity(*key)


def _kept(item: Drawn) -> np.ndarray:
    image: Any = nib.load(_kept_files(item)[0])
    return np.asarray(image.dataobj)
