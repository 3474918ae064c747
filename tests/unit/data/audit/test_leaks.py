"""The audit finds what is known of the released lists, and the repaired lists are clean."""

import random

import pytest

from segbench.data.audit import leaks as audit
from segbench.data.splitting import protocols
from tests.paths import SHARED

RELEASED = SHARED / "reference" / "splits"


def members(*, corrected: bool) -> list[audit.Member]:
    """Entries of the released lists, as published or repaired."""
    rules = {rule.task: rule for rule in protocols.RELEASED}
    found = []
    for file in protocols.RELEASED_SHA256:
        if not (RELEASED / file).exists():
            pytest.skip("the released split files are not beside this checkout")
        for task, split in protocols.by_task(protocols.read_released(RELEASED / file)).items():
            rule = rules[task]

            def patient(name, rule=rule):
                return protocols.patient_of_released(rule, name)

            if corrected:
                split, _ = protocols.correct(split, patient)
            found += [
                audit.Member(task, name, patient(name), task, side, rule.experiment)
                for side in split
                for name in split[side]
            ]
    return found


def test_the_released_lists_share_two_cases_and_three_patients():
    found = audit.audit(members(corrected=False))
    named = " ".join(item.name for item in found)
    assert len(found) == 5
    for part in ("kidney_1", "kidney_2", "15f4b7254f", "1a1712f7d0", "32aa845af1"):
        assert part in named


def test_the_corrected_lists_are_clean():
    assert not audit.audit(members(corrected=True))


def test_tasks_that_share_patients_and_are_split_apart_leak():
    patients = [f"STS_{number:03d}" for number in range(51)]
    found = []
    for seed, task in enumerate(("petct", "mr")):
        shuffled = random.Random(seed).sample(patients, len(patients))
        found += [
            audit.Member(task, name, name, "sts", "test" if place < 10 else "train")
            for place, name in enumerate(shuffled)
        ]
    assert audit.audit(found)
    together = [
        audit.Member(task, name, name, "sts", "test" if name < "STS_010" else "train")
        for task in ("petct", "mr")
        for name in patients
    ]
    assert not audit.audit(together)


def test_spellings_of_one_patient_are_that_patient():
    members = [
        audit.Member("liver", "x", "P01", "hospital", "train"),
        audit.Member("liver", "y", "p1", "hospital", "test"),
        audit.Member("liver", "z", "p10", "hospital", "test"),
        audit.Member("heart", "u", "P 1", "elsewhere", "test"),
    ]
    (finding,) = audit.audit(members)
    assert (finding.kind, finding.train_cases, finding.test_cases) == ("same patient", "x", "y")
    assert finding.evidence == "patient P01 and p1, spellings of one id"


def test_spellings_of_one_case_are_reported_once():
    members = [audit.Member("liver", name, name, "liver", side) for name, side in (("c1", "train"), ("C01", "test"))]
    assert [item.kind for item in audit.audit(members)] == ["same case"]
