"""Protocols that follow lists: read released split files, map their names to ours, repair leaks.

The files are pickles, which `pickled_lists` reads without running code. Two protocols come from them:

- `as_published`: the released lists, leaks included;
- `corrected`: a case or patient on both sides is moved to one side, as `correct` says.

`listed` and the BTCV protocols follow lists that the user writes as JSON.

The three protocols in use for BTCV are separate names (`BTCV_PROTOCOLS`), because their scores do not compare.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segbench.core.case import Case
from segbench.core.errors import InputError, Problem, input_error, raise_problems, short
from segbench.core.files import sha256_of
from segbench.core.names import matched
from segbench.core.task import Task
from segbench.data.layouts import distinct_keys, text_of
from segbench.data.splitting.pickled_lists import load_lists
from segbench.data.volumes import open_volume
from segbench.experiment.config import Data
from segbench.experiment.config.data import PICKLES

Sides = dict[str, list[str]]
SIDES = {"train": "train", "val": "test", "test": "test"}
SPELLINGS = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
SEE = "see docs/protocols.md"

RELEASED_SHA256 = {
    "splits_final_11_tasks.pkl": "49b5439bb5073fd25dc74138caf6f4f07aa6f78326b2e5e135e865e06c961678",
    "splits_final_BTCV.pkl": "7acb9912c77e0237fea8dd94f4eba2ecaa5f0d81263fdb5974b16e4f589870a4",
    "splits_final_VS.pkl": "23467c82509b3d7bb87a3301e5f2b7002d67fed17da6df85b05f6692625d5c17",
}


@dataclass(frozen=True)
class Released:
    """How the released lists name the cases of one of our tasks.

    pattern: regular expression of a released name with the group `key`, and `patient` where a patient has several
    cases; ours: the same key in our case ids. by: "key"; "rank", the position among all case ids in order; or "study",
    the position among a patient's studies.
    """

    task: str
    experiment: str
    pattern: str
    ours: str
    by: str = "key"


RELEASED = (
    Released("lits", "upstream", r"liver_(?P<key>\d+)", r"liver_(?P<key>\d+)"),
    Released("kits19", "upstream", r"kidney_(?P<key>\d+)", r"case_(?P<key>\d+)"),
    Released("msd_hepatic_vessel", "upstream", r"hepaticvessel_(?P<key>\d+)", r"hepaticvessel_(?P<key>\d+)"),
    Released("msd_pancreas", "upstream", r"pancreas_(?P<key>\d+)", r"pancreas_(?P<key>\d+)"),
    Released("msd_colon", "upstream", r"colon_(?P<key>\d+)", r"colon_(?P<key>\d+)"),
    Released("msd_lung", "upstream", r"lung_(?P<key>\d+)", r"lung_(?P<key>\d+)"),
    Released("msd_spleen", "upstream", r"spleen_(?P<key>\d+)", r"spleen_(?P<key>\d+)"),
    Released("verse20", "upstream", r"sub-(?P<key>(?:verse|gl)\d+)", r"sub-(?P<key>(?:verse|gl)\d+)(?:_.*)?"),
    Released("prostate_saml", "upstream", r"prostate_(?P<key>\d+)", r"(?P<key>.+)", by="rank"),
    Released("brats21", "upstream", r"BraTS2021_(?P<key>\d+)", r"BraTS2021_(?P<key>\d+)"),
    Released("autopet22", "upstream", r"(?P<patient>PETCT_[0-9a-f]+)_(?P<key>\d+)", r"(?P<key>.+)", by="study"),
    Released("btcv", "downstream", r"bcv_(?P<key>\d+)", r"img(?P<key>\d+)"),
    Released("vs_seg", "downstream", r"vs_gk_(?P<key>\d+)", r"vs_gk_(?P<key>\d+)"),
)


def _numbers(*ranges: range) -> tuple[int, ...]:
    return tuple(number for part in ranges for number in part)


@dataclass(frozen=True)
class BtcvProtocol:
    """One of the BTCV protocols in use: scan numbers of both sides and the organs scored.

    A protocol whose lists were not published with it has empty numbers: the user's file brings them.
    """

    train_count: int
    test_count: int
    organs: int
    train: tuple[int, ...] = ()
    test: tuple[int, ...] = ()


BTCV_PROTOCOLS = {
    "btcv_21_9": BtcvProtocol(21, 9, 13, _numbers(range(1, 11), range(21, 32)), _numbers(range(32, 41))),
    "btcv_24_6": BtcvProtocol(24, 6, 13),
    "btcv_18_12": BtcvProtocol(18, 12, 8),
}


def read_released(path: Path | str) -> Sides:
    """Return {"train": [...], "test": [...]} of the first fold of a released split file, names as written there.

    Raises InputError for a file that asks for anything but lists of names, or that has no fold.
    """
    expected = "a pickled list of {'train': names, 'val': names}"
    content = load_lists(path)
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise input_error(path, found=type(content).__name__, expected=expected, fix=SEE)
    if not content:
        raise input_error(path, found="no fold", expected=expected, fix=SEE)
    return sides_of(path, content[0], expected)


def sides_of(path: Path | str, content: Mapping, expected: str) -> Sides:
    """Return both sides of one fold; entries that are not lists of names raise InputError. `val` counts as test."""
    sides: Sides = {"train": [], "test": []}
    for key, names in lists_of(path, content, expected).items():
        sides[SIDES[key]] += names
    return sides


def lists_of(path: Path | str, content: Mapping, expected: str) -> dict[str, list[str]]:
    """Return the lists of one fold under the keys train, val and test, as far as they are there.

    Letter case and the words training, valid, validation and testing count as well. Other keys, one side under two
    keys, and entries that are not lists of names raise InputError.
    """
    lists: dict[str, list[str]] = {}
    for key, names in content.items():
        side = side_key(key)
        if side is None:
            found, fix = f"the key {key!r}"[:80], f"take it out, or name the sides train, val or test ({SEE})"
            raise input_error(path, found=found, expected=expected, fix=fix)
        if side in lists:
            raise input_error(path, found=f"two keys for {side!r}", expected=expected, fix="keep one of them")
        if isinstance(names, list) and any(isinstance(name, int | float) for name in names):
            found = f"numbers such as {names[0]} under {key!r}"
            raise input_error(path, found=found, expected="names of cases as text", fix='write them in quotes: "001"')
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise input_error(path, found=f"no list of names under {key!r}", expected=expected, fix=SEE)
        lists[side] = names
    return lists


def side_key(key: object) -> str | None:
    """Return train, val or test for the key of a list, None for any other key."""
    word = str(key).strip().casefold()
    word = SPELLINGS.get(word, word)
    return word if word in SIDES else None


def is_one_fold(content: object) -> bool:
    """Tell whether content is a mapping with lists of sides, and not of tasks; it may have wrong keys beside them."""
    if not isinstance(content, dict):
        return False
    return any(side_key(key) and not isinstance(names, dict) for key, names in content.items())


def numbered_folds(path: Path | str, content: object) -> dict[str, dict] | None:
    """Return number -> sides of {"fold_0": sides, ...} or {"0": sides, ...}; None for anything else.

    Two keys of one number raise InputError.
    """
    if not isinstance(content, dict) or not content or not all(is_one_fold(sides) for sides in content.values()):
        return None
    numbers = [re.fullmatch(r"(?:fold)?[\s_-]*(\d+)", str(key).strip().casefold()) for key in content]
    folds = {str(int(match[1])): sides for match, sides in zip(numbers, content.values(), strict=True) if match}
    if not all(numbers):
        return None
    if len(folds) < len(numbers):
        found = f"folds {', '.join(map(str, content))}"[:120]
        raise input_error(path, found=found, expected="each fold once", fix="rename the folds")
    return folds


def rule_of(name: str) -> Released | None:
    """Return how a released name, in any letter case, is read; None for a name that no rule knows."""
    return next((rule for rule in RELEASED if re.fullmatch(rule.pattern, name, re.IGNORECASE)), None)


def patient_of_released(rule: Released, name: str) -> str:
    """Return the patient of a released name: its group, or the whole name."""
    match = re.fullmatch(rule.pattern, name, re.IGNORECASE)
    assert match is not None, (rule, name)
    return match.groupdict().get("patient") or name


def by_task(sides: Sides) -> dict[str, Sides]:
    """Return the released names of each task; a name that no rule knows raises InputError."""
    tasks: dict[str, Sides] = {}
    problems = []
    for side, names in sides.items():
        for name in names:
            rule = rule_of(name)
            if rule is None:
                problems.append(Problem(f"split, {side}", repr(name), "a released case name", "see docs/protocols.md"))
                continue
            tasks.setdefault(rule.task, {"train": [], "test": []})[side].append(name)
    raise_problems(problems)
    return tasks


def correct(sides: Sides, patient_of: Callable[[str], str]) -> tuple[Sides, list[str]]:
    """Return the lists without leaks, and one sentence per change.

    A case listed on both sides is kept in training only: a published model has seen it, so it cannot be a test
    case. A patient with cases on both sides has the training cases moved to the test side when that moves fewer cases
    than the reverse, otherwise the test cases move to training. Order is kept; a second call changes nothing.
    """
    doubled = set(sides["train"]) & set(sides["test"])
    train, test = list(sides["train"]), [name for name in sides["test"] if name not in doubled]
    said = [f"{name}: on both sides, kept in training, removed from test" for name in sorted(doubled)]
    for patient in sorted({patient_of(name) for name in train} & {patient_of(name) for name in test}):
        seen = [name for name in train if patient_of(name) == patient]
        held = [name for name in test if patient_of(name) == patient]
        if len(seen) < len(held):
            train, test = [name for name in train if name not in seen], test + seen
            said.append(f"{' '.join(seen)}: patient {patient} is on both sides, moved to test")
        else:
            train, test = train + held, [name for name in test if name not in held]
            said.append(f"{' '.join(held)}: patient {patient} is on both sides, moved to training")
    return {"train": train, "test": test}, said


def listed_split(
    cases: Mapping[str, Sequence[Case]], protocol: str, split_files: Iterable[Path], *, accepted: Iterable[str] = ()
) -> tuple[dict[str, Sides], list[str]]:
    """Return the split of tasks by a protocol that follows lists, in our case ids, and one sentence per repair.

    accepted: SHA-256 of files in the released form that may stand for the released ones; a sentence names them.
    Files in the released form serve `as_published` and `corrected` first, own lists the other protocols. In the
    published protocol a patient with PET/CT studies on both sides has them numbered in the order of their
    names, which need not be the released order; `corrected` does not depend on it. Raises InputError that name every
    task without lists, a task with lists in two files, and the listed cases that are not there.
    """
    released: dict[str, Sides] = {}
    own: dict[str, Sides] = {}
    doubled: dict[str, str] = {}
    split: dict[str, Sides] = {}
    changes: list[str] = []
    problems: list[Problem] = []
    for path in split_files:
        if is_pickle(path):
            _add(released, _released_lists(path, accepted, changes), path)
        else:
            lists, said = own_lists(path)
            _add(own, lists, path)
            doubled |= said
    follows_released = protocol in ("as_published", "corrected")
    lists = own | released if follows_released else released | own
    for task, rows in cases.items():
        try:
            split[task] = _task_split(task, rows, lists.get(task), protocol, changes)
            changes += [] if follows_released or task not in doubled else [doubled[task]]
        except InputError as error:
            problems += error.problems
    raise_problems(problems)
    return split, changes


def _add(lists: dict[str, Sides], more: Mapping[str, Sides], path: Path) -> None:
    """Add the lists of a file; a task whose lists another file of that form has brought raises InputError."""
    raise_problems(
        Problem(str(path), f"lists of {task}, as in a file before it", "each task in one file", "remove one of them")
        for task in more
        if task in lists
    )
    lists |= more


def is_pickle(path: Path) -> bool:
    """Tell whether a file is a pickle by its name: .pkl or .pickle in any letter case."""
    return path.suffix.lower() in PICKLES


def _released_lists(path: Path, accepted: Iterable[str], changes: list[str]) -> dict[str, Sides]:
    """Return the lists of a released file by task; another file is refused unless its hash is accepted."""
    sides = read_released(path)
    digest = sha256_of(path)
    if digest not in RELEASED_SHA256.values():
        if digest not in accepted:
            raise input_error(
                path,
                found=f"SHA-256 {digest}",
                expected=f"that of {' or '.join(RELEASED_SHA256)}",
                fix="get the released file again, write your own lists as JSON, or name the hash in "
                "data.accept_split_files (docs/protocols.md)",
            )
        changes.append(f"{path.name} is not a released file, accepted by its SHA-256 {digest}")
    return by_task(sides)


def own_lists(path: Path) -> tuple[dict[str, Sides], dict[str, str]]:
    """Return {task: {"train": case ids, "test": case ids}} of a JSON file, and task -> a sentence on val and test.

    There is a sentence for each task with both keys, since both count as test. Any other content raises InputError.
    """
    expected = '{task: {"train": [case ids], "test": [case ids]}}'
    content = read_json(path, expected)
    if numbered_folds(path, content) or is_one_fold(content):
        found, fix = "lists without the name of a task", "write one fold's lists under the name of its task"
        raise input_error(path, found=found, expected=expected, fix=fix)
    if not isinstance(content, dict) or not all(isinstance(sides, dict) for sides in content.values()):
        raise input_error(path, found="other content", expected=expected, fix=SEE)
    said = {}
    for task, sides in content.items():
        lists = lists_of(path, sides, expected)
        if {"val", "test"} <= lists.keys():
            both = len(set(lists["val"]) & set(lists["test"]))
            said[task] = f"{task}: {path.name} lists val and test, both count as test ({both} case(s) in both)"
    return {task: sides_of(path, sides, expected) for task, sides in content.items()}, said


def read_json(path: Path, expected: str) -> object:
    """Return the content of a JSON file in UTF-8, with or without a byte order mark.

    Anything else, and a key that is there twice in one mapping, raises InputError.
    """
    try:
        return json.loads(text_of(path), object_pairs_hook=distinct_keys)
    except OSError as error:
        found = error.strerror or "a file that cannot be read"
        raise input_error(path, found=found, expected=expected, fix=SEE) from error
    except (ValueError, RecursionError) as error:
        found = f"content that cannot be read as JSON ({short(error, most=120)})"
        fix = f"write the lists as JSON in UTF-8 ({SEE})"
        raise input_error(path, found=found, expected=expected, fix=fix) from error


def _task_split(task: str, rows: Sequence[Case], sides: Sides | None, protocol: str, changes: list[str]) -> Sides:
    if protocol in BTCV_PROTOCOLS:
        sides = _btcv_lists(task, sides, BTCV_PROTOCOLS[protocol])
    rule = None if protocol in ("listed", *BTCV_PROTOCOLS) else next((r for r in RELEASED if r.task == task), None)
    if sides is None or (rule is None and protocol in ("as_published", "corrected")):
        known = "its lists in a JSON file" if protocol == "listed" else ", ".join(item.task for item in RELEASED)
        raise input_error(f"split of {task}", found="no list", expected=known, fix="add its file to data.split_files")
    if rule is not None and protocol == "corrected":
        sides, said = correct(sides, lambda name: patient_of_released(rule, name))
        changes += [f"{task}: {sentence}" for sentence in said]
    names = list(dict.fromkeys([*sides["train"], *sides["test"]]))
    if rule is None:
        found = matched(names, [row.case_id for row in rows])
    else:
        found = {"key": _by_key, "rank": _by_rank, "study": _by_study}[rule.by](rule, names, rows)
    missing = [name for name in names if name not in found]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise input_error(
            f"split of {task}",
            found=f"{len(missing)} listed cases that are not there: {shown}",
            expected=f"all {len(names)} cases of the lists",
            fix="complete the data set",
        )
    return {side: sorted({found[name] for name in listed}) for side, listed in sides.items()}


def check_organs(tasks: Iterable[Task], data: Data) -> None:
    """Raise InputError where a task follows a BTCV protocol but does not score that protocol's organs."""
    raise_problems(
        Problem(
            f"split of {task.name}",
            f"{len(task.structures)} structures",
            f"{protocol.organs}, as {name} scores",
            "use the card btcv (13 organs) or btcv_8_organs, or another protocol",
        )
        for task in tasks
        for name in [data.protocol_of(task.name)]
        for protocol in [BTCV_PROTOCOLS.get(name)]
        if protocol is not None and protocol.organs != len(task.structures)
    )


def _btcv_lists(task: str, sides: Sides | None, protocol: BtcvProtocol) -> Sides:
    """Return the case ids of a BTCV protocol: its own numbers, or the user's lists, whose lengths must agree."""
    if protocol.train:
        numbers = {"train": protocol.train, "test": protocol.test}
        sides = {side: [f"img{number:04d}" for number in listed] for side, listed in numbers.items()}
    if sides is None:
        raise input_error(
            f"split of {task}",
            found="no list",
            expected=f"{protocol.train_count} and {protocol.test_count} case ids",
            fix="this protocol's lists are not part of segbench: add them as JSON to data.split_files",
        )
    counts = len(sides["train"]), len(sides["test"])
    if counts != (protocol.train_count, protocol.test_count):
        raise input_error(
            f"split of {task}",
            found=f"{counts[0]} training and {counts[1]} test cases",
            expected=f"{protocol.train_count} and {protocol.test_count}",
            fix="fix the lists, or use `listed`",
        )
    return sides


def _by_key(rule: Released, names: Sequence[str], rows: Sequence[Case]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for row in rows:
        key = _key(rule.ours, row.case_id)
        if key is not None and key in keys:
            raise input_error(
                f"split of {rule.task}",
                found=f"{row.case_id} and {keys[key]} with one key {key}",
                expected="one case per key",
                fix="remove one of them",
            )
        if key is not None:
            keys[key] = row.case_id
    found = {name: keys.get(_key(rule.pattern, name) or "") for name in names}
    return {name: case_id for name, case_id in found.items() if case_id is not None}


def _by_rank(rule: Released, names: Sequence[str], rows: Sequence[Case]) -> dict[str, str]:
    """The released numbers count all cases, sites and files in alphabetical order; a gap would shift every name."""
    if len(rows) != len(names):
        raise input_error(
            f"split of {rule.task}",
            found=f"{len(rows)} cases",
            expected=f"exactly the {len(names)} listed, because the lists number them in order",
            fix="complete the data set",
        )
    ranked = sorted(row.case_id for row in rows)
    numbers = {name: int(_key(rule.pattern, name) or -1) for name in names}
    return {name: ranked[number] for name, number in numbers.items() if 0 <= number < len(ranked)}


def _by_study(rule: Released, names: Sequence[str], rows: Sequence[Case]) -> dict[str, str]:
    """Released names number a patient's studies in the order of a directory listing, and only those with a lesion.

    Where all of a patient's listed studies are on one side that order does not matter to the split. The number of
    listed studies must equal the number of studies with a lesion.
    """
    studies, listed = defaultdict(list), defaultdict(list)
    for row in rows:
        studies[row.patient_id].append(row)
    for name in names:
        listed[patient_of_released(rule, name)].append(name)
    found = {}
    for patient, released in listed.items():
        own = sorted(studies[patient], key=lambda row: row.case_id)
        if len(own) > len(released):
            own = [row for row in own if _has_foreground(row)]
        if len(own) == len(released):
            by_number = sorted(released, key=lambda name: int(_key(rule.pattern, name) or -1))
            found |= {name: row.case_id for name, row in zip(by_number, own, strict=True)}
    return found


def _has_foreground(row: Case) -> bool:
    return bool(open_volume(row.label_path).voxels().any())


def _key(pattern: str, name: str) -> str | None:
    """Return what identifies a case in a name: numbers without leading zeros, other keys in small letters."""
    match = re.fullmatch(pattern, name, re.IGNORECASE)
    if match is None:
        return None
    key = match.group("key")
    return str(int(key)) if key.isdigit() else key.casefold()
