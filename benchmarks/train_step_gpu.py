"""Time a training step on a GPU beside plain PyTorch and beside nnU-Net's trainer.

    NNUNET_PYTHON=... python -m benchmarks.train_step_gpu

Random patches. Every side is a process; all warm up together, then each is measured alone. Rows:

- UniSeg at its published size (config/paper.yaml), for 11 tasks: against plain PyTorch in float32, whose convolutions
  use TF32 as PyTorch does by default, and against PyTorch's autocast to bfloat16, both eager.
- nnU-Net's network at the same size: against nnU-Net's own step (autocast to float16, loss scale, torch.compile).
- busy: fraction of the time of our step in which a kernel or a copy runs on the device.
- loading: our step with patches that worker processes read and augment, against the same step on one batch.

Ends with `result: NAME VALUE TARGET ok|short` for each, and status 1 when one is short.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.sides import PEERS
from benchmarks.train_step import _ours, _plain
from benchmarks.turns import measured_in_turn, timed_steps
from segbench.experiment.config import Config, parse_config, read_config_file

MODULE = "benchmarks.train_step_gpu"
TASKS = Path("config/config.yaml")
SIZE = Path("config/paper.yaml")
STEPS = {"warm_up": 6, "steps": 14}
TARGETS = {"float32": 2.5, "autocast": 1.8, "nnunet": 0.85}
"""Other side -> the least that its seconds of a step may be of ours."""
LEAST_BUSY, MOST_LOADING = 0.9, 1.1
SMALL = {"patch_size_zyx": [48, 48, 48], "pool_kernels_zyx": [[2, 2, 2]] * 4, "conv_kernels_zyx": [[3, 3, 3]] * 5}
VOLUME_MARGIN = 1.25
"""Volumes of the row of loading beside the patch, along each axis."""


def settings(job: dict[str, Any]) -> Config:
    """Return the default config's tasks with the size of a job's network."""
    content = read_config_file(TASKS)
    content["network"] = read_config_file(SIZE)["network"] | job.get("network", {})
    content["training"] = {"batch_size": 2, "augmentation": "full"}
    content["upstream"]["models"] = [job["model"]]
    content.pop("downstream", None)
    return parse_config(content, where=str(TASKS))


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Take the steps of one side in this process."""
    import torch

    from models.loader import build_model
    from segbench.core.task import TaskSet
    from segbench.training.loop import network_spec
    from segbench.training.precision import chosen_arithmetic

    device = torch.device("cuda")
    torch.manual_seed(0)
    config = settings(job)
    tasks = config.tasks_of("upstream")
    if job["model"] != "uniseg":
        tasks = TaskSet([_one_channel(tasks)])
    model = build_model(job["model"], tasks, network_spec(config.network)).to(device)
    arithmetic = replace(chosen_arithmetic(config.training, device), compiled=job.get("compiled", True))
    batches = [_batch(task, config) for task in list(tasks)[:3]]
    if job["side"] == "segbench":
        with arithmetic.switched_on():
            take = _ours(model, config, arithmetic)
            found = timed_steps(lambda number: take(*batches[number % len(batches)], number), job)
            if job.get("busy"):
                found["busy"] = _busy(lambda number: take(*batches[number % len(batches)], number))
            if job.get("loading"):
                found["loading_seconds"] = _loading(take, batches[0][2], config, job["loading"])
        return found
    torch.backends.cudnn.benchmark = True
    take = _plain(model, config, arithmetic)

    def plain(number: int) -> float:
        images_BCZYX, labels_BZYX, task = batches[number % len(batches)]
        with torch.autocast("cuda", torch.bfloat16, enabled=job["side"] == "autocast"):
            images_BCZYX, labels_BZYX = (values.to(device, non_blocking=True) for values in (images_BCZYX, labels_BZYX))
            return take(images_BCZYX, labels_BZYX, task, number)

    return timed_steps(plain, job)


def _one_channel(tasks: Any) -> Any:
    return next(task for task in tasks if task.num_channels == 1)


def _batch(task: Any, config: Config) -> tuple[Any, Any, Any]:
    import torch

    shape = (config.training.batch_size, *config.network.patch_size_zyx)
    labels_BZYX = torch.randint(0, task.num_classes, shape, dtype=torch.uint8)
    images_BCZYX = torch.randn(shape[0], task.num_channels, *shape[1:])
    return images_BCZYX.pin_memory(), labels_BZYX.pin_memory(), task  # of every side, as loaders give them


def _busy(step: Callable[[int], float], steps: int = 5) -> float:
    """Return the fraction of the time of some steps in which the device works, by PyTorch's profiler."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        began = time.perf_counter()
        for number in range(steps):
            step(number)
        torch.cuda.synchronize()
        wall = time.perf_counter() - began
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    busy, end = 0.0, 0.0
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return busy / 1e6 / wall


def _loading(take: Callable[..., float], task: Any, config: Config, job: dict[str, Any]) -> float:
    """Return seconds of a step whose patches workers read from stored volumes and augment, the start left out."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    from segbench.data.sampling import PatchSampler
    from segbench.data.store import open_case, write_case
    from segbench.data.transforms import Augmentation

    patch_zyx, rng = config.network.patch_size_zyx, np.random.default_rng(0)
    shape_zyx = [int(size * VOLUME_MARGIN) for size in patch_zyx]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(4):
            images = rng.normal(size=(task.num_channels, *shape_zyx)).astype(np.float32)
            labels = np.zeros(shape_zyx, np.uint8)
            labels[8:24, 20:60, 20:60] = 1
            write_case(Path(folder) / f"case_{number}", images, labels, {"case_id": f"case_{number}"})
        cases = [open_case(path) for path in sorted(Path(folder).iterdir())]
        sampler = PatchSampler(
            cases, task, patch_size_zyx=patch_zyx, augmentation=Augmentation(patch_zyx, level="full")
        )

        class Batches(Dataset):
            def __len__(self) -> int:
                return int(job["steps"])

            def __getitem__(self, number: int) -> tuple[Any, Any]:
                batch = sampler.sample(np.random.default_rng(number), config.training.batch_size)
                return batch.images, batch.labels

        loader = DataLoader(Batches(), batch_size=None, num_workers=job["workers"], prefetch_factor=4, pin_memory=True)
        times = []
        for number, (images_BCZYX, labels_BZYX) in enumerate(loader):
            take(images_BCZYX, labels_BZYX, task, number)
            times.append(time.perf_counter())
    torch.cuda.synchronize()
    counted = times[len(times) // 3 :]
    return (counted[-1] - counted[0]) / (len(counted) - 1)


def _nnunet_job(shared: dict[str, Any]) -> dict[str, Any]:
    from segbench.training.loop import network_spec

    config = settings({"model": "nnunet_plain"})
    network, task = config.network, _one_channel(config.tasks_of("upstream"))
    widths = network_spec(network).features
    architecture = {
        "input_channels": task.num_channels,
        "n_stages": len(widths),
        "features_per_stage": list(widths),
        "kernel_sizes": [list(kernel) for kernel in network.conv_kernels_zyx],
        "strides": [[1, 1, 1], *map(list, network.pool_kernels_zyx)],
        "n_conv_per_stage": 2,
        "n_conv_per_stage_decoder": 2,
        "num_classes": task.num_classes,
        "conv_bias": True,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin_kwargs": {"inplace": True},
    }
    sizes = {"patch_size_zyx": list(network.patch_size_zyx), "batch_size": 2, "classes": task.num_classes}
    return {"architecture": architecture} | sizes | shared


def sides(workers: int, variants: bool) -> dict[str, tuple[list[str], dict[str, Any]]]:
    """Return name -> command and job of every side that can run here."""
    command = [sys.executable, "-m", MODULE, "--job"]
    loading = {"steps": 45, "workers": workers}
    found: dict[str, tuple[list[str], dict[str, Any]]] = {
        "segbench": (command, STEPS | {"model": "uniseg", "side": "segbench", "busy": True, "loading": loading}),
        "float32": (command, STEPS | {"model": "uniseg", "side": "float32"}),
        "autocast": (command, STEPS | {"model": "uniseg", "side": "autocast"}),
        "segbench, nnU-Net's network": (command, STEPS | {"model": "nnunet_plain", "side": "segbench"}),
    }
    if os.environ.get("NNUNET_PYTHON"):
        found["nnunet"] = ([os.environ["NNUNET_PYTHON"], str(PEERS / "nnunet_step.py")], _nnunet_job(STEPS))
    for model, size in itertools.product(["uniseg", "nnunet_plain"], [{}, {"network": SMALL}]) if variants else ():
        for compiled in (False, True):
            patch = "x".join(map(str, size.get("network", {}).get("patch_size_zyx", ["published size"])))
            job = STEPS | {"model": model, "side": "segbench", "compiled": compiled} | size
            found[f"{model}, {patch}, {'compiled' if compiled else 'eager'}"] = (command, job)
    return found


def main() -> int:
    """Compare all sides, or run one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="of the row of loading")
    parser.add_argument("--variants", action="store_true", help="our step compiled and not, at two sizes")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(run(json.loads(args.job.read_text(encoding="utf-8")))))
        return 0
    import torch

    if not torch.cuda.is_available():
        sys.exit("no CUDA device here")
    asked = sides(args.workers, args.variants)
    with tempfile.TemporaryDirectory() as folder:
        found = measured_in_turn(asked, Path(folder))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {args.workers} workers")
    head = ["side", "s a step", "smallest", "largest", "GPU MiB", "warm-up s", "last loss"]
    keys = ("seconds", "smallest", "largest", "peak_mib", "warm_up_seconds", "loss")
    print(
        tabulate([[name, *map(item.get, keys)] for name, item in found.items()], head, tablefmt="pipe", floatfmt=".4f")
    )
    results, missing = [], [name for name in asked if name not in found]
    if missing:
        sys.exit(f"no result of {', '.join(missing)}")
    for name, target in TARGETS.items():
        own = "segbench, nnU-Net's network" if name == "nnunet" else "segbench"
        if name in found:
            results.append((name, found[name]["seconds"] / found[own]["seconds"], target, 1))
        else:
            print(f"{name} is left out: NNUNET_PYTHON is not set")
    own = found["segbench"]
    results.append(("busy", own["busy"], LEAST_BUSY, 1))
    results.append(("loading", own["loading_seconds"] / own["seconds"], MOST_LOADING, -1))
    outcomes = [(name, value, target, value * sign >= target * sign) for name, value, target, sign in results]
    for name, value, target, reached in outcomes:
        print(f"result: {name} {value:.3f} {target} {'ok' if reached else 'short'}")
    return int(not all(reached for *_, reached in outcomes))


if __name__ == "__main__":
    sys.exit(main())
