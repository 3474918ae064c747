"""What the contract tests run over: every registered network, the template of a new one, the one in the docs."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from pathlib import Path

import torch

from models.interface import NetworkSpec, SegmentationModel
from models.loader import build_model
from segbench.core.cards import model_cards, supports
from segbench.core.task import Channel, Structure, Task, TaskSet
from tests.paths import ROOT

SPEC = NetworkSpec(
    patch_size_zyx=(16, 32, 32),
    base_features=4,
    max_features=16,
    pool_kernels_zyx=((1, 2, 2), (2, 2, 2), (2, 2, 2)),
    conv_kernels_zyx=((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
)
SHARED_GRID_SIZE_ZYX = (12, 24, 40)  # multiples of SPEC.downsampling_zyx = (4, 8, 8), but not the patch
ODD_SIZE_ZYX = (9, 21, 15)


def make_task(name: str, modalities: tuple[str, ...], classes: tuple[str, ...]) -> Task:
    """Return a task whose structures are its classes, each with a tolerance of 1 mm."""
    return Task(
        name=name,
        title=name,
        channels=tuple(Channel(f"channel {i}", modality) for i, modality in enumerate(modalities)),
        classes=classes,
        structures=tuple(Structure(label, (value,), 1.0) for value, label in enumerate(classes, start=1)),
    )


LIVER = make_task("liver", ("CT",), ("liver", "liver tumour"))
PANCREAS = make_task("pancreas", ("CT",), ("pancreas", "pancreas tumour"))  # LIVER's twin in channels and classes
LESION = make_task("lesion", ("CT", "PET"), ("lesion",))
BRAIN = make_task("brain", ("MR",) * 4, ("oedema", "core", "enhancing"))
TASKS = TaskSet((LIVER, PANCREAS, LESION, BRAIN))


def template_path() -> Path:
    """Return the file that `new-baseline` copies."""
    return ROOT / "segbench" / "cli" / "_baseline_template.py"


def example_source() -> str:
    """Return the model file printed in docs/add_a_baseline.md."""
    text = (ROOT / "docs" / "add_a_baseline.md").read_text(encoding="utf-8")
    return re.search(r"```python\n(.*?)```", text, flags=re.DOTALL).group(1)


def card_in(source: str) -> dict:
    """Return the literal CARD of a model file."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "CARD":
            return ast.literal_eval(node.value)
    raise AssertionError("no CARD in the source")


UNREGISTERED = {
    "the template": template_path().read_text(encoding="utf-8"),
    "the example of the docs": example_source(),
}
CARDS = {name: card for name, card in model_cards().items() if card["kind"] != "control"}
CARDS |= {name: card_in(source) for name, source in UNREGISTERED.items()}
NAMES = sorted(CARDS)


def task_sets(name: str) -> list[TaskSet]:
    """Return all tasks that the card admits at once for a universal model, one set per kind for a per-task model."""
    card = CARDS[name]
    served = [task for task in TASKS if supports(card, task) is None]
    if card["kind"] == "universal":
        return [TaskSet(served)]
    return [TaskSet([task]) for task in served if task is not PANCREAS]


@functools.cache
def _module(name: str):
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name.replace(" ", "_"), loader=None))
    exec(compile(UNREGISTERED[name], name, "exec"), module.__dict__)
    return module


def new_model(name: str, tasks: TaskSet, *, seed: int = 0, spec: NetworkSpec = SPEC) -> SegmentationModel:
    """Build a network with the weights of a seed, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in UNREGISTERED:
            return _module(name).build(tasks, spec).eval()
        return build_model(name, tasks, spec).eval()


@functools.cache
def shared_model(name: str, number: int = 0) -> SegmentationModel:
    """Return the network on the `number`-th task set of `name`; shared, so tests must leave it as it is."""
    return new_model(name, task_sets(name)[number])


def images(task: Task, *, size_zyx: tuple[int, int, int] = SPEC.patch_size_zyx, seed: int = 0) -> torch.Tensor:
    """Return one image of normal noise, `images_BCZYX`."""
    return torch.randn(1, task.num_channels, *size_zyx, generator=torch.Generator().manual_seed(seed))


def served() -> list[tuple[str, int, Task]]:
    """Return (model, number of its task set, task) for every task of every network."""
    return [(name, number, task) for name in NAMES for number, tasks in enumerate(task_sets(name)) for task in tasks]
