"""Generic folder layouts; each function named in a card returns the labelled cases below a folder.

Paths of a data set's own listing must stay below its folder; links in the file system are followed.
"""

from __future__ import annotations

import csv
import io
import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segbench.core import cards
from segbench.core.case import CaseFiles
from segbench.core.errors import Problem, input_error, raise_problems, some
from segbench.core.folders import HIDDEN, folders_below
from segbench.core.names import CHANNEL
from segbench.data.volumes import SUFFIXES

PatientOf = Callable[[str], str]
Classes = Mapping[str, str]


def msd(folder: Path, card: dict) -> list[CaseFiles]:
    """Medical Segmentation Decathlon: dataset.json lists image and label of every training case."""
    content = dataset_json(folder, card)
    return msd_cases(folder, content, patient_of=lambda case: cards.patient_of(card, case), classes=card["classes"])


def nnunet_raw(folder: Path, card: dict) -> list[CaseFiles]:
    """nnU-Net v1 or v2 raw folder: imagesTr/CASE_0000.nii.gz per channel beside labelsTr/CASE.nii.gz."""
    content = dataset_json(folder, card)
    return nnunet_cases(folder, content, patient_of=lambda case: cards.patient_of(card, case), classes=card["classes"])


def table(folder: Path, card: dict) -> list[CaseFiles]:
    """A table cases.csv or cases.tsv with columns case, patient, label and one image column per channel name.

    The separator is the comma, semicolon or tab that the head has most. A column `annotated` names the classes that
    were looked for in a case, separated by `|`; a blank cell stands for all. Blanks around a cell count nowhere.
    """
    paths = [folder / name for name in ("cases.csv", "cases.tsv") if (folder / name).exists()]
    if not paths:
        raise input_error(folder / "cases.csv", found="no file", expected="the table of cases", fix=card["obtain"])
    if len(paths) > 1:
        raise input_error(folder, found="cases.csv and cases.tsv", expected="one table", fix="remove the stale one")
    return _table_cases(paths[0], folder, card)


def _table_cases(path: Path, folder: Path, card: dict) -> list[CaseFiles]:
    channels = [channel["name"] for channel in card["channels"]]
    found, problems, needed = [], [], ("case", "patient", "label", *channels)
    for number, row in enumerate(_table_rows(path, needed), start=2):
        if None in row or not all(row[name] for name in needed):
            problems.append(Problem(f"{path}, line {number}", "empty or extra cells", "one per column", "fix the row"))
            continue
        paths = [_inside(folder, row[name], path, problems) for name in (*channels, "label")]
        cell = row.get("annotated") or None
        names = [name.strip() for name in cell.split("|")] if cell else None
        annotated = _annotated(names, card["classes"], f"{path}, line {number}", problems)
        found.append(CaseFiles(row["case"], row["patient"], tuple(paths[:-1]), paths[-1], annotated))
    raise_problems(problems)
    return found


def _table_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a table with at least these columns; what is no such table raises InputError."""
    try:
        text = text_of(path)
        separator = max(",;\t", key=(text.splitlines() or [""])[0].count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        reader.fieldnames = head = [name.strip() for name in reader.fieldnames or []]
        rows = list(reader)
    except (OSError, ValueError) as error:
        raise input_error(path, found=f"no table ({error})", expected="text in UTF-8", fix="fix the file") from error
    except csv.Error as error:
        fix = "close the quotes of every cell, and double those inside"
        raise input_error(path, found=f"no table ({error})", expected="a CSV table", fix=fix) from error
    missing = [name for name in columns if name not in head]
    if missing:
        raise input_error(path, found=f"columns {head}", expected=f"also {missing}", fix="add the columns")
    twice = sorted({name for name in head if name and head.count(name) > 1})
    if twice:
        found, fix = f"the column {' and '.join(twice)} twice", "rename or remove one"
        raise input_error(path, found=found, expected="each column once", fix=fix)
    return [{name: _stripped(cell) for name, cell in row.items()} for row in rows]


def _stripped(cell: Any) -> Any:
    """Return a cell without the blanks around it; no cell and a list of extra cells stay as they are."""
    return cell.strip() if isinstance(cell, str) else cell


def text_of(path: Path) -> str:
    """Return the text of a regular file in UTF-8, with or without a byte order mark.

    Raises OSError for what cannot be opened (a pipe would be waited for), ValueError for another encoding.
    """
    if path.exists() and not path.is_file():
        raise OSError(0, "no regular file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("text in another encoding than UTF-8") from error


def dataset_json(folder: Path, card: dict | None = None) -> dict:
    """Read dataset.json of a folder; a missing or damaged file raises InputError."""
    path = folder / "dataset.json"
    try:
        content = json.loads(text_of(path), object_pairs_hook=distinct_keys)
    except OSError as error:
        expected = f"the data set {card['title']}" if card else "a folder with dataset.json"
        fix = card["obtain"] if card else "name a folder in Decathlon or nnU-Net layout, or a card's folder"
        raise input_error(path, found=error.strerror or "no file", expected=expected, fix=fix) from error
    except (ValueError, RecursionError) as error:
        raise input_error(path, found=f"not JSON ({error})", expected="JSON", fix="fix the file") from error
    if not isinstance(content, dict):
        raise input_error(path, found=type(content).__name__, expected="a mapping", fix="fix the file")
    return content


def distinct_keys(pairs: list[tuple[str, object]]) -> dict:
    """Build a mapping of JSON (its `object_pairs_hook`); a key that is there twice raises ValueError.

    It would silently hide its first value.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice in one mapping")
    return content


def channel_names(folder: Path, content: dict) -> list[str]:
    """Return the channel names of a dataset.json in order; none when it names none (one channel is assumed)."""
    names = content.get("channel_names") or content.get("modality") or {}
    keys = [str(number) for number in range(len(names))] if isinstance(names, dict) else None
    if keys is None or set(names) != set(keys):
        raise input_error(
            folder / "dataset.json",
            found=f"channels {names!r}"[:80],
            expected='{"0": name, "1": name, ...}',
            fix="fix channel_names (Decathlon: modality)",
        )
    return [str(names[key]) for key in keys]


def folder_cases(
    folder: Path, content: dict, *, patient_of: PatientOf, classes: Classes | None = None
) -> list[CaseFiles]:
    """Return the cases of a folder in Decathlon or nnU-Net layout, as its dataset.json says.

    classes: class value, as text, -> name; without them nobody asks which classes were looked for in a case.
    """
    is_nnunet = "training" not in content or {"channel_names", "file_ending"} <= content.keys()
    return (nnunet_cases if is_nnunet else msd_cases)(folder, content, patient_of=patient_of, classes=classes)


def is_datalist(content: dict) -> bool:
    """Return whether a dataset.json is a MONAI datalist: cases with folds, nothing on labels or channels."""
    entries = content.get("training")
    return isinstance(entries, list) and not content.keys() & {"labels", "modality", "channel_names"}


def msd_cases(folder: Path, content: dict, *, patient_of: PatientOf, classes: Classes | None = None) -> list[CaseFiles]:
    """Return the cases that a Decathlon listing names; every bad entry is one problem.

    An entry may have the key `annotated`: names of the classes that were looked for in the case.
    """
    path = folder / "dataset.json"
    entries = content.get("training")
    if not isinstance(entries, list) or not entries:
        raise input_error(path, found="no training cases", expected="a list `training`", fix="add the list")
    cases, problems = [], []
    channels = ChannelFiles()
    for number, entry in enumerate(entries):
        found = _entry(entry)
        if found is None:
            problems.append(
                Problem(f"{path}: training[{number}]", str(entry)[:60], "an image and a label", "fix the entry")
            )
            continue
        *images, label = (_inside(folder, name, path, problems) for name in found)
        case_id = stem(images[0].name) if len(images) == 1 else CHANNEL.sub("", stem(images[0].name))
        if len(images) == 1 and not os.path.exists(images[0]):
            count = max(1, len(channel_names(folder, content)))
            problems += channels.beyond(images[0], count)
            files = channels.of(images[0], count)
            images = files if os.path.exists(files[0]) else images
        annotated = _annotated(entry.get("annotated"), classes, f"{path}: training[{number}]", problems)
        cases.append(CaseFiles(case_id, patient_of(case_id), tuple(images), label, annotated))
    raise_problems(problems)
    return cases


def _entry(entry: object) -> list[str] | None:
    """Return the paths of an entry, the label last.

    An image may be a list of files, one per channel, and a label a list of one (MONAI).
    """
    if not isinstance(entry, dict):
        return None
    image, label = entry.get("image"), entry.get("label")
    label = label[0] if isinstance(label, list) and len(label) == 1 else label
    paths = [*(image if isinstance(image, list) else [image]), label]
    return paths if len(paths) > 1 and all(isinstance(name, str) and name for name in paths) else None


def _annotated(names: object, classes: Classes | None, where: str, problems: list[Problem]) -> tuple[int, ...] | None:
    """Return the class values of the names of the classes that were looked for, ascending; None for all classes."""
    if names is None or classes is None:
        return None
    values = {name: int(value) for value, name in classes.items()}
    if not isinstance(names, list) or not names or not all(name in values for name in names):
        found, expected = f"annotated {str(names)[:60]}", f"names of {', '.join(values)}"
        problems.append(Problem(where, found, expected, "name classes of the card, or none for all"))
        return None
    chosen = tuple(sorted({values[name] for name in names}))
    return None if len(chosen) == len(values) else chosen


class ChannelFiles:
    """The channel files NAME_0000, NAME_0001, ... of images in folders; each folder is read once.

    The suffix of a file counts in any letter case.
    """

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, dict[int, str]]] = {}

    def of(self, image: Path, channels: int) -> list[Path]:
        """Return the paths of as many channels of IMAGE, whether they are there or not."""
        name, there = stem(image.name), self._numbered(image)
        names = [f"{name}_{number:04d}{image.name[len(name) :]}" for number in range(channels)]
        return [image.with_name(there.get(number, default)) for number, default in enumerate(names)]

    def beyond(self, image: Path, channels: int) -> Iterator[Problem]:
        """Yield a problem of an IMAGE with files of channels from number `channels` on, which nobody named."""
        extra = sorted(number for number in self._numbered(image) if number >= channels)
        if extra:
            found = f"a file of channel {some(extra)} of {stem(image.name)}"
            fix = "name every channel in dataset.json, or remove the files"
            yield Problem(str(image.parent), found, f"{channels} channel(s), as dataset.json says", fix)

    def _numbered(self, image: Path) -> dict[int, str]:
        """Return number -> file name of an image's channels."""
        if image.parent not in self._folders:
            self._folders[image.parent] = _read_channels(image.parent)
        return self._folders[image.parent].get(_low_suffix(image.name), {})


def _read_channels(folder: Path) -> dict[str, dict[int, str]]:
    """Return image name, without channel, -> number -> file name; nothing for a folder that cannot be read."""
    numbers: dict[str, dict[int, str]] = defaultdict(dict)
    try:
        files = sorted(os.listdir(folder))
    except (OSError, ValueError):
        return numbers
    for file in files:
        name = stem(file)
        channel = CHANNEL.search(name)
        if channel:
            numbers[_low_suffix(name[: channel.start()] + file[len(name) :])][int(channel.group()[1:])] = file
    return numbers


def _low_suffix(file: str) -> str:
    """Return a file name with its image suffix in small letters."""
    name = stem(file)
    return name + file[len(name) :].lower()


def nnunet_cases(
    folder: Path, content: dict, *, patient_of: PatientOf, classes: Classes | None = None
) -> list[CaseFiles]:
    """Return the cases of an nnU-Net raw folder; a label without images, or a missing channel, is one problem."""
    names = channel_names(folder, content)
    if not names:
        raise input_error(
            folder / "dataset.json", found="no channel_names", expected="a mapping", fix="add channel_names"
        )
    ending = content.get("file_ending", ".nii.gz")
    if str(ending).lower() not in SUFFIXES:
        raise input_error(
            folder / "dataset.json",
            found=f"file_ending {ending!r}",
            expected=f"one of {', '.join(SUFFIXES)}",
            fix="fix file_ending, or convert the files",
        )
    if "dataset" in content:
        return _nnunet_listed(folder, content["dataset"], patient_of=patient_of, classes=classes)
    cases, problems = [], []
    channels = ChannelFiles()
    for label in find(folder / "labelsTr", "*"):
        if not label.name.lower().endswith(ending.lower()):
            continue
        case_id = label.name[: -len(ending)]
        image = folder / "imagesTr" / f"{case_id}{ending}"
        images = channels.of(image, len(names))
        problems += channels.beyond(image, len(names))
        absent = [number for number, path in enumerate(images) if not path.exists()]
        if absent:
            problems.append(
                Problem(
                    str(images[absent[0]]),
                    "no file",
                    f"channel {some(absent)} of {case_id}",
                    "get the file, or remove the label",
                )
            )
        cases.append(CaseFiles(case_id, patient_of(case_id), tuple(images), label))
    if not cases:
        problems.append(Problem(str(folder / "labelsTr"), "no label map", f"files *{ending}", "get the data set again"))
    raise_problems(problems)
    return cases


def _nnunet_listed(folder: Path, listed: object, *, patient_of: PatientOf, classes: Classes | None) -> list[CaseFiles]:
    """Return the cases of nnU-Net v2's key `dataset`: {case: {"images": [paths], "label": path}}."""
    path = folder / "dataset.json"
    if not isinstance(listed, dict) or not listed:
        wrong = f"`dataset` {str(listed)[:40]}"
        raise input_error(path, found=wrong, expected='{case: {"images": [...], "label": ...}}', fix="fix `dataset`")
    cases: list[CaseFiles] = []
    problems: list[Problem] = []
    for case_id, entry in listed.items():
        found = _entry({"image": entry.get("images"), "label": entry.get("label")} if isinstance(entry, dict) else None)
        where = f"{path}: dataset[{case_id!r}]"
        if found is None:
            problems.append(Problem(where, str(entry)[:60], '"images" and "label"', "fix the entry"))
            continue
        *images, label = (_inside(folder, name, path, problems) for name in found)
        annotated = _annotated(entry.get("annotated"), classes, where, problems)
        cases.append(CaseFiles(case_id, patient_of(case_id), tuple(images), label, annotated))
    raise_problems(problems)
    return cases


def find(root: Path, pattern: str) -> list[Path]:
    """Return what matches a glob pattern below a folder, in order of path, without hidden files and folders.

    `**/` at the beginning stands for every folder, links to folders included.
    """
    below = pattern.removeprefix("**/")
    folders = [root] if below == pattern else folders_below(root)
    found = ((path, path.relative_to(root).parts) for folder in folders for path in folder.glob(below))
    return sorted({path for path, parts in found if not any(part.startswith(HIDDEN) for part in parts)})


def stem(name: str) -> str:
    """Return a file name without its image suffix."""
    low = name.lower()
    return next((name[: -len(suffix)] for suffix in SUFFIXES if low.endswith(suffix)), name)


def _inside(folder: Path, name: str, listing: Path, problems: list[Problem]) -> Path:
    """Return a listed path; one that is not below the folder is a problem.

    Links are followed: who made them in the file system wants the files behind them.
    """
    path = folder / name
    try:
        if "\\" in name and not path.exists():  # a listing that was written on Windows
            path = folder / name.replace("\\", "/")
        if not path.exists():  # accents that another system stores as letters of their own, or not
            forms = (folder / unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
            path = next((other for other in forms if other.exists()), path)
        path.exists()  # also raises for names that are too long
        path.resolve()
        inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
    except (OSError, ValueError, RuntimeError) as error:  # too long a name, a zero byte, links in a circle
        problems.append(Problem(str(listing), f"{name[:60]!r}, no path ({error})"[:160], "paths", "fix the listing"))
        return path
    if not inside:
        problems.append(
            Problem(
                str(listing),
                f"a path outside the folder ({name})",
                "paths below it",
                "fix the listing, or link the file",
            )
        )
    return path
