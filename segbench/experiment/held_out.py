"""Which training patients score the trials of a tuned training; test cases are on neither side."""

from __future__ import annotations

from collections.abc import Mapping

from segbench.core.errors import Problem, raise_problems
from segbench.core.seeds import seed_for

Patient = tuple[str, str]
"""Patient namespace and id: the same person in every task."""


def held_out_cases(
    cases: Mapping[str, Mapping[str, Patient]], *, fraction: float, fold: int
) -> dict[str, tuple[str, ...]]:
    """Return task -> the cases that score trials, in the order of the training cases.

    The patients of each task are ranked by the seed of ("tuning", fold, namespace, patient), and the first ones are
    held out: the fraction of them, rounded, and at least one. A patient that one task holds out is held out in all.

    Args:
        cases: task -> training case -> its patient.
        fraction: fraction of the patients.
        fold: the fold.

    Raises:
        InputError: a task has no patient left to train on.
    """
    held: set[Patient] = set()
    for patients in cases.values():
        ranked = sorted(set(patients.values()), key=lambda patient: (seed_for("tuning", fold, *patient), patient))
        held.update(ranked[: max(1, round(fraction * len(ranked)))])
    raise_problems(
        Problem(
            f"training patients of {task} in fold {fold}",
            f"{len(set(patients.values()))}, none of them left to train on",
            "at least one to train on and one to score the trials of training.tuning",
            "add cases, lower validation_fraction, or use another recipe",
        )
        for task, patients in cases.items()
        if set(patients.values()) <= held
    )
    return {
        task: tuple(case for case, patient in patients.items() if patient in held) for task, patients in cases.items()
    }
