"""Splits keep a patient on one side in every task of a namespace, whatever the order of the files."""

import random

import pytest

from segbench.core.case import Case
from segbench.core.errors import InputError
from segbench.data.splitting.folds import kfold_split, make_splits, seeded_split
from segbench.experiment.config import Data


def cases(task: str, patients: list[str], studies: int = 1) -> list[Case]:
    return [
        Case(
            task, f"{patient}_{study}", patient, ("i.nii.gz",), "l.nii.gz", "a", "b", (2, 2, 2), (1.0, 1.0, 1.0), "RAS"
        )
        for patient in patients
        for study in range(studies)
    ]


PATIENTS = [f"STS_{number:03d}" for number in range(51)]
SHARED = {"petct": cases("petct", PATIENTS), "mr": cases("mr", PATIENTS, studies=2)}
NAMESPACE = {"petct": "sts", "mr": "sts"}


def patients(split: dict, task: str, side: str) -> set[str]:
    known = {case.case_id: case.patient_id for case in SHARED[task]}
    return {known[name] for name in split[task][side]}


@pytest.mark.parametrize("make", ["seeded", "kfold"])
def test_a_shared_patient_is_on_one_side_in_both_tasks(make):
    if make == "seeded":
        split = seeded_split(SHARED, NAMESPACE, fraction=0.2, seed=1)
    else:
        split = kfold_split(SHARED, NAMESPACE, fold=2, count=5, seed=1)
    assert not patients(split, "petct", "train") & patients(split, "mr", "test")
    assert not patients(split, "mr", "train") & patients(split, "petct", "test")
    assert len(patients(split, "petct", "test")) == 10


def test_the_order_of_files_does_not_matter():
    shuffled = {task: random.Random(3).sample(rows, len(rows)) for task, rows in SHARED.items()}
    assert seeded_split(SHARED, NAMESPACE, fraction=0.2, seed=1) == seeded_split(
        shuffled, NAMESPACE, fraction=0.2, seed=1
    )


def test_the_seed_matters_and_the_sides_are_whole():
    first = seeded_split(SHARED, NAMESPACE, fraction=0.2, seed=1)
    other = seeded_split(SHARED, NAMESPACE, fraction=0.2, seed=2)
    assert first != other
    for task, rows in SHARED.items():
        assert sorted(first[task]["train"] + first[task]["test"]) == sorted(case.case_id for case in rows)


def test_the_folds_test_every_case_once():
    tested = [
        name
        for fold in range(5)
        for name in kfold_split(SHARED, NAMESPACE, fold=fold, count=5, seed=1)["petct"]["test"]
    ]
    assert sorted(tested) == sorted(case.case_id for case in SHARED["petct"])


def test_one_patient_cannot_be_split():
    with pytest.raises(InputError, match="1 patient"):
        make_splits({"petct": cases("petct", ["only"])}, NAMESPACE, Data(root="x"))


def test_a_fold_that_the_protocol_lacks_is_refused():
    with pytest.raises(InputError, match=r"data\.folds"):
        make_splits(SHARED, NAMESPACE, Data(root="x", folds=(0, 1)))


def test_the_hash_covers_the_lists():
    first = make_splits(SHARED, NAMESPACE, Data(root="x"))
    second = make_splits(SHARED, NAMESPACE, Data(root="x", split_seed=9))
    assert first["sha256"] != second["sha256"]
