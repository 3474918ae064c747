"""Which training patients are held out: the same ones for every method of an experiment, and none that is tested.

For learning curves (`training.validation_fraction`) no method learns from them, and they choose nothing. Those that
score the trials of tuned trainings (`training.tuning`) are among the others, and the trainings themselves see them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from segbench.core.case import Case, read_manifest
from segbench.core.errors import Problem, raise_problems
from segbench.core.paths import RunPaths
from segbench.core.seeds import seed_for
from segbench.experiment.config import Config
from segbench.experiment.splits import Splits, no_such_case

Patients = Mapping[str, Mapping[str, str]]
"""Task -> case -> patient, of the training side of a fold."""
AXES = {
    "validation": "add patients, leave the task out, or set training.validation_fraction to 0",
    "tuning": "add patients, leave the task out, or use another recipe than tuned",
}
"""What patients are held out for -> how a problem is put right."""


def held_out_cases(
    config: Config,
    splits: Splits,
    experiment: str,
    fold: int,
    cases: Mapping[str, Mapping[str, Case]] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Return task -> training cases that no method of an experiment learns from, in the order of the split.

    Args:
        config: of the run.
        splits: of the run.
        experiment: 'upstream' or 'downstream'.
        fold: of the split.
        cases: task -> case id -> case; None for those of the manifests, which are read only where any is held out.

    Raises:
        InputError: as `choose`, or a manifest is absent or lacks a case of the split.
    """
    fraction = config.training_of(experiment).validation_fraction
    if not fraction:
        return dict.fromkeys(config.tasks_of(experiment).names, ())
    patients = _training_patients(config, splits, experiment, fold, cases)
    return choose(patients, _namespaces(config, patients), fraction=fraction, fold=fold)


def tuning_cases(
    config: Config,
    splits: Splits,
    experiment: str,
    fold: int,
    cases: Mapping[str, Mapping[str, Case]] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Return task -> cases that score the trials of the tuned trainings of an experiment, in the order of the split.

    They are training cases that are not held out for validation. The arguments are those of `held_out_cases`.

    Raises:
        InputError: as `held_out_cases`.
    """
    tuning = config.training_of(experiment).tuning
    assert tuning is not None, "a config with a tuned entry and without a grid is refused"
    validation = held_out_cases(config, splits, experiment, fold, cases)
    patients = {
        task: {case: patient for case, patient in of_case.items() if case not in validation[task]}
        for task, of_case in _training_patients(config, splits, experiment, fold, cases).items()
    }
    namespaces = _namespaces(config, patients)
    return choose(patients, namespaces, fraction=tuning.validation_fraction, fold=fold, purpose="tuning")


def _namespaces(config: Config, tasks: Iterable[str]) -> dict[str, str]:
    return {task: config.dataset_cards[task]["patient_namespace"] for task in tasks}


def _training_patients(
    config: Config, splits: Splits, experiment: str, fold: int, cases: Mapping[str, Mapping[str, Case]] | None
) -> dict[str, dict[str, str]]:
    """Return task -> case -> patient of the training side of a fold."""
    tasks, paths = config.tasks_of(experiment).names, RunPaths(config.run)
    patients = {}
    for task in tasks:
        known = _listed(paths.manifest(task)) if cases is None else cases[task]
        train = splits.of(fold, task).train
        missing = [case for case in train if case not in known]
        if missing:
            raise no_such_case(paths.manifest(task), missing[0])
        patients[task] = {case: known[case].patient_id for case in train}
    return patients


def _listed(manifest: Path) -> dict[str, Case]:
    return {case.case_id: case for case in read_manifest(manifest)}


def choose(
    patients: Patients, namespaces: Mapping[str, str], *, fraction: float, fold: int, purpose: str = "validation"
) -> dict[str, tuple[str, ...]]:
    """Return task -> its training cases of held-out patients.

    Of each task the first patients by a hash of purpose, fold, namespace and name are held out: the fraction of them,
    rounded down, and at least one. A patient who is held out of one task is held out of every task of the namespace, so
    that a model of several tasks knows no held-out patient from another image.

    Args:
        patients: of the training side of the tasks that are learnt in one experiment.
        namespaces: task -> patient namespace of its card.
        fraction: of the patients of a task, above 0 and at most 0.5.
        fold: of the split.
        purpose: of `AXES`.

    Raises:
        InputError: a task has fewer than two training patients, or none that is not held out.
    """
    raise_problems(_too_few(patients, fold, AXES[purpose]))
    chosen: set[tuple[str, str]] = set()
    for task, of_case in patients.items():
        space, names = namespaces[task], set(of_case.values())
        ranked = sorted(names, key=lambda name: (seed_for(purpose, fold, space, name), name))
        chosen |= {(space, name) for name in ranked[: max(1, int(fraction * len(ranked)))]}
    found = {
        task: tuple(case for case, name in of_case.items() if (namespaces[task], name) in chosen)
        for task, of_case in patients.items()
    }
    raise_problems(
        Problem(_where(task, fold), "every one is held out", "one that is trained on", AXES[purpose])
        for task, cases in found.items()
        if len(cases) == len(patients[task])
    )
    return found


def _too_few(patients: Patients, fold: int, fix: str) -> Iterator[Problem]:
    for task, of_case in patients.items():
        count = len(set(of_case.values()))
        if count < 2:
            expected = "at least 2, one of them held out"
            yield Problem(_where(task, fold), str(count), expected, fix)


def _where(task: str, fold: int) -> str:
    return f"training patients of {task}, fold {fold}"
