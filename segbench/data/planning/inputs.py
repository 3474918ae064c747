"""What the planner may look at: the training side of a run's split, or a folder without a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segbench.core.case import CaseFiles
from segbench.core.errors import Problem, input_error, raise_problems, suggestion
from segbench.data.checks import check_folder, label_values
from segbench.data.ingest import discover
from segbench.data.layouts import channel_names, dataset_json, folder_cases
from segbench.data.splitting.folds import make_splits
from segbench.experiment.config import load_config


@dataclass(frozen=True)
class Planned:
    """Cases to measure, the modalities of their channels, and a sentence that says which cases these are."""

    cases: list[CaseFiles]
    modalities: tuple[str, ...]
    looked_at: str
    ignored: tuple[int, ...] = ()


def planned_of_config(path: Path, names: Sequence[str] | None, fold: int | None) -> dict[str, Planned]:
    """Return the training cases of tasks of a config in one fold; test cases are not opened.

    All tasks are listed, also those that are not asked for, as a patient's side holds for every task of a namespace.
    """
    config = load_config(path)
    known = [task.name for task in config.tasks]
    raise_problems(
        Problem("--task", repr(name), "a task of the config", suggestion(name, known))
        for name in names or ()
        if name not in known
    )
    fold = config.data.folds[0] if fold is None else fold
    if fold not in config.data.folds:
        raise input_error(
            "--fold", found=fold, expected=f"one of {list(config.data.folds)}", fix="name a fold of the run"
        )
    listed = {name: discover(name, config.dataset_cards[name], config.data_root) for name in known}
    namespaces = {name: config.dataset_cards[name]["patient_namespace"] for name in known}
    split = make_splits(listed, namespaces, config.data, lists=config.split_paths)["folds"][str(fold)]
    return {
        name: Planned(
            [case for case in listed[name] if case.case_id in set(split[name]["train"])],
            tuple(channel.modality for channel in config.task(name).channels),
            f"{name}: {len(split[name]['train'])} of {len(listed[name])} cases, the training side of protocol "
            f"{config.data.protocol_of(name)}, fold {fold}",
            tuple(config.dataset_cards[name].get("ignore_labels", ())),
        )
        for name in names or known
    }


def planned_of_folder(folder: Path) -> dict[str, Planned]:
    """Return all labelled cases of a folder that passes its check."""
    raise_problems(check_folder(folder).problems)
    content = dataset_json(folder)
    cases = folder_cases(folder, content, patient_of=lambda case: case)
    name = re.sub(r"\W+", "_", folder.resolve().name).strip("_").lower() or "data"
    modalities = tuple(str(channel).upper() for channel in channel_names(folder, content))
    looked_at = f"{name}: all {len(cases)} cases of the folder; no split is known"
    return {name: Planned(cases, modalities, looked_at, tuple(label_values(folder, content)[1]))}
