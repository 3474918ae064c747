"""Splits by patient: seeded and k-fold protocols; one patient is on one side in all tasks that share a namespace.

A split is JSON: {"protocol", "task_protocols", "folds": {"0": {task: {"train": [...], "test": [...]}}}, "changes",
"sha256"}. It is keyed by case identity, never by directory order: patients are ranked by a hash of (seed, namespace,
patient). Protocols that follow lists are in `segbench.data.splitting.protocols`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from segbench.core.case import Case
from segbench.core.errors import input_error
from segbench.core.provenance import content_hash
from segbench.data.splitting.protocols import listed_split
from segbench.experiment.config import Data

Split = dict[str, dict[str, list[str]]]


def make_splits(
    cases: Mapping[str, Sequence[Case]], namespaces: Mapping[str, str], data: Data, *, lists: Sequence[Path] = ()
) -> dict:
    """Return the splits file of a run. cases: task -> cases; namespaces: task -> patient namespace; lists: files.

    Raises InputError when a task would have an empty side, or when the lists that were brought do not serve.
    """
    groups: dict[str, dict[str, Sequence[Case]]] = {}
    for task, rows in cases.items():
        groups.setdefault(data.protocol_of(task), {})[task] = rows
    folds: dict[str, Split] = {str(fold): {} for fold in data.folds}
    changes: list[str] = []
    for protocol, part in groups.items():
        for fold in data.folds:
            if protocol in ("kfold", "seeded"):
                folds[str(fold)] |= _fold(protocol, part, namespaces, data, fold)
                continue
            _check_fold(protocol, fold, 1)
            split, repaired = listed_split(part, protocol, lists, accepted=data.accept_split_files)
            folds[str(fold)] |= split
            changes += repaired
    ordered = {fold: {task: split[task] for task in cases} for fold, split in folds.items()}
    content = {
        "protocol": data.protocol,
        "task_protocols": {task: data.protocol_of(task) for task in cases},
        "folds": ordered,
        "changes": changes,
    }
    return content | {"sha256": content_hash(content)}


def _fold(
    protocol: str, cases: Mapping[str, Sequence[Case]], namespaces: Mapping[str, str], data: Data, fold: int
) -> Split:
    if protocol == "kfold":
        _check_fold(protocol, fold, data.fold_count)
        return kfold_split(cases, namespaces, fold=fold, count=data.fold_count, seed=data.split_seed)
    _check_fold(protocol, fold, 1)
    return seeded_split(cases, namespaces, fraction=data.test_fraction, seed=data.split_seed)


def _check_fold(protocol: str, fold: int, count: int) -> None:
    if not 0 <= fold < count:
        expected = f"0 to {count - 1}, the folds of {protocol}" if count > 1 else f"0, the only fold of {protocol}"
        raise input_error("data.folds", found=fold, expected=expected, fix="change data.folds")


def patient_rank(seed: int, namespace: str, patient: str) -> str:
    """Return a string whose order over patients is random but the same on every machine and for every task."""
    return hashlib.sha256(f"{seed}/{namespace}/{patient}".encode()).hexdigest()


def seeded_split(
    cases: Mapping[str, Sequence[Case]], namespaces: Mapping[str, str], *, fraction: float, seed: int
) -> Split:
    """Hold out a fraction of the patients of every task, keeping a patient's side in all tasks of a namespace."""
    side: dict[tuple[str, str], str] = {}
    split = {}
    for task, rows in cases.items():
        namespace = namespaces[task]
        patients = _ranked_patients(rows, namespace, seed)
        wanted = min(max(1, round(fraction * len(patients))), len(patients) - 1)
        _refuse_empty(task, len(patients))
        held = sum(side.get((namespace, patient)) == "test" for patient in patients)
        for patient in patients:
            if (namespace, patient) not in side:
                side[namespace, patient] = "test" if held < wanted else "train"
                held += side[namespace, patient] == "test"
        split[task] = _by_side(rows, {patient: side[namespace, patient] for patient in patients})
        _refuse_one_side(task, split[task])
    return split


def kfold_split(
    cases: Mapping[str, Sequence[Case]], namespaces: Mapping[str, str], *, fold: int, count: int, seed: int
) -> Split:
    """Return one of `count` folds: patient number r of a task's ranking is tested in fold r modulo count.

    A patient keeps the fold of the first task that has it, so that a task that is added leaves the others as they are.
    The grouped folds of scikit-learn know one task at a time and no such ranking.
    """
    fold_of: dict[tuple[str, str], int] = {}
    for task, rows in cases.items():
        namespace = namespaces[task]
        new = [name for name in _ranked_patients(rows, namespace, seed) if (namespace, name) not in fold_of]
        fold_of |= {(namespace, name): number % count for number, name in enumerate(new)}
    split = {}
    for task, rows in cases.items():
        sides = {row.patient_id: fold_of[namespaces[task], row.patient_id] == fold for row in rows}
        split[task] = _by_side(rows, {patient: "test" if held else "train" for patient, held in sides.items()})
        _refuse_one_side(task, split[task])
    return split


def _ranked_patients(rows: Sequence[Case], namespace: str, seed: int) -> list[str]:
    return sorted({row.patient_id for row in rows}, key=lambda patient: patient_rank(seed, namespace, patient))


def _by_side(rows: Sequence[Case], side: Mapping[str, str]) -> dict[str, list[str]]:
    return {name: sorted(row.case_id for row in rows if side[row.patient_id] == name) for name in ("train", "test")}


def _refuse_one_side(task: str, sides: Mapping[str, Sequence[str]]) -> None:
    """Refuse a task whose patients all went to one side, as other tasks of their namespace had put them there."""
    for name, cases in sides.items():
        if not cases:
            raise input_error(
                f"split of {task}",
                found=f"no patient for the {name} side",
                expected="patients on both sides",
                fix="change data.split_seed, data.test_fraction or data.fold_count, add cases, or leave the task out",
            )


def _refuse_empty(task: str, patients: int) -> None:
    if patients < 2:
        raise input_error(
            f"split of {task}",
            found=f"{patients} patient(s) for two sides",
            expected="patients on both sides",
            fix="add cases, or leave the task out",
        )
