"""What a network costs: parameters, FLOPs at a stated patch, and on demand time and memory at the largest patch here.

FLOPs are counted by torch.utils.flop_counter on shapes alone (no memory, no arithmetic), two per multiply-add, over
convolutions, matrix products and attention; normalisations and element-wise work are not counted.
`python -m segbench.documentation.cost` writes docs/cost.md with parameters and FLOPs, with `--time` also what is
measured on this machine; `python -m segbench.documentation.models` takes the page into docs/models.md.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import math
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from models.flops import forward_flops
from models.interface import NetworkSpec, SegmentationModel, task_set
from models.loader import build_model
from segbench.core.cards import model_cards, supports
from segbench.core.code import ROOT
from segbench.core.files import write_text
from segbench.core.provenance import commit, versions
from segbench.core.task import Channel, Structure, Task, TaskSet

Triple = tuple[int, int, int]
SCALES = (
    0.25,
    0.375,
    0.5,
    0.75,
    1.0,
    1.25,
    1.5,
)  # edges of the patches that are tried, as a fraction of the spec's patch
SECONDS_LIMIT = 2.0  # for one training step: a processor then measures all networks in minutes
PAGE = ROOT / "docs" / "cost.md"
MEMORY_FRACTION = 0.7  # of what is free on this device; the rest is for the training's other needs
# Parameters of the originals: with 11 tasks, 4 classes and a prompt for a 32x64x64 patch; with 7 tasks; with 32 classes
ORIGINAL_PARAMETERS = {"uniseg": 32_112_885, "dodnet_original": 17_329_528, "clip_driven_original": 19_416_417}
TIMED_HEAD = ["largest patch z,y,x", "forward s", "training step s", "peak memory MiB", "limited by", "device"]
log = logging.getLogger(__name__)


def paper_tasks(card: dict[str, Any] | None = None) -> TaskSet:
    """Return stand-ins for the 11 upstream tasks of UniSeg, or those of them that a model with this card can serve.

    Nine tasks have one channel, one has two (PET and CT), one has four (MR), and all have three foreground classes
    where the card allows so many; sizes of networks depend on nothing else.
    """
    kinds = [("CT",)] * 8 + [("MR",)] + [("CT", "PET")] + [("MR",) * 4]
    classes = ("first", "second", "third")[: card.get("max_classes") if card else None]
    tasks = (_stand_in(f"task_{i:02d}", modalities, classes) for i, modalities in enumerate(kinds))
    return TaskSet(task for task in tasks if card is None or supports(card, task) is None)


def _stand_in(name: str, modalities: Sequence[str], classes: Sequence[str]) -> Task:
    return Task(
        name=name,
        title=name,
        channels=tuple(Channel(f"channel {i}", modality) for i, modality in enumerate(modalities)),
        classes=tuple(classes),
        structures=tuple(Structure(label, (value,), 1.0) for value, label in enumerate(classes, start=1)),
    )


def cost_card(
    name: str,
    tasks: Sequence[Task] | TaskSet,
    spec: NetworkSpec,
    *,
    options: dict[str, Any] | None = None,
    timed: bool = True,
    device: torch.device | str = "cpu",
    seconds_limit: float = SECONDS_LIMIT,
) -> dict[str, Any]:
    """Return the cost of one model, for the first task and batch 1.

    Keys: model, parameters, forward_gflops; with `timed` also device, largest_patch_zyx (None when even the smallest
    patch does not fit), forward_seconds, train_step_seconds, peak_memory_mib (of the training step, beyond what was
    held before), limited_by ('memory', 'time' or 'the largest patch tried'). `seconds_limit` bounds one training step.
    """
    tasks = task_set(tasks)
    if model_cards()[name]["kind"] == "single_task":
        tasks = TaskSet([next(iter(tasks))])
    model = build_model(name, tasks, spec, **(options or {}))
    card = {
        "model": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "forward_gflops": forward_flops(model, spec.patch_size_zyx) / 1e9,
    }
    if not timed:
        return card
    return card | {"device": device_name(device)} | largest_fit(model.to(device), spec, seconds_limit=seconds_limit)


def largest_fit(model: SegmentationModel, spec: NetworkSpec, *, seconds_limit: float) -> dict[str, Any]:
    """Grow the patch until a training step would pass the free memory or the time limit; return the last that fits.

    The next patch is tried only when the last one's memory and time, scaled by the voxels, stay within the limits:
    on a CPU a step that runs out of memory would end the process.
    """
    result: dict[str, Any] = dict.fromkeys(
        ("largest_patch_zyx", "forward_seconds", "train_step_seconds", "peak_memory_mib")
    )
    free_bytes = free_memory_bytes(next(model.parameters()).device) * MEMORY_FRACTION
    limited_by = "the largest patch tried"
    voxels = 0
    for patch_zyx in candidate_patches(spec):
        growth = math.prod(patch_zyx) / voxels if voxels else 0.0
        reason = _too_much(result, growth, free_bytes=free_bytes, seconds_limit=seconds_limit)
        if reason is None:
            try:
                measured = measure(model, patch_zyx)
            except torch.OutOfMemoryError:
                reason = "memory"
        if reason is not None:
            limited_by = reason
            break
        result |= {"largest_patch_zyx": patch_zyx, **measured}
        voxels = math.prod(patch_zyx)
    return result | {"limited_by": limited_by}


def _too_much(result: dict[str, Any], growth: float, *, free_bytes: float, seconds_limit: float) -> str | None:
    """Return what a patch with `growth` times the voxels of the last one would exceed, or None."""
    if (result["peak_memory_mib"] or 0) * 2**20 * growth > free_bytes:
        return "memory"
    if (result["train_step_seconds"] or 0) * growth > seconds_limit:
        return "time"
    return None


def candidate_patches(spec: NetworkSpec) -> list[Triple]:
    """Return patches of growing size, multiples of the spec's down-sampling, around the spec's patch."""
    patches = []
    for scale in SCALES:
        patch = tuple(
            max(2, round(size * scale / step)) * step
            for size, step in zip(spec.patch_size_zyx, spec.downsampling_zyx, strict=True)
        )
        if patch not in patches:
            patches.append(patch)
    return patches


def measure(model: SegmentationModel, patch_zyx: Triple) -> dict[str, float | None]:
    """Time one forward pass and one training step (after one warm-up) and watch the peak memory of the step."""
    task = next(iter(model.tasks))
    device = next(model.parameters()).device
    images_BCZYX = torch.zeros(1, task.num_channels, *patch_zyx, device=device)

    def forward() -> None:
        with torch.no_grad():
            model(images_BCZYX, task)

    def train_step() -> None:
        sum(logits.float().square().mean() for logits in model(images_BCZYX, task)).backward()
        model.zero_grad(set_to_none=True)

    model.train()
    peak_bytes = _peak_bytes(device, train_step)
    return {
        "forward_seconds": _seconds(device, forward),
        "train_step_seconds": _seconds(device, train_step),
        "peak_memory_mib": None if peak_bytes is None else peak_bytes / 2**20,
    }


def _seconds(device: torch.device, action: Callable[[], None]) -> float:
    _wait(device)
    start = time.perf_counter()
    action()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_bytes(device: torch.device, action: Callable[[], None]) -> int | None:
    """Return the memory that `action` needed beyond what was held; None where this system does not tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        return torch.cuda.max_memory_allocated(device) - before
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        action()
        return None
    gc.collect()
    _return_freed_memory()
    reset.write_text("5")  # Linux: start a new high-water mark
    before = _field_bytes(status, "VmRSS")
    action()
    return max(0, _field_bytes(status, "VmHWM") - before)


def _return_freed_memory() -> None:
    """Hand freed memory back to the system (glibc), so that memory used again is counted again."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _field_bytes(path: Path, field: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def free_memory_bytes(device: torch.device) -> float:
    """Return the free memory of a device; unlimited where this system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    information = Path("/proc/meminfo")
    return _field_bytes(information, "MemAvailable") if information.exists() else float("inf")


def device_name(device: torch.device | str) -> str:
    """Return a name of the device for a table: the GPU's, or the processor's with its threads in use."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def networks() -> dict[str, dict[str, Any]]:
    """Return name -> card of every registered network, sorted: all models but controls."""
    return {name: card for name, card in sorted(model_cards().items()) if card["kind"] != "control"}


def cost_rows(spec: NetworkSpec | None = None, *, timed: bool = True) -> list[list[str]]:
    """Return the cost table of every registered network at the paper's size: a head, then one row per model."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = spec or NetworkSpec()
    rows = []
    for name, card in networks().items():
        began = time.perf_counter()
        found = cost_card(name, paper_tasks(card), spec, timed=timed, device=device)
        rows.append(_row(found, timed=timed))
        log.info("%s: %.0f s", name, time.perf_counter() - began)
    patch = "x".join(map(str, spec.patch_size_zyx))
    head = ["model", "parameters", "of the original", f"GFLOPs at {patch}"]
    return [head + (TIMED_HEAD if timed else []), *rows]


def _row(card: dict[str, Any], *, timed: bool) -> list[str]:
    original = ORIGINAL_PARAMETERS.get(card["model"])
    counted = [
        card["model"],
        f"{card['parameters']:,}",
        f"{original:,}" if original else "",
        f"{card['forward_gflops']:,.1f}",
    ]
    if not timed:
        return counted
    patch = card["largest_patch_zyx"]
    return [
        *counted,
        "none fits" if patch is None else "x".join(map(str, patch)),
        _number(card["forward_seconds"], ".3f"),
        _number(card["train_step_seconds"], ".3f"),
        _number(card["peak_memory_mib"], ",.0f"),
        card["limited_by"],
        card["device"],
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def cost_page(rows: Sequence[Sequence[str]], *, made_by: str) -> str:
    """Return docs/cost.md, which holds the cost table.

    Args:
        rows: the head and one row per model, as `cost_rows` returns them.
        made_by: commit and versions.
    """
    timed = (
        " Time and memory are those of batch 1 at the largest patch whose training step stays within "
        f"{SECONDS_LIMIT:g} s and {MEMORY_FRACTION:.0%} of the free memory of the device."
        if TIMED_HEAD[0] in rows[0]
        else " Time and memory depend on the machine: `python -m segbench list models --cost` measures them, and "
        "`python -m segbench forecast` measures the jobs of a config."
    )
    lines = [
        "## Cost",
        "",
        f"Written by `python -m segbench.documentation.cost` at {made_by}. Parameters and FLOPs (two per multiply-add, "
        "forward, first task) are those of the paper's size: base 32, 11 tasks or those of them that a network can "
        "serve, one task for a per-task network. Parameters of the originals are those of the networks in the table of "
        f"agreement: 11 tasks and a prompt for a 32x64x64 patch, 7 tasks, 32 classes.{timed}",
        "",
        _line(rows[0]),
        "|---" * len(rows[0]) + "|",
        *(_line([f"`{row[0]}`", *row[1:]]) for row in rows[1:]),
    ]
    return "\n".join(lines) + "\n"


def made_by() -> str:
    """Return commit and versions that shape a cost table, in words."""
    head, _, changed = commit().partition("+")
    found = versions()
    listed = ", ".join(f"{name} {found[name]}" for name in ("python", "torch", "monai"))
    return f"commit {head[:12]}{' with changes' if changed else ''}, {listed}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write docs/cost.md."""
    parser = argparse.ArgumentParser(description="Write docs/cost.md.")
    parser.add_argument("--time", action="store_true", help="measure time and memory on this machine too")
    timed = parser.parse_args(arguments).time
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_text(PAGE, cost_page(cost_rows(timed=timed), made_by=made_by()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
