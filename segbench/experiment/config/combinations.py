"""Checks that need several sections: names that meet in one table, sides of a split, training of one experiment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from segbench.core.errors import InputError, Problem, suggestion
from segbench.core.paths import NAME_PATTERN
from segbench.experiment.config.data import WITH_LISTS
from segbench.experiment.config.downstream import SCRATCH
from segbench.experiment.config.experiment import Config
from segbench.experiment.config.problems import as_problem
from segbench.experiment.config.section import Check, alike, repeated, unknown_names
from segbench.experiment.config.training import Training

JOINT_SCOPE = "joint"
"""Value of the column `scope` of a job over all tasks, so that it is the name of no task."""
TASKS = ("upstream.tasks", "downstream.tasks", "data.cards")
MODELS = ("upstream.models", "upstream.external", "upstream.self_supervised")


def _task_names(config: Config) -> Iterator[Problem]:
    """Tasks that have a card, under names that are wildcards of the workflow and folders on every file system."""
    known = config.known_dataset_cards
    for experiment in ("upstream", "downstream"):
        section, key = getattr(config, experiment), f"{experiment}.tasks"
        for name in section.tasks if section else ():
            if name not in known:
                yield Problem(key, repr(name), "the name of a data-set card", suggestion(name, known))
            elif not re.fullmatch(NAME_PATTERN, name) or name.casefold() == JOINT_SCOPE:
                expected = f"letters, digits and underscores, and not {JOINT_SCOPE}"
                yield Problem(key, repr(name), expected, "rename the file of the card")
    for one, other in alike(config.all_task_names):
        yield Problem("tasks", f"{one!r} and {other!r}", "names that differ in more than case", "rename a card")


def _task_cards(config: Config) -> Iterator[Problem]:
    """Cards that are whole, with the structures that the config asks for."""
    known = config.known_dataset_cards
    try:
        names = [name for name in config.all_task_names if name in config.dataset_cards]
    except InputError as error:
        yield from error.problems
        return
    for name in names:
        try:
            config.task(name)
        except InputError as error:
            yield from error.problems
        if config.data.phantom is not None and not known[name].get("synthetic"):
            fix = "remove data.phantom, or leave the task out"
            yield Problem("data.phantom", f"the real task {name}", "synthetic tasks only", fix)


def _tasks_named(config: Config) -> Iterator[Problem]:
    """Keys that name tasks of this run, or any card where a config is kept for several runs."""
    known = config.known_dataset_cards
    yield from unknown_names("task_preprocessing", config.task_preprocessing, known, "the name of a data-set card")
    yield from unknown_names("structures", config.structures, known, "the name of a data-set card")
    for key in ("task_protocols", "accept_partial"):
        names: Iterable[str] = getattr(config.data, key)
        yield from unknown_names(f"data.{key}", names, config.all_task_names, "a task of this run")


def _model_ids(config: Config) -> Iterator[Problem]:
    """Ids of the column `model`: each once, on every file system, and none that a control has."""
    upstream, key = config.upstream, "upstream.models"
    ids = [entry.key for entry in (*upstream.models, *upstream.self_supervised)]
    ids += [entry.name for entry in upstream.external]
    for name in repeated(ids):
        yield Problem(key, f"{name!r} twice", "distinct ids", "remove one, or give it an id")
    controls = {name for name, card in config.model_cards.items() if card["kind"] == "control"}
    for name in dict.fromkeys(ids):
        if name.casefold() in controls:
            yield Problem(key, repr(name), "an id that is no control's", "give it another id")
    everyone = [*ids, config.downstream.model.key] if config.downstream else ids
    for one, other in alike(everyone):
        yield Problem(key, f"{one!r} and {other!r}", "ids that differ in more than case", "change one id")


def _downstream_model(config: Config) -> Iterator[Problem]:
    """One id stands for one network, in both experiments."""
    if config.downstream is None:
        return
    model, upstream = config.downstream.model, config.upstream
    others = [entry.key for entry in upstream.self_supervised] + [entry.name for entry in upstream.external]
    if any(entry.key == model.key and entry != model for entry in upstream.models) or model.key in others:
        found = f"{model.key} with other options than upstream"
        yield Problem("downstream.model", found, "one network by one id", "give it an id of its own")


def _initialisations(config: Config) -> Iterator[Problem]:
    """Weights of the run: of a universal model, or of a self-supervised objective."""
    if config.downstream is None:
        return
    kinds = {name: card["kind"] for name, card in config.model_cards.items()}
    joint = [entry.key for entry in config.upstream.models if kinds.get(entry.name) == "universal"]
    known = [SCRATCH, *joint, *(entry.key for entry in config.upstream.self_supervised)]
    names = [item.name for item in config.downstream.initialisations if item.file is None]
    expected = "scratch, a universal model of upstream, an entry of upstream.self_supervised, or a name with a file"
    yield from unknown_names("downstream.initialisations", names, known, expected)


def _self_supervised(config: Config) -> Iterator[Problem]:
    """Objectives that are used, by a network on the shared backbone."""
    key, downstream = "upstream.self_supervised", config.downstream
    used = {item.name for item in downstream.initialisations if item.file is None} if downstream else set()
    for entry in config.upstream.self_supervised:
        if entry.key not in used:
            fix = f"add {entry.key} to downstream.initialisations, or remove it"
            yield Problem(key, f"{entry.key}, which is no initialisation", "a use of each objective", fix)
    card = config.network_cards.get(downstream.model.name) if downstream else None
    if downstream and config.upstream.self_supervised and card and card["backbone"] != "shared":
        found = f"{downstream.model.name} as downstream.model, which has its own backbone"
        yield Problem(key, found, "a network on the shared backbone", "use single_task, or no objectives")


def _downstream_training(config: Config) -> Iterator[Problem]:
    """Changed keys of the training recipe, with values that it accepts."""
    if config.downstream is None:
        return
    key = "downstream.training"
    unknown = sorted(set(config.downstream.training) - set(Training.model_fields))
    for name in unknown:
        fix = suggestion(name, Training.model_fields)
        yield Problem(f"{key}.{name}", "an unknown key", "a key of training", fix)
    known = {name: value for name, value in config.downstream.training.items() if name not in unknown}
    try:
        Training(**{**config.training.model_dump(), **known})
    except ValidationError as error:
        yield from (as_problem(key, item) for item in error.errors())


def _folds(config: Config) -> Iterator[Problem]:
    """Folds that each protocol has."""
    for protocol in sorted({config.data.protocol_of(name) for name in config.all_task_names}):
        count = config.data.fold_count if protocol == "kfold" else 1
        beyond = [fold for fold in config.data.folds if fold >= count]
        if beyond:
            expected = f"0 to {count - 1}, the folds of {protocol}" if count > 1 else f"0, the only fold of {protocol}"
            yield Problem("data.folds", ", ".join(map(str, beyond)), expected, "change data.folds or the protocol")


def _sides(config: Config) -> Iterator[Problem]:
    """Enough cases for both sides of each task, and a fold for each, as far as cards and the config say."""
    data = config.data
    for name in config.all_task_names:
        card = config.known_dataset_cards.get(name)
        protocol = data.protocol_of(name)
        if protocol in WITH_LISTS and not data.split_files:
            fix = "name the lists (docs/protocols.md), or choose another protocol"
            yield Problem("data.split_files", f"no list for {name}", f"the lists of the protocol {protocol}", fix)
        if card is None or protocol not in ("seeded", "kfold"):
            continue
        cases = data.phantom.cases if data.phantom else card["expected_cases"].get("total")
        needed = data.fold_count if protocol == "kfold" else 2
        if cases is not None and cases < needed:
            fix = "add cases, lower data.fold_count, or leave the task out"
            found, expected = f"{cases} case(s) of {name}", f"at least {needed} patients for the protocol {protocol}"
            yield Problem("data.protocol", found, expected, fix)


SPLIT = ("data.protocol", "data.task_protocols", "data.folds", "data.fold_count")
CHECKS = (
    Check(TASKS, _task_names),
    Check((*TASKS, "structures", "data.phantom"), _task_cards),
    Check((*TASKS, "task_preprocessing", "structures", "data.task_protocols", "data.accept_partial"), _tasks_named),
    Check((*MODELS, "downstream.model"), _model_ids),
    Check((*MODELS, "downstream.model"), _downstream_model),
    Check((*MODELS, "downstream.initialisations"), _initialisations),
    Check((*MODELS, "downstream.initialisations", "downstream.model"), _self_supervised),
    Check(("training", "downstream.training"), _downstream_training),
    Check((*TASKS, *SPLIT), _folds),
    Check((*TASKS, *SPLIT, "data.phantom", "data.split_files"), _sides),
)
