"""Propose spacing, patch and poolings from the cases of a task, as nnU-Net's planner does, as a piece of config.

The rules are those of nnU-Net v2's default planner (Isensee et al., Nature Methods 2021, and its code): the median
spacing over cases, but the 10th percentile along an axis that is more than 3 times coarser than the others and has
less than a third of their voxels; a patch in the aspect of the field of view, no larger than the median shape; an axis
is halved while at least 4 voxels remain and its spacing is within a factor 2 of the finest; convolutions get a kernel
of 3 along an axis once that holds. We differ in the budget, which counts the voxels of a patch and not an estimate of
memory, and in that one network serves all tasks of a run: it is fitted to the medians over tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from nibabel import orientations

from segbench.core.case import CaseFiles
from segbench.core.errors import input_error, short
from segbench.data.geometry import ras_spacing_mm_zyx
from segbench.data.intensities import foreground_sample, statistics_of
from segbench.data.parallel import of_every_case
from segbench.data.readers import read_channels
from segbench.data.resampling import new_shape_zyx, nonzero_box
from segbench.data.volumes import UNREADABLE, open_volume, whole_numbers

ANISOTROPY = 3.0
LEAST_EDGE = 4
LARGEST_VOLUME = 256**3
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Measured:
    """What one case tells. Spacing and shape: RAS+ order, after the crop; samples: foreground values by channel."""

    case_id: str
    spacing_mm_zyx: Triple
    shape_zyx: tuple[int, int, int]
    samples: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class TaskPlan:
    """Spacing of one task and the values it came from.

    ct_foreground: 0.5 and 99.5 percentile, mean and deviation of its first CT channel; None without CT or foreground.
    """

    spacing_mm_zyx: Triple
    spacing_reason: str
    median_shape_zyx: tuple[int, int, int]
    ct_foreground: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class NetworkPlan:
    """Patch and kernels in the terms of the config's section `network`."""

    patch_size_zyx: tuple[int, int, int]
    pool_kernels_zyx: tuple[tuple[int, int, int], ...]
    conv_kernels_zyx: tuple[tuple[int, int, int], ...]


def measure(cases: Sequence[CaseFiles], *, title: str, ignored: Sequence[int] = (), workers: int = 1) -> list[Measured]:
    """Return the measures of every case; those that cannot be read come in one InputError.

    ignored: label values of voxels that count nowhere.
    """
    work = partial(_measured, ignored=tuple(ignored))
    return of_every_case(work, cases, title=f"plan {title}", workers=workers)


def _measured(case: CaseFiles, ignored: tuple[int, ...]) -> Measured:
    try:
        images_CXYZ, affine = read_channels(case.image_paths)
        labels_XYZ = whole_numbers(open_volume(case.label_path).voxels())
        foreground_XYZ = (labels_XYZ > 0) & ~np.isin(labels_XYZ, ignored)
    except UNREADABLE as error:
        raise input_error(
            f"{case.case_id}: {case.image_paths[0]} or its label",
            found=f"a file that cannot be read ({short(error)})",
            expected="volumes",
            fix="get the files again",
        ) from error
    if images_CXYZ.shape[1:] != foreground_XYZ.shape:
        raise input_error(
            case.label_path,
            found=f"shape {foreground_XYZ.shape}",
            expected=f"the image's {images_CXYZ.shape[1:]}",
            fix="python -m segbench check names all problems",
        )
    place = np.argsort(orientations.io_orientation(affine)[:, 0])[::-1]
    box = nonzero_box(images_CXYZ)
    samples = [foreground_sample(image[foreground_XYZ], case.case_id) for image in images_CXYZ]
    shape = tuple(int(box[axis].stop - box[axis].start) for axis in place)
    return Measured(case.case_id, ras_spacing_mm_zyx(affine), shape, tuple(samples))


def plan_task(measured: Sequence[Measured], modalities: Sequence[str]) -> TaskPlan:
    """Return the spacing of a task, why, the median shape at that spacing and the values of its first CT channel."""
    spacings = np.array([item.spacing_mm_zyx for item in measured])
    shapes = np.array([item.shape_zyx for item in measured])
    spacing, reason = target_spacing(spacings, shapes)
    resampled = [new_shape_zyx(item.shape_zyx, item.spacing_mm_zyx, spacing) for item in measured]
    median = tuple(round(size) for size in np.median(resampled, axis=0))
    samples = [item.samples[modalities.index("CT")] for item in measured] if "CT" in modalities else []
    found = statistics_of(samples) if any(len(values) for values in samples) else None
    return TaskPlan(spacing, reason, median, found)


def target_spacing(spacings_mm: np.ndarray, shapes: np.ndarray) -> tuple[Triple, str]:
    """Return the spacing (mm) and where it comes from. spacings_mm and shapes: one row z,y,x per case."""
    target = np.median(spacings_mm, axis=0)
    low, high = spacings_mm.min(axis=0), spacings_mm.max(axis=0)
    reason = f"median over {len(spacings_mm)} cases; smallest {listed(low)}, largest {listed(high)}"
    worst = int(np.argmax(target))
    finer = float(np.delete(target, worst).max())
    voxels = np.median(shapes, axis=0)
    if target[worst] > ANISOTROPY * finer and voxels[worst] * ANISOTROPY < np.delete(voxels, worst).min():
        target[worst] = max(np.percentile(spacings_mm[:, worst], 10), finer)
        reason += f"; {'zyx'[worst]} is coarse with few voxels, so its 10th percentile"
    return tuple(round(float(value), 4) for value in target), reason


def listed(values: Iterable[float]) -> str:
    """Return numbers along z, y, x in words, such as '3x0.76x0.76'."""
    return "x".join(f"{value:.4g}" for value in values)


def fit_network(spacing_mm: Sequence[float], median_shape: Sequence[int], *, patch_voxels: int) -> NetworkPlan:
    """Return the largest patch within the budget in the aspect of the field of view, and its kernels."""
    finest = 1 / np.asarray(spacing_mm, dtype=float)
    size = np.round(finest * (LARGEST_VOLUME / finest.prod()) ** (1 / 3))
    plan = topology(spacing_mm, np.maximum(1, np.minimum(size, median_shape)).astype(int))
    while np.prod(plan.patch_size_zyx) > patch_voxels:
        size = np.array(plan.patch_size_zyx)
        for axis in np.argsort(-size / np.asarray(median_shape), kind="stable"):
            smaller = size.copy()
            smaller[axis] -= np.prod([kernel[axis] for kernel in plan.pool_kernels_zyx], dtype=int)
            if smaller[axis] >= LEAST_EDGE:
                break
        else:
            return plan
        plan, before = topology(spacing_mm, smaller), plan
        if np.prod(plan.patch_size_zyx) >= np.prod(before.patch_size_zyx):
            return before
    return plan


def topology(spacing_mm: Sequence[float], size: Sequence[int]) -> NetworkPlan:
    """Return poolings and kernels for a patch size, which grows to a multiple of what the poolings need."""
    spacing, edge, kernel = list(map(float, spacing_mm)), list(map(int, size)), [1, 1, 1]
    pools, convs = [], []
    while True:
        able = [axis for axis in range(3) if edge[axis] >= 2 * LEAST_EDGE]
        able = [axis for axis in able if spacing[axis] < 2 * min(spacing[other] for other in able)]
        if not able or (len(able) == 1 and edge[able[0]] < 3 * LEAST_EDGE):
            break
        kernel = [3 if kernel[axis] == 3 or spacing[axis] < 2 * min(spacing) else 1 for axis in range(3)]
        convs.append(tuple(kernel))
        pools.append(tuple(2 if axis in able else 1 for axis in range(3)))
        for axis in able:
            spacing[axis] *= 2
            edge[axis] = -(-edge[axis] // 2)
    factors = np.prod(pools, axis=0, dtype=int) if pools else np.ones(3, dtype=int)
    patch = tuple(int(-(-edge // factor) * factor) for edge, factor in zip(size, factors, strict=True))
    return NetworkPlan(patch, tuple(pools), (*convs, (3, 3, 3)))


def plan_network(plans: Sequence[TaskPlan], *, patch_voxels: int) -> NetworkPlan:
    """Return the one network of all tasks, fitted to the medians of their spacings and of their median shapes."""
    spacing = np.median([plan.spacing_mm_zyx for plan in plans], axis=0)
    shape = np.round(np.median([plan.median_shape_zyx for plan in plans], axis=0)).astype(int)
    return fit_network(spacing, shape, patch_voxels=patch_voxels)


def recipe_lines(plans: Mapping[str, TaskPlan]) -> Iterator[str]:
    """Yield the lines of one preprocessing recipe per task, `plan_TASK`, with a comment per value."""
    for name, plan in plans.items():
        yield f"  plan_{name}:"
        yield f"    # {plan.spacing_reason}"
        yield f"    spacing_mm_zyx: {list(plan.spacing_mm_zyx)}"
        if plan.ct_foreground:
            low, high, mean, deviation = plan.ct_foreground
            yield "    # CT: percentiles, mean and deviation of the training foreground, which preprocess measures"
            yield f"    # here {low:.0f} to {high:.0f} and {mean:.0f} +- {deviation:.0f}"
            yield "    clip_hu: null"


def as_yaml(plans: dict[str, TaskPlan], *, head: Sequence[str], tasks: bool, patch_voxels: int) -> str:
    """Return the plan as a piece of config with a comment per value; head: lines that say what was looked at.

    tasks: whether the names are tasks of a config, which then get their recipe by `task_preprocessing`.
    """
    lines = [f"# {line}" for line in head] + ["preprocessing_recipes:", *recipe_lines(plans)]
    if tasks:
        lines.append("task_preprocessing:")
        lines += [f"  {name}: plan_{name}" for name in plans]
    network = plan_network(list(plans.values()), patch_voxels=patch_voxels)
    lines.append("network:")
    lines += [f"  # median shape of {name}: {listed(plan.median_shape_zyx)}" for name, plan in plans.items()]
    over = f"the medians over {len(plans)} tasks" if len(plans) > 1 else "these"
    lines += [
        f"  # fitted to {over}, at most {patch_voxels} voxels",
        f"  patch_size_zyx: {list(network.patch_size_zyx)}",
        f"  # an axis is halved while at least {LEAST_EDGE} voxels remain and it is within a factor 2 of the finest",
        f"  pool_kernels_zyx: {[list(kernel) for kernel in network.pool_kernels_zyx]}",
        "  # a kernel of 1 along an axis that is still more than a factor 2 coarser than the finest",
        f"  conv_kernels_zyx: {[list(kernel) for kernel in network.conv_kernels_zyx]}",
    ]
    return "\n".join(lines) + "\n"
