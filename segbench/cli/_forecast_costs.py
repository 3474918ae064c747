"""What one piece of a run costs here, measured on a small run of the same tasks by the code that the run itself uses.

The small run has a few cases of each task: those of the data sets, of the synthetic world, or stand-ins of noise where
the data are not there yet. Each function is called in a process of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.core.paths import RunPaths

if TYPE_CHECKING:
    from segbench.core.case import Case, CaseFiles
    from segbench.core.task import Task
    from segbench.experiment.config import Config
    from segbench.experiment.context import JobContext
    from segbench.training.loop import TrainingRun

STAND_IN_PATCHES = 1.5
"""Size of a stand-in along each axis, in patches."""
PREDICTING = 0.25
"""Fraction of the time of a network in which cases are predicted."""
ANY_LABEL = frozenset(range(256))


def store_of(config: Config) -> Path:
    """Return the store of the small run."""
    return RunPaths(config.run).root / "store"


def measured_data(config: Config, *, cases: int) -> dict[str, Any]:
    """Make the data of the small run and return what each step of the data jobs costs.

    Args:
        config: config of the small run.
        cases: how many cases of each task it has; the last is the test case.

    Returns:
        `phantom_seconds`, of one case of the synthetic world, 0 without; `tasks`: task -> `there` (whether its data
        are), `count` (its cases), seconds per case of ingest (`ingest_seconds`), the leak audit (`audit_seconds`),
        preprocessing (`preprocess_seconds`, mean over the recipes that networks use) and scoring (`score_seconds`), and
        `stored_mb` of a case preprocessed by all of them; `measured_seconds`.
    """
    import numpy as np

    from segbench.core.case import write_manifest
    from segbench.core.files import write_json
    from segbench.data.audit.leaks import same_image_pairs
    from segbench.data.checks import check_case
    from segbench.data.ingest import manifest_row
    from segbench.data.phantoms.world import write_world
    from segbench.data.preprocess import preprocess_folds
    from segbench.data.preprocessing_recipes import preprocessing_recipe
    from segbench.data.readers import read_label
    from segbench.evaluation.rows import annotated_structures
    from segbench.experiment.jobs import preprocessed_by_entries
    from segbench.metrics import score_pair

    began, paths, found = time.monotonic(), RunPaths(config.run), {}
    phantom = config.data.phantom
    if phantom is not None:
        names = [task.name for task in config.tasks]
        write_world(config.data_root, seed=phantom.seed, cases_per_task=cases, tasks=names)
    phantom_seconds = (time.monotonic() - began) / (cases * len(config.tasks)) if phantom else 0.0
    sides: dict[str, dict[str, list[str]]] = {}
    by_entries = preprocessed_by_entries(config)
    for task in config.tasks:
        card = config.dataset_cards[task.name]
        files, count = _sample(config, task, cases)
        clock = _Clock()
        rows: list[Case] = []
        for item in files:
            check_case(item, set(ANY_LABEL), [channel.modality for channel in task.channels])
            rows.append(manifest_row(task.name, item))
        ingest_seconds = clock.seconds()
        same_image_pairs(rows)
        audit_seconds = clock.seconds()
        train = [row.case_id for row in rows[:-1]] or [rows[0].case_id]
        sides[task.name] = {"train": train, "test": [rows[-1].case_id]}
        store, folds, stored_mb = store_of(config), dict.fromkeys(config.data.folds, train), 0.0
        recipes = [task, *(other for other in by_entries if other.name == task.name)]
        for seen in recipes:
            recipe = preprocessing_recipe(seen, config.preprocessing_recipes)
            index = preprocess_folds(rows, seen, card, recipe, sides=folds, store_root=store)
            stored_mb += sum(_folder_mb(folder) for folder in index.folders.values())
            index.write(paths.preprocessed(task.name, config.own_preprocessing(seen)))
        preprocess_seconds = clock.seconds() / len(recipes)
        write_manifest(paths.manifest(task.name), rows)
        clock = _Clock()
        reference_XYZ = read_label(rows[-1], card)
        shifted_XYZ = np.roll(reference_XYZ, 1, axis=0)  # a prediction that is nearly right, as of a trained network
        structures = annotated_structures(task, rows[-1])
        nominal = task.spacing_is_nominal
        score_pair(
            reference_XYZ,
            shifted_XYZ,
            rows[-1].spacing_mm_xyz,
            structures,
            metrics=config.metrics,
            spacing_is_nominal=nominal,
        )
        found[task.name] = {
            "there": count is not None,
            "count": count or 0,
            "ingest_seconds": ingest_seconds / len(rows),
            "audit_seconds": audit_seconds / len(rows),
            "preprocess_seconds": preprocess_seconds / len(rows),
            "score_seconds": clock.seconds(),
            "stored_mb": stored_mb / len(rows),
        }
    write_json(paths.splits, _splits_file({str(fold): sides for fold in config.data.folds}))
    return {"phantom_seconds": phantom_seconds, "tasks": found, "measured_seconds": time.monotonic() - began}


class _Clock:
    """Tells the seconds since it was last asked."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def seconds(self) -> float:
        now = time.monotonic()
        passed, self._last = now - self._last, now
        return passed


def _sample(config: Config, task: Task, cases: int) -> tuple[list[CaseFiles], int | None]:
    """Return cases from all over a data set and how many it has, or stand-ins and None where it is not there."""
    from segbench.core.errors import InputError
    from segbench.data.ingest import discover

    phantom, card = config.data.phantom, config.dataset_cards[task.name]
    try:
        known = discover(task.name, card, config.data_root)
    except InputError:
        known = []
    if not known:
        return list(_stand_ins(config, task, cases)), None
    chosen = {round(number * (len(known) - 1) / max(1, cases - 1)) for number in range(cases)}
    count = len(known) if phantom is None else phantom.train_cases + phantom.test_cases
    return [known[number] for number in sorted(chosen)], count


def _stand_ins(config: Config, task: Task, cases: int) -> Iterator[CaseFiles]:
    """Write images of noise with slabs of all classes, on the grid of the task's preprocessing recipe."""
    import nibabel as nib
    import numpy as np

    from segbench.core.case import CaseFiles
    from segbench.data.preprocessing_recipes import preprocessing_recipe

    recipe = preprocessing_recipe(task, config.preprocessing_recipes)
    patches = [config.network_of(section, entry, task.name).patch_size_zyx for section, entry in _entries(config)]
    shape_xyz = [math.ceil(STAND_IN_PATCHES * max(patch[axis] for patch in patches)) for axis in (2, 1, 0)]
    affine = np.diag([*reversed(recipe.spacing_mm_zyx or (1.0, 1.0, 1.0)), 1.0])
    folder = RunPaths(config.run).root / "stand_ins" / task.name
    folder.mkdir(parents=True, exist_ok=True)
    values = np.arange(shape_xyz[2]) * task.num_classes // shape_xyz[2]
    labels_XYZ = np.broadcast_to(values, shape_xyz).astype(np.uint8)
    for number in range(cases):
        rng = np.random.default_rng(number)
        images = []
        for channel in range(task.num_channels):
            path = folder / f"{number}_{channel:04d}.nii.gz"
            nib.save(nib.Nifti1Image(rng.integers(1, 300, shape_xyz, dtype=np.int16), affine), path)
            images.append(path)
        label = folder / f"{number}.nii.gz"
        nib.save(nib.Nifti1Image(labels_XYZ, affine), label)
        yield CaseFiles(f"stand_in_{number}", f"stand_in_{number}", tuple(images), label)


def _entries(config: Config) -> list[tuple[str, Any]]:
    sections = ["upstream", *(["downstream"] if config.downstream else [])]
    return [(section, entry) for section in sections for entry in config.entries_of(section)]


def _splits_file(folds: dict[str, Any]) -> dict[str, Any]:
    from segbench.core.provenance import content_hash

    content = {"protocol": "seeded", "task_protocols": {}, "folds": folds, "changes": []}
    return content | {"sha256": content_hash(content)}


def _folder_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def measured_network(config: Config, job_id: str, *, seconds: float, threads: int) -> dict[str, Any]:
    """Train a job of the small run for some seconds, predict its test cases, and return what both cost.

    Args:
        config: config of the small run, whose data are there.
        job_id: a training job of it; it starts from random weights, whatever the job starts from.
        seconds: how long to measure.
        threads: of the numerical libraries.

    Returns:
        step_seconds (mean over the tasks of the job, reading and augmentation included), save_seconds (of a state),
        tasks: task -> predict_seconds of a case, reading, restoring and writing included, and its windows, mirrored
        ones included (empty for an objective), peak_memory_mib, weights_mb, states_mb (both states), map_mb (of a
        predicted label map) and measured_seconds, without the start and what the first steps take longer.
    """
    from segbench.core.memory import keep_freed_memory

    keep_freed_memory()
    import torch

    from segbench.cli._job import computing_device, process_costs
    from segbench.experiment.context import JobContext
    from segbench.experiment.jobs import training_jobs
    from segbench.training.loop import TrainingRun

    device = torch.device(computing_device(threads))
    context = JobContext(config, next(job for job in training_jobs(config) if job.id == job_id))
    run = TrainingRun(context, device, initialised=False)
    run.stepper.late = False  # each step is waited for, so that its own time is measured
    run.stream.order = []
    kinds = _of_distinct_shape(context.tasks)
    warm_up = _train(run, kinds)
    every = list(range(len(context.tasks)))
    positions = every if warm_up * len(every) <= seconds else kinds
    first_seconds = _train(run, positions)
    rounds = max(1, int((1 - PREDICTING) * seconds / max(first_seconds * len(positions), 1e-3)) - 1)
    step_seconds = _train(run, positions * rounds)
    step_seconds = (first_seconds + rounds * step_seconds) / (rounds + 1)
    steps = len(kinds) + len(positions) * (rounds + 1)
    began = time.monotonic()
    run.save()
    save_seconds = time.monotonic() - began
    state = run.state_path.stat().st_size / 1e6
    predicted: dict[str, Any] = {}
    if not context.job.self_supervised:
        predicted = _predicted(context, str(device), seconds=PREDICTING * seconds)
    weights = sum(value.numel() * value.element_size() for value in run.optimisation.scored_weights().values())
    return {
        "step_seconds": step_seconds,
        "save_seconds": save_seconds,
        "tasks": predicted,
        "peak_memory_mib": process_costs()["peak_memory_mib"],
        "weights_mb": weights / 1e6,
        "states_mb": 2 * state,
        "measured_seconds": step_seconds * steps + time.monotonic() - began,
    }


def _train(run: TrainingRun, positions: Sequence[int]) -> float:
    """Take a step with each of these tasks, in this order, and return the mean seconds of a step.

    Beside a GPU other processes load while the network computes: what this one waits for its own loading is left out.
    """
    before = _computing(run)
    run.stream.order += positions
    run.stream.visit = list(range(len(run.stream.order)))
    run.run(workers=0)
    return (_computing(run) - before) / len(positions)


def _computing(run: TrainingRun) -> float:
    waited = run.progression.waiting_seconds if run.arithmetic.device.type == "cuda" else 0.0
    return run.progression.seconds - waited


def _of_distinct_shape(tasks: Any) -> list[int]:
    """Return the position of the first task of each number of channels and classes."""
    shapes: dict[tuple[int, int], int] = {}
    for position, task in enumerate(tasks):
        shapes.setdefault((task.num_channels, task.num_classes), position)
    return list(shapes.values())


def _predicted(context: JobContext, device: str, *, seconds: float) -> dict[str, dict[str, float]]:
    """Return task -> cost of predicting its test case; tasks for which the time does not suffice cost by windows."""
    from segbench.data.geometry import write_prediction
    from segbench.data.store import open_case
    from segbench.evaluation.predictors.network import windows_of
    from segbench.inference.precision import ready
    from segbench.inference.sliding_window import predict_labels
    from segbench.training.loop import new_model

    model = ready(new_model(context), device)
    found: dict[str, dict[str, float]] = {}
    began = time.monotonic()
    measured_seconds = measured_windows = 0.0
    for task in context.tasks:
        case = context.test_cases(task.name)[0]
        windows = job_windows(context.config, context.job, task.name, [case])
        clock, size_mb = _Clock(), 0.0
        if not found or time.monotonic() - began < seconds:
            preprocessed = open_case(context.folder(task.name, case.case_id))
            images_CZYX = preprocessed.images[:]
            geometry, windows_here = preprocessed.geometry, windows_of(context, [task])
            labels_XYZ = predict_labels(model, images_CZYX, [task], geometry, windows_here)[task.name]
            path = context.paths.prediction(context.job.id, task.name, case.case_id)
            write_prediction(path, labels_XYZ, like=case.image_paths[0])
            cost, size_mb = clock.seconds(), path.stat().st_size / 1e6
            measured_seconds, measured_windows = measured_seconds + cost, measured_windows + windows
        else:
            cost = windows * measured_seconds / measured_windows
        found[task.name] = {"predict_seconds": cost, "windows": windows, "map_mb": size_mb}
    return found


def job_windows(config: Config, job: Any, task_name: str, cases: Sequence[Case]) -> int:
    """Return the windows of these cases of a task in a job, mirrored ones included."""
    from segbench.data.preprocessing_recipes import preprocessing_recipe

    entry = job.entry(config)
    task = config.task_of(entry, config.task(task_name))
    patch_zyx = config.network_of(job.experiment, entry, job.scope).patch_size_zyx
    sides = config.training_of(job.experiment, entry, job.initialisation).mirror_sides
    mirrors = mirrored_predictions(config, task, mirror_sides=sides)
    spacing = preprocessing_recipe(task, config.preprocessing_recipes).spacing_mm_zyx
    step = config.inference.step
    return mirrors * sum(windows_of_case(case, spacing, patch_zyx=patch_zyx, step=step) for case in cases)


def mirrored_predictions(config: Config, task: Task, *, mirror_sides: bool) -> int:
    """Return how often a window of a test case is predicted, mirrored or not."""
    from segbench.core.task import mirror_axes_of

    axes: int = len(mirror_axes_of([task], config.inference.mirror_axes, mirror_sides=mirror_sides))
    return 1 << axes


def windows_of_case(
    case: Case,
    spacing_mm_zyx: tuple[float, float, float] | None,
    *,
    patch_zyx: tuple[int, int, int],
    step: float,
) -> int:
    """Return how many windows cover a case on the grid of this spacing (None: its own), without cropping."""
    total = 1
    native_zyx = zip(reversed(case.shape_xyz), reversed(case.spacing_mm_xyz), strict=True)
    for axis, ((size, native_mm), patch) in enumerate(zip(native_zyx, patch_zyx, strict=True)):
        voxels = size if spacing_mm_zyx is None else round(size * native_mm / spacing_mm_zyx[axis])
        stride = max(1, int(patch * step))
        total *= 1 + max(0, -(-(voxels - patch) // stride))
    return total


def started_evaluation(config: Config, job_id: str) -> None:
    """Import what the evaluation of a network needs and build the network: what each evaluation pays for its start."""
    from segbench.core.memory import keep_freed_memory

    keep_freed_memory()
    import segbench.evaluation.evaluate
    import segbench.evaluation.predictors.network  # noqa: F401
    from segbench.cli._job import computing_device
    from segbench.experiment.context import JobContext
    from segbench.experiment.jobs import training_jobs
    from segbench.inference.precision import ready
    from segbench.training.loop import new_model

    context = JobContext(config, next(job for job in training_jobs(config) if job.id == job_id))
    ready(new_model(context), computing_device(1))
