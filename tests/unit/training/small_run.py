"""A run with preprocessed cases in a folder of its own, small enough to train in a second."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segbench.core.case import Case, write_manifest
from segbench.core.files import write_json
from segbench.core.paths import RunPaths
from segbench.data.store import write_case
from segbench.experiment.config import Config, parse_config
from segbench.experiment.preprocessed_index import PreprocessedIndex
from segbench.training import loop
from tests.small_network import NETWORK
from tests.unit.written_run import splits_content

OBJECTIVES = ["restoration", "masked_autoencoder", "volume_contrast", "deep_self_distillation"]
CONTENT = {
    "run": "small",
    "data": {"root": "data"},
    "network": NETWORK,
    "training": {"iterations_per_task": 4, "augmentation": "light", "save_every_seconds": 1e-9},
    "upstream": {
        "tasks": ["phantom_spleen", "phantom_petct"],
        "models": ["uniseg", "cond_decoder", "dodnet_original"],
        "self_supervised": OBJECTIVES,
    },
    "downstream": {
        "tasks": ["phantom_schwannoma"],
        "initialisations": ["scratch", "cond_decoder", "dodnet_original", *OBJECTIVES],
    },
}
SPACING = (1.0, 1.0, 1.0)
CHANNELS = {"phantom_spleen": 1, "phantom_petct": 2, "phantom_schwannoma": 1}


def config(**changes: dict) -> Config:
    """Return the config with changed keys of its sections."""
    content = copy.deepcopy(CONTENT)
    for section, keys in changes.items():
        content[section] |= keys
    return parse_config(content, where="test")


def write_data(folder: Path, *, label: int = 1) -> None:
    """Write splits and preprocessed cases below `folder`; labels are a block of one value, images the same for all."""
    paths = RunPaths("small")
    for task, channels in CHANNELS.items():
        places = {case: folder / "preprocessed" / task / case for case in ("a", "b", "c")}
        for number, (case, place) in enumerate(places.items()):
            rng = np.random.default_rng(number)
            labels_ZYX = np.zeros((20, 18, 16), dtype=np.uint8)
            labels_ZYX[4:9, 5:9, 3:8] = label
            write_case(place, rng.normal(size=(channels, 20, 18, 16)), labels_ZYX, {"case_id": case})
        PreprocessedIndex(task, "small", places).write(folder / paths.preprocessed(task))
    sides = {"train": ["a", "b"], "test": ["c"]}
    write_json(folder / paths.splits, splits_content({"0": dict.fromkeys(CHANNELS, sides)}))


def write_manifests() -> None:
    """Write the manifests of the run below the working directory; each case is a patient of its own."""
    for task in CHANNELS:
        rows = [
            Case(
                task,
                name,
                f"patient {name}",
                (f"{name}.nii.gz",),
                f"{name}.nii.gz",
                "0",
                "0",
                (16, 18, 20),
                SPACING,
                "RAS",
            )
            for name in ("a", "b", "c")
        ]
        write_manifest(RunPaths("small").manifest(task), rows)


def killed(monkeypatch: pytest.MonkeyPatch, count: int, train: Callable[[], object]) -> None:
    """Begin a training that dies when it has saved its state so many times."""
    with monkeypatch.context() as patch:
        stop_after(patch, count)
        with pytest.raises(KeyboardInterrupt):
            train()


def stop_after(patch: pytest.MonkeyPatch, count: int) -> None:
    """Let training die when it has saved its state so many times."""
    save, seen = loop.TrainingRun.save, []

    def save_and_die(self: loop.TrainingRun) -> None:
        assert save(self)
        seen.append(1)
        if len(seen) == count:
            raise KeyboardInterrupt

    patch.setattr(loop.TrainingRun, "save", save_and_die)
