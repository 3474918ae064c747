"""Leaks through pre-trained weights: test cases of the downstream tasks that a file of weights was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from segbench.core.run_record import Finding
from segbench.data.audit.leaks import Member
from segbench.experiment.config import Config
from segbench.experiment.weights import files_of, seen_patients


def weights_findings(config: Config, members: Iterable[Member]) -> list[Finding]:
    """Return one finding for each file of weights, task and fold whose test cases the weights have seen.

    Patients are compared as those of a split: by namespace and patient id. Weights whose data are unknown give no
    finding; the tables mark them.
    """
    tested = [member for member in members if member.side == "test" and member.experiment == "downstream"]
    return list(_findings(config, tested))


def _findings(config: Config, tested: list[Member]) -> Iterator[Finding]:
    for name, item in files_of(config).items():
        whole, patients = seen_patients(config, item)
        stated = "the config" if item.trained_on is not None else f"the format {item.format}"
        groups: dict[tuple[str, str], list[str]] = {}
        for member in tested:
            if member.namespace in whole or (member.namespace, member.patient_id) in patients:
                groups.setdefault((member.task, member.fold), []).append(member.case_id)
        for (task, fold), cases in groups.items():
            seen = " ".join(sorted(cases))
            yield Finding(
                name=f"weights:{name}/{task}",
                kind="pre-trained weights",
                relation="weights to downstream",
                fold=fold,
                train_task=f"weights {name}",
                train_cases=seen,
                test_task=task,
                test_cases=seen,
                evidence=f"trained_on of {stated}",
            )
