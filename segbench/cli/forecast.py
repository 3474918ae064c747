"""Measure each network of a config for some seconds and say what the run will take: hours, memory and disk per model.

Training and prediction are measured on patches of noise, so that no data are needed. Prediction is counted where the
manifests and the splits say which cases there are and how large. Reading, augmentation, restoring and scoring are not
counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.core.vocabulary import EQUAL

if TYPE_CHECKING:
    from segbench.core.case import Case
    from segbench.experiment.config import Config
    from segbench.experiment.context import JobContext
    from segbench.experiment.jobs import Job

EXAMPLE = "python -m segbench forecast --config config/config.yaml"
LEAST_SECONDS = 2.0
HEAD = (
    "model",
    "jobs",
    "s a step",
    "training h",
    "s a window",
    "prediction h",
    "memory MiB",
    "weights MB",
    "states MB",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--config", type=Path, required=True, help="config of the run")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure, start-up apart (default 60)")
    parser.add_argument("--processes", type=int, default=1, help="jobs that run at the same time (default 1)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each job (default 1)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Measure one job per distinct network, each in a process of its own, and print the table."""
    from tabulate import tabulate

    from segbench.experiment.config import load_config

    _refuse(args)
    config = load_config(args.config)
    if args.measure:
        print(json.dumps(measured(config, args.measure, seconds=args.seconds, threads=args.threads)))
        return 0
    groups = distinct_networks(config)
    each = max(LEAST_SECONDS, args.seconds / max(1, len(groups)))
    found = [(jobs, _in_own_process(args, jobs[0], each)) for jobs in groups]
    rows = [forecast_row(config, jobs, costs) for jobs, costs in found]
    print(tabulate([[row[name] for name in HEAD] for row in rows], HEAD, tablefmt="pipe", floatfmt=".3f"))
    hours = sum(row["training h"] + row["prediction h"] + row["start-up h"] for row in rows)
    disk = sum(row["weights MB"] for row in rows)
    states = args.processes * max((row["states MB"] / row["jobs"] for row in rows), default=0.0)
    memory = args.processes * max((row["memory MiB"] for row in rows), default=0.0)
    print(
        f"total: {hours:.2f} hours of jobs, {hours / args.processes:.2f} hours with {args.processes} at a time; "
        f"{memory:.0f} MiB of memory; {disk:.0f} MB of weights, {states:.0f} MB of states while jobs run"
    )
    unknown = [task.name for task in config.tasks if _test_cases(config, task.name) is None]
    if unknown:
        print(f"prediction is not counted for tasks that are not ingested and split yet: {', '.join(unknown)}")
    return 0


def _refuse(args: argparse.Namespace) -> None:
    from segbench.core.errors import Problem, raise_problems

    raise_problems(
        Problem(option, f"{value:g}", "more than 0", "fix the option")
        for option, value in (("--seconds", args.seconds), ("--processes", args.processes), ("--threads", args.threads))
        if value <= 0
    )


def distinct_networks(config: Config) -> list[list[Job]]:
    """Return the trained jobs in groups of equal cost: model, recipe, experiment, size, channels and classes."""
    from segbench.experiment.jobs import training_jobs

    groups: dict[tuple[Any, ...], list[Job]] = {}
    for job in training_jobs(config):
        if job.external:
            continue
        shapes = tuple((task.num_channels, task.num_classes) for task in job.tasks(config))
        size = repr(config.network_of(job.experiment, job.entry(config), job.scope))
        groups.setdefault((job.model, job.recipe, job.experiment, size, shapes), []).append(job)
    return list(groups.values())


def _in_own_process(args: argparse.Namespace, job: Job, seconds: float) -> dict[str, float]:
    """Measure a job in a process of its own: memory is then its own, and start-up counts as in the run."""
    from segbench.core.errors import RunFailed

    command = [sys.executable, "-m", "segbench", "forecast", "--config", str(args.config), "--measure", job.id]
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--seconds", str(seconds), "--threads", str(args.threads)], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise RunFailed(f"{job.id} could not be measured; the lines above say why")
    costs: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return costs | {"start_seconds": time.monotonic() - began - costs["measured_seconds"]}


def measured(config: Config, job_id: str, *, seconds: float, threads: int) -> dict[str, float]:
    """Return what a job costs here.

    Args:
        config: the config.
        job_id: a training job of it.
        seconds: how long to measure.
        threads: of the numerical libraries.

    Returns:
        step_seconds (mean over the tasks of the job), window_seconds (one window, without mirroring; 0 for an
        objective), peak_memory_mib, weights_mb, state_mb (both states) and measured_seconds.
    """
    from segbench.core.memory import keep_freed_memory

    keep_freed_memory()
    import torch

    from segbench.cli._job import computing_device, process_costs
    from segbench.experiment.context import JobContext
    from segbench.experiment.jobs import training_jobs
    from segbench.training.loop import new_model
    from segbench.training.optimisation import Optimisation
    from segbench.training.precision import chosen_arithmetic
    from segbench.training.step import Stepper

    device = torch.device(computing_device(threads))
    context = JobContext(config, next(job for job in training_jobs(config) if job.id == job_id))
    settings, arithmetic = context.training, chosen_arithmetic(context.training, device)
    model = new_model(context, scaled=False).to(device=device, memory_format=arithmetic.memory_format)  # type: ignore[call-overload]
    optimisation = Optimisation(model, settings, 1_000_000)
    stepper = Stepper(model, optimisation, arithmetic, settings, seed=context.job.seed)
    batches = [_noise(context, task, settings.batch_size, device) for task in _of_distinct_shape(context)]
    began = time.monotonic()

    def step(number: int) -> None:
        images_BCZYX, labels_BZYX, task = batches[number % len(batches)]
        stepper.step(images_BCZYX, labels_BZYX, task, number=number)

    def window(number: int) -> None:
        images_BCZYX, _, task = batches[number % len(batches)]
        model(images_BCZYX, task)[0].float().sum().item()

    with arithmetic.switched_on():
        step_seconds = _mean_seconds(step, len(batches), 0.8 * seconds)
        window_seconds = 0.0
        if not context.job.self_supervised:
            model.eval()
            with torch.no_grad(), arithmetic.autocast():
                window_seconds = _mean_seconds(window, len(batches), 0.2 * seconds) / settings.batch_size
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values()) / 1e6
    good_and_current, states = 2, 2
    moments = sum(
        value.numel() * value.element_size()
        for state in optimisation.optimiser.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    return {
        "step_seconds": step_seconds,
        "window_seconds": window_seconds,
        "peak_memory_mib": process_costs()["peak_memory_mib"],
        "weights_mb": weights,
        "state_mb": states * good_and_current * (weights + moments / 1e6),
        "measured_seconds": time.monotonic() - began,
    }


def _of_distinct_shape(context: JobContext) -> list[Any]:
    shapes: dict[tuple[int, int], Any] = {}
    for task in context.tasks:
        shapes.setdefault((task.num_channels, task.num_classes), task)
    return list(shapes.values())


def _noise(context: JobContext, task: Any, batch_size: int, device: Any) -> tuple[Any, Any, Any]:
    import torch

    shape = (batch_size, *context.network.patch_size_zyx)
    images_BCZYX = torch.randn(shape[0], task.num_channels, *shape[1:], device=device)
    return images_BCZYX, torch.randint(0, task.num_classes, shape, dtype=torch.uint8, device=device), task


def _mean_seconds(work: Callable[[int], None], kinds: int, seconds: float) -> float:
    """Return the mean seconds of a call over whole rounds of the kinds, after one round that does not count."""
    for number in range(kinds):
        work(number)
    began, rounds = time.monotonic(), 0
    while rounds == 0 or time.monotonic() - began < seconds:
        for number in range(kinds):
            work(number)
        rounds += 1
    return (time.monotonic() - began) / (rounds * kinds)


def forecast_row(config: Config, jobs: list[Job], costs: dict[str, float]) -> dict[str, Any]:
    """Return the row of jobs of equal cost; hours, weights and states are sums over them."""
    job = jobs[0]
    steps = sum(len(item.tasks(config)) * _iterations(config, item) for item in jobs)
    windows = 0 if job.self_supervised else sum(_windows(config, item) for item in jobs)
    scopes = {item.scope for item in jobs}
    recipe = "" if job.recipe == EQUAL else f" ({job.recipe})"
    processes = len(jobs) * (1 if job.self_supervised else 2)
    return {
        "model": f"{job.experiment} {job.model}{recipe}" + ("" if len(scopes) > 1 else f" {job.scope}"),
        "jobs": len(jobs),
        "s a step": costs["step_seconds"],
        "training h": steps * costs["step_seconds"] / 3600,
        "s a window": costs["window_seconds"],
        "prediction h": windows * costs["window_seconds"] / 3600,
        "start-up h": processes * costs["start_seconds"] / 3600,
        "memory MiB": costs["peak_memory_mib"],
        "weights MB": len(jobs) * costs["weights_mb"],
        "states MB": len(jobs) * costs["state_mb"],
    }


def _iterations(config: Config, job: Job) -> int:
    return config.training_of(job.experiment, job.entry(config), job.initialisation).iterations_per_task


def _windows(config: Config, job: Job) -> int:
    """Return the windows of all test cases of a job, mirrored ones included; tasks that are not split yet add none."""
    from segbench.data.preprocessing_recipes import preprocessing_recipe

    patch_zyx = config.network_of(job.experiment, job.entry(config), job.scope).patch_size_zyx
    mirrors, total = 2 ** len(config.inference.mirror_axes), 0
    for task in job.tasks(config):
        spacing = preprocessing_recipe(task, config.preprocessing_recipes).spacing_mm_zyx
        for case in _test_cases(config, task.name, fold=job.fold) or []:
            total += mirrors * windows_of(case, spacing, patch_zyx=patch_zyx, step=config.inference.step)
    return total


def windows_of(
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


def _test_cases(config: Config, task: str, *, fold: int | None = None) -> Iterable[Case] | None:
    """Return the test cases of a task; None before it was ingested and split."""
    from segbench.core.case import read_manifest
    from segbench.core.paths import RunPaths
    from segbench.experiment.splits import read_splits

    paths = RunPaths(config.run)
    if not paths.manifest(task).exists() or not paths.splits.exists():
        return None
    known = {case.case_id: case for case in read_manifest(paths.manifest(task))}
    names = read_splits(paths.splits).of(config.data.folds[0] if fold is None else fold, task).test
    return [known[name] for name in names if name in known]
