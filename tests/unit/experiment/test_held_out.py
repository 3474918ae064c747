"""Held-out patients: ranked by a seed, at least one on each side, and on the same side in all tasks."""

import pytest

from segbench.core.errors import InputError
from segbench.core.seeds import seed_for
from segbench.experiment.held_out import held_out_cases


def cases(*patients, space="a") -> dict:
    """Return a case for each patient."""
    return {f"case_{number}_of_{patient}": (space, patient) for number, patient in enumerate(patients)}


def patients_of(task, held) -> set:
    return {task[case] for case in held}


def test_the_first_patients_by_seed_are_held_out_in_the_order_of_the_training_cases():
    task = cases(*"abcdefghij")
    held = held_out_cases({"x": task}, fraction=0.3, fold=1)["x"]
    ranked = sorted(set(task.values()), key=lambda patient: seed_for("tuning", 1, *patient))
    assert patients_of(task, held) == set(ranked[:3])
    assert list(held) == [case for case in task if case in held]


def test_another_fold_or_namespace_holds_out_others():
    task = cases(*"abcdefghij")
    own, fold = (held_out_cases({"x": task}, fraction=0.3, fold=number)["x"] for number in (0, 1))
    other = held_out_cases({"x": cases(*"abcdefghij", space="b")}, fraction=0.3, fold=0)["x"]
    assert len({own, fold, other}) == 3


@pytest.mark.parametrize(("count", "fraction", "held"), [(2, 0.01, 1), (2, 0.5, 1), (3, 0.5, 2), (10, 0.25, 2)])
def test_at_least_one_patient_is_on_each_side(count, fraction, held):
    found = held_out_cases({"x": cases(*range(count))}, fraction=fraction, fold=0)["x"]
    assert len(found) == held


def test_all_cases_of_a_patient_are_held_out_together():
    task = cases("a", "b", "a", "b", "a")
    held = held_out_cases({"x": task}, fraction=0.5, fold=0)["x"]
    assert len(patients_of(task, held)) == 1
    assert [case for case in task if task[case] in patients_of(task, held)] == list(held)


def test_a_patient_that_one_task_holds_out_is_held_out_in_all():
    late = sorted("abcdefgh", key=lambda patient: seed_for("tuning", 0, "a", patient))[-2:]
    tasks = {"few": cases(*late), "many": cases(*"abcdefgh")}
    held = held_out_cases(tasks, fraction=0.25, fold=0)
    alone = held_out_cases({"many": tasks["many"]}, fraction=0.25, fold=0)["many"]
    assert patients_of(tasks["few"], held["few"]) == {("a", late[0])}
    assert patients_of(tasks["many"], held["many"]) == patients_of(tasks["many"], alone) | {("a", late[0])}
    assert ("a", late[0]) not in patients_of(tasks["many"], alone)


def test_a_task_without_a_patient_to_train_on_is_refused():
    tasks = {"x": cases(*"abc"), "one": cases("z", "z"), "none": {}}
    with pytest.raises(InputError) as caught:
        held_out_cases(tasks, fraction=0.2, fold=3)
    lines = [problem.line() for problem in caught.value.problems]
    assert [line.partition(":")[0] for line in lines] == [
        "training patients of one in fold 3",
        "training patients of none in fold 3",
    ]
    assert "found 1, none of them left to train on; expected at least one to train on and one to score" in lines[0]
