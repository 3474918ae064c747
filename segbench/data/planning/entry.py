"""nnU-Net's plan for each target of a downstream network whose poolings are fixed, as keys of its entry.

That is how UniSeg is fine-tuned (yeerwen/UniSeg, Downstream/nnunet/training/network_training/UniSeg_Trainer_DS.py):
spacing, intensities and patch are those of nnU-Net's plan for the target data, poolings and kernels those of the
pre-training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from segbench.core.errors import Problem, suggestion
from segbench.data.planning.plan import TaskPlan, fit_network, listed, recipe_lines
from segbench.experiment.config import Config, DownstreamModel

Patch = tuple[int, int, int]


def entry_problems(config: Config, key: str, tasks: Sequence[str]) -> Iterator[Problem]:
    """Yield what keeps an entry of `downstream.models` from being planned for tasks."""
    known = [entry.key for entry in config.entries_of("downstream")]
    if key not in known:
        yield Problem("--entry", repr(key), "an id of downstream.models", suggestion(key, known))
    targets = config.tasks_of("downstream").names
    for name in tasks:
        if name not in targets:
            yield Problem("--task", repr(name), "a task of downstream, beside --entry", suggestion(name, targets))


def patch_for_poolings(patch_zyx: Sequence[int], pool_kernels_zyx: Sequence[Sequence[int]]) -> Patch:
    """Return the patch whose axes are the nearest multiples of what fixed poolings need, at least one of them.

    A network whose poolings lead to a single position has nothing to normalise over, so that the largest axis of such a
    patch is doubled.
    """
    factors = np.prod(np.asarray(pool_kernels_zyx, dtype=int), axis=0)
    positions = np.maximum(1, np.round(np.asarray(patch_zyx) / factors).astype(int))
    if np.all(positions == 1):
        positions[int(np.argmax(patch_zyx))] = 2
    z, y, x = (positions * factors).tolist()
    return z, y, x


def as_entry_yaml(
    plans: Mapping[str, TaskPlan], config: Config, key: str, *, head: Sequence[str], patch_voxels: int
) -> str:
    """Return recipes and the list `downstream.models`, in which an entry has recipe and patch of each planned task.

    Args:
        plans: task -> its plan.
        config: the config whose entry is planned.
        key: id of the entry.
        head: lines that say what was looked at.
        patch_voxels: most voxels of the patch that nnU-Net's rules propose.

    Returns:
        YAML with a comment per value; the other entries of the list as they are.
    """
    lines = [f"# {line}" for line in head] + ["preprocessing_recipes:", *recipe_lines(plans)]
    lines += ["downstream:", "  models:"]
    for entry in config.entries_of("downstream"):
        assert isinstance(entry, DownstreamModel), "entries of downstream are of this kind"
        content = entry.model_dump(mode="json", exclude_defaults=True)
        if entry.key == key:
            lines += _planned_lines(content, entry, plans, config, patch_voxels)
        else:
            lines.append(f"    - {json.dumps(content)}")
    return "\n".join(lines) + "\n"


def _planned_lines(
    content: Mapping[str, Any],
    entry: DownstreamModel,
    plans: Mapping[str, TaskPlan],
    config: Config,
    patch_voxels: int,
) -> Iterator[str]:
    """Yield the lines of the planned entry."""
    name, *others = [item for item in content.items() if item[0] not in ("task_preprocessing", "task_network")]
    yield f"    - {name[0]}: {json.dumps(name[1])}"
    yield from (f"      {item}: {json.dumps(value)}" for item, value in others)
    recipes = {**entry.task_preprocessing, **{task: f"plan_{task}" for task in plans}}
    yield f"      task_preprocessing: {json.dumps(recipes)}"
    yield "      task_network:"
    for task, changes in entry.task_network.items():
        if task not in plans:
            yield f"        {task}: {json.dumps(changes)}"
    for task, plan in plans.items():
        size = config.network_of("downstream", entry, task)
        proposed = fit_network(plan.spacing_mm_zyx, plan.median_shape_zyx, patch_voxels=patch_voxels).patch_size_zyx
        patch = patch_for_poolings(proposed, size.pool_kernels_zyx)
        yield f"        # median shape {listed(plan.median_shape_zyx)}; nnU-Net's rules: {listed(proposed)}, rounded"
        yield "        # to multiples of the network's own poolings"
        own = {**entry.task_network.get(task, {}), "patch_size_zyx": list(patch)}
        yield f"        {task}: {json.dumps(own)}"
