"""Checks that need several sections: names that meet in one table, sides of a split, training of one experiment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from segbench.core.errors import InputError, Problem, suggestion
from segbench.core.metric_facts import METRICS
from segbench.core.names import plain_name
from segbench.core.paths import NAME_PATTERN
from segbench.core.schema import as_problem
from segbench.core.vocabulary import ALL_TASKS, EQUAL, EXPERIMENTS, FROM_SCRATCH, NO_RECIPE, PUBLISHED, TUNED
from segbench.experiment.config.data import WITH_LISTS
from segbench.experiment.config.experiment import Config
from segbench.experiment.config.section import (
    Check,
    ModelEntry,
    Section,
    alike,
    repeated,
    unknown_names,
)
from segbench.experiment.config.training import Recipe, Training, merged, recipe_problems, warmup_problems

JOINT_SCOPE = "joint"
"""Value of the column `scope` of a job over all tasks, so that it is the name of no task."""
TAKEN = (JOINT_SCOPE, plain_name(ALL_TASKS))
TASKS = ("upstream.tasks", "downstream.tasks", "data.cards")
MODELS = ("upstream.models", "upstream.external", "upstream.self_supervised")


def _task_names(config: Config) -> Iterator[Problem]:
    """Tasks that have a card, under names that are wildcards of the workflow and folders on every file system."""
    known = config.known_dataset_cards
    for experiment in EXPERIMENTS:
        section, key = getattr(config, experiment), f"{experiment}.tasks"
        for name in section.tasks if section else ():
            if name not in known:
                yield Problem(key, repr(name), "the name of a data-set card", suggestion(name, known))
            elif not re.fullmatch(NAME_PATTERN, name) or plain_name(name) in TAKEN:
                expected = f"letters, digits and underscores, and not {' or '.join(TAKEN)}"
                yield Problem(key, repr(name), expected, "rename the file of the card")
    for one, other in alike(config.all_task_names):
        yield Problem("tasks", f"{one!r} and {other!r}", "names that differ in more than case and '_'", "rename a card")


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


def _lesion_metrics(config: Config) -> Iterator[Problem]:
    """Metrics of lesions where a task has one: without any, every row of the metric would say not defined."""
    try:
        lesions = any(structure.lesion for task in config.tasks for structure in task.structures)
    except (InputError, KeyError):
        return  # a card that is wrong or unknown is a problem of its own
    for name in config.metrics:
        if not lesions and name in METRICS and METRICS[name].lesion_only:
            fix = "leave the metric out, or declare the structure under structures with lesion: true"
            yield Problem("metrics", repr(name), "a metric that a structure of the run can have: none is a lesion", fix)


def _tasks_named(config: Config) -> Iterator[Problem]:
    """Keys that name tasks of this run, or any card where a config is kept for several runs."""
    known = config.known_dataset_cards
    yield from unknown_names("task_preprocessing", config.task_preprocessing, known, "the name of a data-set card")
    yield from unknown_names("structures", config.structures, known, "the name of a data-set card")
    for key in ("task_protocols", "accept_partial"):
        names: Iterable[str] = getattr(config.data, key)
        yield from unknown_names(f"data.{key}", names, config.all_task_names, "a task of this run")


def _model_ids(config: Config) -> Iterator[Problem]:
    """Ids of the column `model`: each once per recipe, on every file system, and none that a control has."""
    upstream, key = config.upstream, "upstream.models"
    kinds = [[(entry.key, entry.recipe_name) for entry in part] for part in (upstream.models, upstream.self_supervised)]
    kinds.append([(entry.name, NO_RECIPE) for entry in upstream.external])
    rows = [row for kind in kinds for row in kind]
    twice = [name for name, _ in repeated(rows)]
    twice += repeated([name for kind in kinds for name in {name for name, _ in kind}])
    for name in dict.fromkeys(twice):
        yield Problem(key, f"{name!r} twice", "distinct ids, or distinct recipes", "remove one, or give it an id")
    controls = {name for name, card in config.model_cards.items() if card["kind"] == "control"}
    for name in dict.fromkeys(name for name, _ in rows):
        if name.casefold() in controls:
            yield Problem(key, repr(name), "an id that is no control's", "give it another id")
    everyone = [name for name, _ in rows] + [entry.key for entry in config.entries_of("downstream")]
    for one, other in alike(everyone):
        yield Problem(key, f"{one!r} and {other!r}", "ids that differ in more than case and '_'", "change one id")


def _one_network(config: Config) -> Iterator[Problem]:
    """One id stands for one network, at every recipe and in both experiments."""
    downstream = config.entries_of("downstream")
    others = {entry.key for entry in config.upstream.self_supervised} | {item.name for item in config.upstream.external}
    seen: dict[str, ModelEntry] = {}
    for key, entries in (("upstream.models", config.upstream.models), ("downstream.models", downstream)):
        for entry in entries:
            first = seen.setdefault(entry.key, entry)
            if (first.name, first.options) != (entry.name, entry.options):
                found = f"{entry.key} with another name or other options than before"
                yield Problem(key, found, "one network by one id", "give it an id of its own")
    for entry in downstream:
        if entry.key in others:
            found = f"{entry.key}, the id of an objective or external model"
            yield Problem("downstream.models", found, "one network by one id", "give it an id of its own")
    for name, recipe in repeated([(entry.key, entry.recipe_name) for entry in downstream]):
        found = f"{name!r} twice at the recipe {recipe}"
        yield Problem("downstream.models", found, "distinct ids, or distinct recipes", "give it an id")


def _initialisations(config: Config) -> Iterator[Problem]:
    """Weights of the run: of a universal model or an objective of upstream, at a recipe that it is trained by."""
    if config.downstream is None:
        return
    kinds = {name: card["kind"] for name, card in config.model_cards.items()}
    joint = [entry for entry in config.upstream.models if kinds.get(entry.name) == "universal"]
    sources = [*joint, *config.upstream.self_supervised]
    known = [*FROM_SCRATCH, *dict.fromkeys(entry.key for entry in sources)]
    expected = "scratch, a universal model of upstream, an entry of upstream.self_supervised, or a name with a file"
    for key, _, items in config.downstream.lists():
        yield from unknown_names(key, [item.name for item in items if item.file is None], known, expected)
        for item in items:
            named = (entry.recipe_name for entry in sources if entry.key == item.name and item.file is None)
            recipes = list(dict.fromkeys(named))
            where, listed = f"{key}.{item.name}.upstream_recipe", ", ".join(recipes)
            if item.upstream_recipe is None and len(recipes) > 1:
                found = f"nothing, and {item.name} is trained by several recipes"
                yield Problem(where, found, f"one of: {listed}", "name the training whose weights these are")
            elif item.upstream_recipe is not None and item.upstream_recipe not in recipes:
                expected_recipe = f"one of: {listed}" if recipes else "no recipe beside scratch or a file"
                yield Problem(where, repr(item.upstream_recipe), expected_recipe, "change or remove it")


def _self_supervised(config: Config) -> Iterator[Problem]:
    """Objectives that are used, by a network on the shared backbone."""
    key, objectives = "upstream.self_supervised", {entry.key for entry in config.upstream.self_supervised}
    lists = list(config.downstream.lists()) if config.downstream else []
    used = {item.name for _, _, items in lists for item in items if item.file is None}
    for name in sorted(objectives - used):
        fix = f"add {name} to downstream.initialisations, or remove it"
        yield Problem(key, f"{name}, which is no initialisation", "a use of each objective", fix)
    for _, entry, items in lists:
        card = config.network_cards.get(entry.name)
        if card and card["backbone"] != "shared" and any(item.name in objectives for item in items):
            found = f"{entry.name} in downstream.models, which has its own backbone"
            fix = "use single_task, or give the network initialisations of its own without objectives"
            yield Problem(key, found, "a network on the shared backbone", fix)


def _trainings(config: Config) -> Iterator[Problem]:
    """Every training recipe that a job would use: keys, values, what excludes what, and the length of the warm-up."""
    changes = config.downstream.training if config.downstream else {}
    wrong = list(_key_problems("downstream.training", changes, Training))
    yield from wrong
    known = {name: value for name, value in changes.items() if name in Training.model_fields}
    problems = list(_value_problems("training", config)) or list(_value_problems("downstream.training", config, known))
    yield from problems
    if wrong or problems:
        return
    for experiment in EXPERIMENTS:
        for entry in config.entries_of(experiment):
            yield from _entry_recipe(config, experiment, entry)


def _key_problems(key: str, changes: Mapping[str, Any], section: type[Section]) -> Iterator[Problem]:
    what = "a key of training" if section is Training else "a recipe key of training; the budget is the experiment's"
    for name in sorted(set(changes) - set(section.model_fields)):
        yield Problem(f"{key}.{name}", "an unknown key", what, suggestion(name, section.model_fields))


def _value_problems(key: str, config: Config, *changes: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems of the values of layers on top of `training`, and of what excludes what in them."""
    try:
        found = Training(**merged(config.training.model_dump(), *changes))
    except ValidationError as error:
        yield from (as_problem(key, item) for item in error.errors())
        return
    yield from recipe_problems(key, found)


def _entry_recipe(config: Config, experiment: str, entry: ModelEntry) -> Iterator[Problem]:
    """Yield what is wrong with the recipe of one entry."""
    objective = any(entry is other for other in config.upstream.self_supervised)
    card = (config.objective_cards if objective else config.network_cards).get(entry.name)
    if card is None:
        return  # an unknown name is a problem of its own
    listed = "self_supervised" if objective else "models"
    key = f"{experiment}.{listed}.{entry.key}.recipe"
    if entry.recipe == PUBLISHED and not (card["published_recipe"] or {}).get("keys"):
        why = "; ".join((card["published_recipe"] or {}).get("not_taken", ["its source was not read"]))
        found, fix = f"published, and the card of {entry.name} states none ({why})", "use equal, or state its values"
        yield Problem(key, found, "a published recipe", fix)
        return
    if entry.recipe == TUNED:
        unusable = list(_unusable_tuning(config, experiment, entry, key, objective=objective))
        yield from unusable
        if unusable:
            return
    changes = config.downstream.training if experiment == "downstream" and config.downstream else {}
    recipe = config.recipe_of(entry)
    problems = list(_key_problems(key, recipe, Recipe))
    if not problems and entry.recipe != EQUAL:
        problems = list(_value_problems(key, config, changes, recipe))
    yield from problems
    if problems:
        return
    training = config.training_of(experiment, entry)

    def origin(name: str) -> str:
        return key if name in recipe else "downstream.training" if name in changes else "training"

    if training.drop_path is not None and "drop_path" not in card["options"]:
        fix = "give the drop path in the recipe of a network that has it"
        yield Problem(
            f"{origin('drop_path')}.drop_path",
            f"{training.drop_path} for {entry.key}",
            "a network with this option",
            fix,
        )
    tasks = 1
    if experiment == "upstream" and (objective or card["kind"] == "universal"):
        tasks = max(1, len(config.upstream.tasks))
    yield from warmup_problems(origin("warmup"), training, tasks * training.iterations_per_task)
    if training.tuning is not None:
        trial = tasks * training.tuning.iterations_per_task
        yield from warmup_problems(origin("warmup"), training, trial, what="trial of training.tuning")


def _unusable_tuning(
    config: Config, experiment: str, entry: ModelEntry, key: str, *, objective: bool
) -> Iterator[Problem]:
    """Yield why an entry cannot choose its learning rate: it has no Dice, or nothing says which rates are tried."""
    if objective:
        expected = "a model that segments: an objective has no Dice to choose by"
        yield Problem(key, f"tuned for {entry.key}", expected, "use equal, published, or state its values")
    elif config.training_of(experiment, entry).tuning is None:
        found, expected = "tuned, and no training.tuning", "learning_rates and iterations_per_task in training.tuning"
        yield Problem(key, found, expected, "add them, or use another recipe")


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
    if data.split_files and not any(data.protocol_of(name) in WITH_LISTS for name in config.all_task_names):
        expected = f"a task whose protocol follows lists: {', '.join(WITH_LISTS)}"
        fix = "change data.protocol, or remove them"
        yield Problem("data.split_files", f"lists for {data.protocol}", expected, fix)
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
        fix = "add cases, lower data.fold_count, or leave the task out"
        if cases is not None and cases < needed:
            found, expected = f"{cases} case(s) of {name}", f"at least {needed} patients for the protocol {protocol}"
            yield Problem("data.protocol", found, expected, fix)
        elif _holds_out(config, name) and (training := _most_training_cases(config, name) or 2) < 2:
            expected = "at least 2 training patients, one of them held out by training.validation_fraction"
            yield Problem("data.protocol", f"{training} training case(s) of {name}", expected, fix)


def _tuned_patients(config: Config) -> Iterator[Problem]:
    """Training patients that learn and that score the trials of a tuned entry, as far as cards and the config say."""
    for experiment in EXPERIMENTS:
        tuned = [entry.key for entry in config.entries_of(experiment) if entry.recipe == TUNED]
        section = config.upstream if experiment == "upstream" else config.downstream
        for name in section.tasks if section and tuned else ():
            cases, needed = _most_training_cases(config, name), 3 if _holds_out(config, name) else 2
            if cases is not None and cases < needed:
                found = f"{cases} training case(s) of {name} for {', '.join(tuned)} with the recipe tuned"
                expected = f"at least {needed} training patients, one of which scores the trials"
                yield Problem("data.protocol", found, expected, "add cases, test fewer, or use another recipe")


def _most_training_cases(config: Config, task: str) -> int | None:
    """Return how many training cases a task has in its smallest fold if each patient has one; None if not known."""
    data, card = config.data, config.known_dataset_cards.get(task)
    expected = card["expected_cases"].get("total") if card else None
    cases = data.phantom.cases if data.phantom else expected
    if cases is None or data.protocol_of(task) not in ("seeded", "kfold"):
        return None
    if data.protocol_of(task) == "kfold":
        return int(cases - -(-cases // data.fold_count))
    return int(cases - min(max(1, round(data.test_fraction * cases)), cases - 1))


def _holds_out(config: Config, task: str) -> bool:
    """Tell whether training patients of a task are held out for validation."""
    upstream, downstream = config.training.validation_fraction, 0.0
    if config.downstream:
        downstream = config.downstream.training.get("validation_fraction", upstream)
    tasks = config.downstream.tasks if config.downstream else ()
    return bool((task in config.upstream.tasks and upstream) or (task in tasks and downstream))


PATIENTS = ("data.phantom", "data.test_fraction")
SPLIT = ("data.protocol", "data.task_protocols", "data.folds", "data.fold_count")
CHECKS = (
    Check(TASKS, _task_names),
    Check((*TASKS, "structures", "data.phantom"), _task_cards),
    Check((*TASKS, "structures", "metrics"), _lesion_metrics),
    Check((*TASKS, "task_preprocessing", "structures", "data.task_protocols", "data.accept_partial"), _tasks_named),
    Check((*MODELS, "downstream.models"), _model_ids),
    Check((*MODELS, "downstream.models"), _one_network),
    Check((*MODELS, "downstream.models", "downstream.initialisations"), _initialisations),
    Check((*MODELS, "downstream.models", "downstream.initialisations"), _self_supervised),
    Check((*MODELS, "downstream.models", "training", "downstream.training", "upstream.tasks"), _trainings),
    Check((*TASKS, *SPLIT), _folds),
    Check((*TASKS, *SPLIT, *PATIENTS, "data.split_files", "training", "downstream.training"), _sides),
    Check(
        (*TASKS, *MODELS, *SPLIT, *PATIENTS, "downstream.models", "training", "downstream.training"), _tuned_patients
    ),
)
