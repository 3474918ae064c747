"""Time a training step beside the same network in plain float32 PyTorch.

    python -m benchmarks.train_step

UniSeg with random patches and labels. Each side runs in fresh processes, in turn with the other one; a
process takes some steps that do not count and reports the median of the next ones, and the median over processes is
compared. Rows:

- `base 32, 64x64x64`, two cores: against plain PyTorch, eager, float32, contiguous, with the allocator as it is.
- `default run`, one core, which is what each of its jobs has: network, tasks and batch of config/config.yaml, against
  the step of the first version: float32, channels last, deterministic, the allocator as it is.

Ends with `result: NAME VALUE TARGET ok|short` for each row, and status 1 when one is short.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.sides import ours, run_side
from segbench.core.memory import keep_freed_memory
from segbench.experiment.config import Config, parse_config, read_config_file

MODULE = "benchmarks.train_step"
CONFIG = Path("config/config.yaml")
LARGE = {"patch_size_zyx": [64, 64, 64], "base_features": 32, "max_features": 320} | {
    "pool_kernels_zyx": [[1, 2, 2], *[[2, 2, 2]] * 4],
    "conv_kernels_zyx": [[1, 3, 3], *[[3, 3, 3]] * 5],
}
ROWS: dict[str, dict[str, Any]] = {
    "base 32, 64x64x64": {"network": LARGE, "tasks": 3, "cores": 2, "other": "plain", "target": 0.45}
    | {"steps": 3, "warm_up": 1},
    "default run": {"network": {}, "tasks": 11, "cores": 1, "other": "former", "target": 0.5}
    | {"steps": 40, "warm_up": 10},
}
OTHERS = {"plain": "plain PyTorch, float32", "former": "first version, float32"}


def settings(job: dict[str, Any]) -> Config:
    """Return the default config with the network and the number of upstream tasks of a row."""
    content = read_config_file(CONFIG)
    content["network"] |= job["network"]
    content["upstream"]["tasks"] = content["upstream"]["tasks"][: job["tasks"]]
    content["upstream"]["models"] = ["uniseg"]
    content.pop("downstream", None)
    return parse_config(content, where=str(CONFIG))


def run(job: dict[str, Any]) -> dict[str, float]:
    """Take the steps of one side in this process; return medians of a step, and the last loss."""
    if job["side"] == "segbench":
        keep_freed_memory()
    import torch

    from models.loader import build_model
    from segbench.training.loop import network_spec
    from segbench.training.precision import chosen_arithmetic

    torch.set_num_threads(job["cores"])
    torch.manual_seed(0)
    config = settings(job)
    tasks = config.tasks_of("upstream")
    model = build_model("uniseg", tasks, network_spec(config.network))
    batches = []
    for task in list(tasks)[: job["steps"]]:
        shape = (config.training.batch_size, *config.network.patch_size_zyx)
        images_BCZYX = torch.randn(shape[0], task.num_channels, *shape[1:])
        labels_BZYX = torch.randint(0, task.num_classes, shape, dtype=torch.uint8)
        batches.append((images_BCZYX, labels_BZYX, task))
    make = {"segbench": _ours, "plain": _plain, "former": _former}[job["side"]]
    arithmetic = chosen_arithmetic(config.training, torch.device("cpu"))
    with arithmetic.switched_on() if job["side"] == "segbench" else _deterministic(job["side"] == "former"):
        take = make(model, config, arithmetic)
        seconds, used = [], []
        for number in range(job["warm_up"] + job["steps"]):
            before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            loss = take(*batches[number % len(batches)], number)
            seconds.append(time.perf_counter() - began)
            after = resource.getrusage(resource.RUSAGE_SELF)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            used.append((cpu, after.ru_minflt - before.ru_minflt))
    counted = used[job["warm_up"] :]
    return {
        "seconds": statistics.median(seconds[job["warm_up"] :]),
        "cpu_seconds": statistics.median(cpu for cpu, _ in counted),
        "page_faults": statistics.median(faults for _, faults in counted),
        "loss": loss,
    }


def _deterministic(on: bool) -> Any:
    import contextlib

    import torch

    torch.use_deterministic_algorithms(on, warn_only=True)
    return contextlib.nullcontext()


def _ours(model: Any, config: Config, arithmetic: Any) -> Callable[..., float]:
    from segbench.training.compilation import compile_regions
    from segbench.training.optimisation import Optimisation
    from segbench.training.step import Stepper

    model.to(memory_format=arithmetic.memory_format).train()
    optimisation = Optimisation(model, config.training, 1_000_000, fused=arithmetic.late)
    if arithmetic.compiled:
        compile_regions(model)
    stepper = Stepper(model, optimisation, arithmetic, config.training, seed=0)
    started: list[Any] = []

    def take(images_BCZYX: Any, labels_BZYX: Any, task: Any, number: int) -> float:
        images_BCZYX = arithmetic.to_device(images_BCZYX, arithmetic.memory_format)
        labels_BZYX = arithmetic.to_device(labels_BZYX)
        started.append(stepper.step(images_BCZYX, labels_BZYX, task, number=number, ignored=False))
        optimisation.advance()
        return stepper.result(started.pop(0)).loss if len(started) > stepper.late else float("nan")

    return take


def _former(model: Any, config: Config, arithmetic: Any) -> Callable[..., float]:
    import torch

    model.to(memory_format=torch.channels_last_3d)
    plain = _plain(model, config, arithmetic)

    def take(images_BCZYX: Any, *others: Any) -> float:
        return plain(images_BCZYX.to(memory_format=torch.channels_last_3d), *others)

    return take


def _plain(model: Any, config: Config, arithmetic: Any) -> Callable[..., float]:
    import torch

    from models.blocks.instance_norm import InstanceNorm
    from segbench.training.losses import training_loss

    InstanceNorm.forward = torch.nn.InstanceNorm3d.forward  # PyTorch's own
    model.train()
    recipe = config.training
    momentum = 0.99 if recipe.momentum is None else recipe.momentum
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=recipe.initial_learning_rate,
        momentum=momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )

    def take(images_BCZYX: Any, labels_BZYX: Any, task: Any, number: int) -> float:
        optimiser.zero_grad(set_to_none=True)
        outputs = model(images_BCZYX, task)
        loss = training_loss(model, outputs, labels_BZYX, task, batch_dice=recipe.batch_dice)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        optimiser.step()
        return loss.item()

    return take


def compare(name: str, *, rounds: int) -> tuple[list[list[Any]], float]:
    """Run both sides in turn; return their rows of the table and the ratio of their seconds."""
    row = ROWS[name]
    sides = ("segbench", row["other"])
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        for _ in range(rounds):
            for side in sides:
                path.write_text(json.dumps(row | {"side": side}), encoding="utf-8")
                found[side].append(run_side(ours(MODULE, path), cores=row["cores"]))
    medians = {
        side: {key: statistics.median(item[key] for item in items) for key in items[0]} for side, items in found.items()
    }
    ratio = medians["segbench"]["seconds"] / medians[row["other"]]["seconds"]
    lines = []
    for side in sides:
        seconds = [item["seconds"] for item in found[side]]
        title = OTHERS.get(side, side)
        spread = f"{min(seconds):.4f} to {max(seconds):.4f}"
        values = medians[side]
        lines.append([name, row["cores"], title, values.pop("seconds"), spread, *values.values()])
    return lines, ratio


HEAD = ["row", "cores", "side", "s a step", "smallest to largest", "CPU s a step", "page faults a step", "last loss"]


def main() -> int:
    """Compare all rows, or run one side of one job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="processes of each side")
    parser.add_argument("--row", choices=sorted(ROWS), help="only this row")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(run(json.loads(args.job.read_text(encoding="utf-8")))))
        return 0
    lines, results = [], []
    for name in [args.row] if args.row else ROWS:
        rows, ratio = compare(name, rounds=args.rounds)
        lines += rows
        results.append((name, ratio, ROWS[name]["target"]))
    print(f"{platform.processor() or platform.machine()}, {args.rounds} processes a side")
    print(tabulate(lines, HEAD, tablefmt="pipe", floatfmt=".4f"))
    for name, ratio, target in results:
        outcome = "ok" if ratio <= target else "short"
        print(f"result: {name.replace(' ', '_').replace(',', '')} {ratio:.3f} {target} {outcome}")
    return int(any(ratio > target for _, ratio, target in results))


if __name__ == "__main__":
    sys.exit(main())
