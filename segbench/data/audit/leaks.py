"""Leak audit: the same case, patient or image on both sides of a split, across tasks and from upstream to downstream.

A test case of the upstream experiment must be unknown to all upstream training; a test case of the downstream
experiment must be unknown to upstream and downstream training. Folders without a split are compared as a whole: there
a finding says what would leak if the folders were split apart from each other.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from segbench.core.case import Case
from segbench.core.errors import Problem, raise_problems, short
from segbench.core.files import atomic_path, write_text
from segbench.core.names import same_case_groups
from segbench.core.progress import Progress
from segbench.core.run_record import Finding
from segbench.data.audit.fingerprint import SAME_LANDMARKS, Fingerprint, Match, fingerprints_of, same_images
from segbench.data.parallel import mapped
from segbench.data.volumes import UNREADABLE

CaseKey = tuple[str, str]
UNSPLIT = "unsplit"
FORM = 1  # of stored fingerprints; a change of segbench/data/audit/fingerprint.py that changes them raises it


@dataclass(frozen=True)
class Member:
    """A case of a split. experiment: upstream or downstream; side: train, test or unsplit (a bare folder).

    Patient ids are comparable only within a namespace. listed_as: the key of its list (train, val, test), blank where
    none is known. source: the file that its task is called after, blank where the task has a name of its own.
    """

    task: str
    case_id: str
    patient_id: str
    namespace: str
    side: str = UNSPLIT
    experiment: str = "upstream"
    fold: str = "0"
    listed_as: str = ""
    source: str = ""

    @property
    def key(self) -> CaseKey:
        """Task, or the file that it is called after, and case id."""
        return self.source or self.task, self.case_id


def audit(members: Sequence[Member], images: Mapping[tuple[CaseKey, CaseKey], str] | None = None) -> list[Finding]:
    """Return every leak of a split, cases first, then patients, then images; an empty list when there is none.

    images: pairs of cases that show the same image, with the evidence (`same_image_pairs`).
    """
    found = []
    members = _told_apart(members)
    for fold in dict.fromkeys(member.fold for member in members):
        inside = [member for member in members if member.fold == fold]
        found += [
            *_same_cases(inside),
            *_in_val_and_test(inside),
            *_same_patients(inside),
            *_same_images(inside, images or {}),
        ]
    order = {"same case": 0, "same patient": 1, "same image": 2}
    return sorted(found, key=lambda item: (item.fold, order[item.kind], item.name, item.train_task, item.test_task))


def _told_apart(members: Sequence[Member]) -> list[Member]:
    """Return the members with the path of the file for its name where two files have one name."""
    sources = defaultdict(set)
    for member in members:
        sources[member.task].add(member.source)
    shared = {task for task, found in sources.items() if len(found) > 1}
    return [
        replace(member, task=member.source, namespace=member.source)
        if member.source and member.task in shared
        else member
        for member in members
    ]


def _leaks(first: Member, second: Member) -> bool:
    """Tell whether knowledge of the first case reaches a model that is tested on the second."""
    if first.side == second.side == UNSPLIT:
        return first.key != second.key
    return (
        first.side == "train"
        and second.side == "test"
        and (first.experiment, second.experiment) != ("downstream", "upstream")
    )


def _relation(first: Member, second: Member) -> str:
    if first.experiment != second.experiment:
        return "upstream to downstream"
    return "within a task" if first.task == second.task else "across tasks"


def _groups(members: Iterable[Member], key) -> Iterable[list[Member]]:
    groups = defaultdict(list)
    for member in members:
        groups[key(member)].append(member)
    return (group for group in groups.values() if len(group) > 1)


def _pairs(group: Sequence[Member]) -> Iterable[tuple[Member, Member]]:
    for place, first in enumerate(group):
        for second in group[place + 1 :]:
            if _leaks(first, second):
                yield first, second
            elif _leaks(second, first):
                yield second, first


def _same_cases(members: Sequence[Member]) -> Iterable[Finding]:
    """One finding per case on both sides; names that are spellings of one case are that case."""
    for group in _groups(members, lambda item: item.key):
        for first, second in _pairs(group):
            name = f"case:{first.task}/{first.case_id}"
            yield _finding(name, "same case", [first], [second], "listed on both sides")
    case_of = _spelled_in(members, lambda item: item.task, lambda item: item.case_id)
    for group in _groups(members, lambda item: (item.task, case_of[item.task][item.case_id])):
        for first, second in _pairs(group):
            if first.case_id != second.case_id:
                name = f"case:{first.task}/{case_of[first.task][first.case_id]}"
                yield _finding(name, "same case", [first], [second], "two spellings of one case")


def _in_val_and_test(members: Sequence[Member]) -> Iterable[Finding]:
    """One finding per case that a fold lists under val and under test, which both count as test."""
    for group in _groups(members, lambda item: (item.key, item.experiment)):
        lists = [[member for member in group if member.listed_as == key] for key in ("val", "test")]
        if all(lists):
            name = f"case:{group[0].task}/{group[0].case_id}"
            yield _finding(name, "same case", *lists, "listed under val and under test, which both count as test")


def _same_patients(members: Sequence[Member]) -> Iterable[Finding]:
    """One finding per patient and pair of tasks; a case on both sides is not reported twice.

    Ids of a namespace that are spellings of one patient are that patient.
    """
    case_of = _spelled_in(members, lambda item: item.task, lambda item: item.case_id)
    patient_of = _spelled_in(members, lambda item: item.namespace, lambda item: item.patient_id)
    for group in _groups(members, lambda item: (item.namespace, patient_of[item.namespace][item.patient_id])):
        between = defaultdict(list)
        for first, second in _pairs(group):
            same_task = first.task == second.task
            same_case = same_task and case_of[first.task][first.case_id] == case_of[second.task][second.case_id]
            if not (same_task if first.side == UNSPLIT else same_case):
                between[first.task, first.experiment, second.task, second.experiment].append((first, second))
        for pairs in between.values():
            trained, tested = zip(*pairs, strict=True)
            name = f"patient:{trained[0].namespace}/{trained[0].patient_id}"
            spellings = sorted({item.patient_id for pair in pairs for item in pair})
            evidence = f"patient {' and '.join(spellings)}" + (", spellings of one id" if len(spellings) > 1 else "")
            yield _finding(name, "same patient", trained, tested, evidence)


def _spelled_in(
    members: Sequence[Member], scope: Callable[[Member], str], name: Callable[[Member], str]
) -> dict[str, dict[str, str]]:
    """Return scope -> name -> normal name, the same for all spellings of one name within a scope."""
    names = defaultdict(set)
    for member in members:
        names[scope(member)].add(name(member))
    return {where: same_case_groups(sorted(found)) for where, found in names.items()}


def _same_images(members: Sequence[Member], images: Mapping[tuple[CaseKey, CaseKey], str]) -> Iterable[Finding]:
    places = defaultdict(list)
    for member in members:
        places[member.key].append(member)
    for (one, other), evidence in images.items():
        name = f"image:{'='.join('/'.join(key) for key in sorted((one, other)))}"
        for first in places[one]:
            for second in places[other]:
                for trained, tested in _pairs([first, second]):
                    yield _finding(name, "same image", [trained], [tested], evidence)


def _finding(name: str, kind: str, trained: Sequence[Member], tested: Sequence[Member], evidence: str) -> Finding:
    first, second = trained[0], tested[0]
    listed = [" ".join(sorted({item.case_id for item in side})) for side in (trained, tested)]
    return Finding(
        name=name,
        kind=kind,
        relation=_relation(first, second),
        fold=first.fold,
        train_task=first.task,
        train_cases=listed[0],
        test_task=second.task,
        test_cases=listed[1],
        evidence=evidence,
    )


def accept(findings: Iterable[Finding], names: Iterable[str]) -> list[Finding]:
    """Return the findings with those of the given names marked as accepted."""
    names = set(names)
    return [item.model_copy(update={"accepted": str(item.name in names)}) for item in findings]


def members_of_split(split: Mapping, patients: Mapping[CaseKey, tuple[str, str]], experiments: Mapping) -> list[Member]:
    """Return the members of a splits file.

    Args:
        split: the content of the file.
        patients: (task, case) -> (namespace, patient); a case without an entry is its own patient in a namespace of
            its task.
        experiments: task -> the experiments that it is part of.
    """
    return [
        Member(task, case_id, patient, namespace, side, experiment, fold)
        for fold, tasks in split["folds"].items()
        for task, sides in tasks.items()
        for experiment in experiments.get(task, ("upstream",))
        for side in ("train", "test")
        for case_id in sides[side]
        for namespace, patient in [patients.get((task, case_id), (task, case_id))]
    ]


def same_image_pairs(
    cases: Sequence[Case], *, cache_root: Path | None = None, workers: int = 1
) -> dict[tuple[CaseKey, CaseKey], str]:
    """Return the pairs of cases with the same image content and the evidence for each.

    Fingerprints are kept below `cache_root` under the hash of the image files, so that a second audit reads no image.
    All images that cannot be read come in one InputError.
    """
    work = partial(_prints_or_problem, cache_root=cache_root)
    with Progress(total=len(cases), title="fingerprint") as progress:
        found: list[list[Fingerprint]] = []
        problems: list[Problem] = []
        for prints in mapped(work, cases, workers=workers):
            if isinstance(prints, Problem):
                problems.append(prints)
            else:
                found.append(prints)
            progress.advance()
    raise_problems(problems)
    owners = [number for number, prints in enumerate(found) for _ in prints]
    matches: dict[tuple[int, int], list[Match]] = defaultdict(list)
    for match in same_images([item for prints in found for item in prints], owners):
        matches[owners[match.first], owners[match.second]].append(match)
    return {
        (_key(cases[first]), _key(cases[second])): _evidence(group)
        for (first, second), group in matches.items()
        if _convinces(group, channels=min(len(found[first]), len(found[second])))
    }


def _key(case: Case) -> CaseKey:
    return case.task, case.case_id


def _convinces(matches: Sequence[Match], *, channels: int) -> bool:
    """Landmarks of one channel suffice; thumbnails must agree in every channel, as registered brains look alike."""
    agreeing = min(len({match.first for match in matches}), len({match.second for match in matches}))
    return agreeing >= channels or any(match.shared_landmarks >= SAME_LANDMARKS for match in matches)


def _evidence(matches: Sequence[Match]) -> str:
    likeness = max(match.correlation for match in matches)
    shared = max(match.shared_landmarks for match in matches)
    return f"thumbnails correlate at {likeness:.3f}, {shared} shared landmarks"


def _prints_or_problem(case: Case, cache_root: Path | None) -> list[Fingerprint] | Problem:
    """A problem is returned, not raised, so that all problems come at once."""
    try:
        return case_fingerprints(case, cache_root)
    except UNREADABLE as error:
        found = f"an image that cannot be read ({short(error, most=120)})"
        return Problem(f"{case.task}/{case.case_id}: {case.image_paths[0]}", found, "an image", "get the file again")


def case_fingerprints(case: Case, cache_root: Path | None = None) -> list[Fingerprint]:
    """Return the fingerprints of a case, one per channel, from the cache when they are there."""
    path = cache_root / f"{case.image_sha256}.v{FORM}.npz" if cache_root and case.image_sha256 else None
    if path is not None and path.exists():
        with np.load(path, allow_pickle=False) as stored:
            count = len(stored.files) // 2
            return [Fingerprint(stored[f"thumbnail{k}"], stored[f"landmarks{k}"]) for k in range(count)]
    prints = fingerprints_of(case.image_paths)
    if path is not None:
        arrays = {f"thumbnail{k}": item.thumbnail_XYZ for k, item in enumerate(prints)}
        arrays |= {f"landmarks{k}": item.landmarks for k, item in enumerate(prints)}
        with atomic_path(path) as temporary:
            np.savez(temporary, **arrays)
    return prints


def write_findings(path: Path | str, findings: Iterable[Finding]) -> None:
    """Write the findings as CSV; without findings the file holds the header alone."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(Finding.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(item.model_dump() for item in findings)
    write_text(path, stream.getvalue())
