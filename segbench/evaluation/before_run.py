"""What a run would meet after ingest, found before it: the splits of the cases on disk, and the masks that are given.

Nothing is written. Generated data are not there before the run, so that only the config's own checks cover them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segbench.core.case import Case, CaseFiles
from segbench.core.errors import InputError, Problem
from segbench.core.vocabulary import EXPERIMENTS, TUNED
from segbench.data.ingest import discover
from segbench.data.splitting.folds import make_splits
from segbench.data.splitting.protocols import check_organs
from segbench.evaluation.external_commands import mask_files, mask_problems, support_problems
from segbench.evaluation.predictors.masks import read_mask
from segbench.experiment.config import Config
from segbench.experiment.held_out import held_out_cases, tuning_cases
from segbench.experiment.jobs import Job, external_jobs, mask_folders
from segbench.experiment.splits import Splits


def find_problems(config: Config) -> tuple[list[Problem], list[str]]:
    """Return the problems of splits and of given masks, and notices such as test cases without a mask.

    Data sets whose files cannot be listed have problems of their own in `data.checks`; their splits are left out.
    """
    cases = _cases_on_disk(config)
    if cases is None:
        return [], []
    try:
        splits = _splits(config, cases)
    except InputError as error:
        return list(error.problems), []
    problems = _empty_sides(splits) or _held_out_problems(config, splits, cases)
    notices: list[str] = []
    sides_fit = not problems
    for job in external_jobs(config):
        entry = config.external(job.model)
        if entry.predictions is not None:
            found, seen = _mask_problems(config, job, splits, cases)
            problems += found
            notices += seen
        if entry.support_cases and sides_fit:
            held_out = held_out_cases(config, splits, job.experiment, job.fold, cases)
            for task in job.tasks(config).names:  # the annotated classes of a case are known when it has been read
                learnt_from = len(splits.of(job.fold, task).train) - len(held_out[task])
                problems += support_problems(entry, task, learnt_from)
    return list(dict.fromkeys(problems)), notices


def _cases_on_disk(config: Config) -> dict[str, dict[str, Case]] | None:
    """Return task -> case id -> case without hashes and headers, or None when the data are not there to be listed."""
    if config.data.phantom is not None:
        return None
    found: dict[str, dict[str, Case]] = {}
    for name in config.all_task_names:
        try:
            listed = discover(name, config.dataset_cards[name], config.data_root)
        except InputError:
            return None
        found[name] = {files.case_id: _unread(name, files) for files in listed}
    return found


def _unread(task: str, files: CaseFiles) -> Case:
    """Return a manifest row whose files were not opened."""
    images = tuple(map(str, files.image_paths))
    return Case(
        task=task,
        case_id=files.case_id,
        patient_id=files.patient_id,
        image_paths=images,
        label_path=str(files.label_path),
        image_sha256="",
        label_sha256="",
        shape_xyz=(0, 0, 0),
        spacing_mm_xyz=(0.0, 0.0, 0.0),
        orientation="",
    )


def _splits(config: Config, cases: Mapping[str, Mapping[str, Case]]) -> Splits:
    check_organs(config.tasks, config.data)
    rows: dict[str, Sequence[Case]] = {task: list(found.values()) for task, found in cases.items()}
    namespaces = {task: config.dataset_cards[task]["patient_namespace"] for task in cases}
    return Splits.from_dict(make_splits(rows, namespaces, config.data, lists=config.split_paths))


def _empty_sides(splits: Splits) -> list[Problem]:
    return [
        Problem(f"split of {task}, fold {fold}", f"no {side} case", "cases on both sides", "change the lists or folds")
        for fold, tasks in splits.folds.items()
        for task, sides in tasks.items()
        for side, names in (("training", sides.train), ("test", sides.test))
        if not names
    ]


def _held_out_problems(config: Config, splits: Splits, cases: Mapping[str, Mapping[str, Case]]) -> list[Problem]:
    """Return the tasks and folds in which no training patient, or every one, would be held out, also for tuning."""
    problems: list[Problem] = []
    for experiment in EXPERIMENTS:
        tuned = any(entry.recipe == TUNED for entry in config.entries_of(experiment))
        find = tuning_cases if tuned else held_out_cases
        for fold in splits.folds if config.tasks_of(experiment) else ():
            try:
                find(config, splits, experiment, fold, cases)
            except InputError as error:
                problems += error.problems
    return problems


def _mask_problems(
    config: Config, job: Job, splits: Splits, cases: Mapping[str, Mapping[str, Case]]
) -> tuple[list[Problem], list[str]]:
    """Return the problems of the masks given for a job, and how many test cases have none."""
    problems: list[Problem] = []
    notices = []
    for task, folder in mask_folders(config, job).items():
        wanted = splits.of(job.fold, task).test
        try:
            found = mask_files(folder)
        except InputError as error:
            problems += error.problems
            continue
        problems += mask_problems(folder, found, wanted)
        for case in wanted:
            if case in found:
                try:
                    read_mask(found[case], cases[task][case], config.task(task))
                except InputError as error:
                    problems += error.problems
        absent = [case for case in wanted if case not in found]
        if absent:
            notices.append(f"{folder}: no mask of {len(absent)} of {len(wanted)} test cases, such as {absent[0]}")
    return problems, notices
