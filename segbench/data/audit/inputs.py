"""What the leak audit compares: the cases of a run, of split files alone, or of folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from segbench.core import cards
from segbench.core.case import Case, CaseFiles, read_manifest
from segbench.core.errors import InputError, Problem, input_error, raise_problems
from segbench.core.names import CHANNEL, bids_subject, normal_name
from segbench.core.paths import RunPaths
from segbench.data.audit.leaks import Member, members_of_split
from segbench.data.checks import header_problems, modality_of, name_problems
from segbench.data.ingest import card_of, discover, ingest, known_cards, manifest_row
from segbench.data.layouts import channel_names, dataset_json, folder_cases
from segbench.data.splitting.folds import make_splits
from segbench.data.splitting.pickled_lists import load_lists
from segbench.data.splitting.protocols import (
    RELEASED,
    SIDES,
    is_one_fold,
    is_pickle,
    lists_of,
    numbered_folds,
    patient_of_released,
    read_json,
    rule_of,
)
from segbench.experiment.config import Config
from segbench.experiment.splits import read_splits

SPLIT_FORMS = (
    "a list of folds, {fold: fold} or one fold with train and val (or test), {task: such a list or fold}, or "
    "splits.json of a run"
)


def members_of_run(config: Config) -> tuple[list[Member], list[Case]]:
    """Return the members and cases of a run: of its own manifests and split where it has made them, else made now."""
    paths = RunPaths(config.run)
    names = [task.name for task in config.tasks]
    made = [paths.splits, *(paths.manifest(name) for name in names)]
    if _is_of(config, paths) and all(path.exists() for path in made):
        cases = {name: read_manifest(paths.manifest(name)) for name in names}
        read_splits(paths.splits)  # refuses a file that is damaged or was edited
        splits = json.loads(paths.splits.read_text(encoding="utf-8"))
    else:
        cases = {name: ingest(config.task(name), config.dataset_cards[name], config.data_root) for name in names}
        namespaces = {name: config.dataset_cards[name]["patient_namespace"] for name in names}
        splits = make_splits(cases, namespaces, config.data, lists=config.split_paths)
    patients = {
        (name, row.case_id): (config.dataset_cards[name]["patient_namespace"], row.patient_id)
        for name, rows in cases.items()
        for row in rows
    }
    experiments: dict[str, list[str]] = {}
    for experiment, part in (("upstream", config.upstream), ("downstream", config.downstream)):
        for name in part.tasks if part else ():
            experiments.setdefault(name, []).append(experiment)
    return members_of_split(splits, patients, experiments), [row for rows in cases.values() for row in rows]


def _is_of(config: Config, paths: RunPaths) -> bool:
    """Tell whether the run's folder was made by this very config."""
    try:
        return json.loads(paths.config.read_text(encoding="utf-8")) == config.model_dump(mode="json")
    except (OSError, ValueError):
        return False


def members_of_file(path: Path) -> list[Member]:
    """Return the members of a split file (*.pkl or *.json); names alone are known, no image.

    Released names are recognised by their form, in any spelling. Other cases belong to the task that the file names, or
    to one with the file's own name (`source` tells files of one name apart), and a subject of BIDS is their patient; a
    task that is a data-set card, by its name or its folder's, brings its patients and namespace.
    """
    content = load_lists(path) if is_pickle(path) else read_json(path, SPLIT_FORMS)
    folds = _folds_of_run(content) or _by_fold(path, content)
    members = [
        _member(path, task, name, side=side, fold=fold)
        for fold, tasks in folds.items()
        for task, sides in _mapping(path, tasks).items()
        for side, names in lists_of(path, _mapping(path, sides), SPLIT_FORMS).items()
        for name in names
    ]
    if not members:
        raise input_error(path, found="no case", expected=SPLIT_FORMS, fix="name another file")
    return members


def _folds_of_run(content: object) -> dict | None:
    """Return fold -> task -> sides of the splits.json of a run, None for another form."""
    folds = content.get("folds") if isinstance(content, dict) else None
    is_of_run = isinstance(folds, dict) and not any(is_one_fold(tasks) for tasks in folds.values())
    return folds if is_of_run else None


def _by_fold(path: Path, content: object) -> dict[str, dict[str | None, dict]]:
    """Return fold -> task -> sides, whatever the form; the task None stands for a file that names none."""
    if isinstance(content, dict) and set(content) == {"folds"}:
        content = content["folds"]
    if numbered := numbered_folds(path, content):
        return {fold: {None: sides} for fold, sides in numbered.items()}
    if isinstance(content, list) or is_one_fold(content):
        content = {None: content}
    folds: dict[str, dict[str | None, dict]] = {}
    for task, listed in _mapping(path, content).items():
        for number, sides in enumerate(listed if isinstance(listed, list) else [listed]):
            folds.setdefault(str(number), {})[task] = sides
    return folds


def _mapping(path: Path, content: object) -> dict:
    if not isinstance(content, dict):
        raise input_error(path, found=type(content).__name__, expected=SPLIT_FORMS, fix="fix the file")
    return content


def _member(path: Path, named: str | None, name: str, *, side: str, fold: str) -> Member:
    """Return the member of a listed name. named: its task, None where the file names none."""
    task = path.stem if named is None else named
    released = name if rule_of(name) else CHANNEL.sub("", normal_name(name).rpartition("/")[2])
    rule = rule_of(released)
    card_name = card_of(task)
    key, side = side, SIDES[side]
    if rule is not None and card_name in (None, rule.task):
        namespace = known_cards()[rule.task]["patient_namespace"]
        patient = patient_of_released(rule, released)
        return Member(rule.task, name, patient, namespace, side, rule.experiment, fold, listed_as=key)
    if card_name is None:
        source = "" if named else str(path)
        return Member(
            task, name, bids_subject(name) or name, task, side, "upstream", fold, listed_as=key, source=source
        )
    card = known_cards()[card_name]
    experiment = next((item.experiment for item in RELEASED if item.task == card_name), "upstream")
    patient, namespace = cards.patient_of(card, name), card["patient_namespace"]
    return Member(card_name, name, patient, namespace, side, experiment, fold, listed_as=key)


def members_of_folders(folders: Sequence[Path]) -> tuple[list[Member], list[Case]]:
    """Return the members and cases of folders: data sets with a card, or any in Decathlon or nnU-Net layout."""
    members: list[Member] = []
    cases: list[Case] = []
    problems: list[Problem] = []
    for task, folder in _names(folders).items():
        try:
            namespace, found, modalities = _folder(folder, task)
        except InputError as error:
            problems += error.problems
            continue
        problems += name_problems(found, str(folder))
        for files in found:
            wrong = header_problems(files, modalities)
            problems += wrong
            if not wrong:
                cases.append(manifest_row(task, files))
                members.append(Member(task, files.case_id, files.patient_id, namespace))
    raise_problems(problems)
    return members, cases


def _names(folders: Sequence[Path]) -> Mapping[str, Path]:
    """Return a name for each folder: its own, or the whole path where two share it."""
    names = [folder.resolve().name for folder in folders]
    return {str(folder) if names.count(name) > 1 else name: folder for name, folder in zip(names, folders, strict=True)}


def _folder(folder: Path, task: str) -> tuple[str, list[CaseFiles], list[str]]:
    """Return the patient namespace, the cases and the modalities of the channels of a folder."""
    card_name = card_of(folder.resolve().name)
    if card_name is not None:
        card = known_cards()[card_name]
        try:
            found = discover(card_name, {**card, "folder": folder.name}, folder.parent)
            return card["patient_namespace"], found, [channel["modality"] for channel in card["channels"]]
        except InputError:
            if not (folder / "dataset.json").exists():
                raise
    content = dataset_json(folder)
    found = folder_cases(folder, content, patient_of=lambda case: bids_subject(case) or case)
    return task, found, [modality_of(name) for name in channel_names(folder, content)] or ["MR"]
