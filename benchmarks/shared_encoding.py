"""What it costs to predict K tasks on one image when they share one encoding, against K full passes.

Run `python -m benchmarks.shared_encoding`. FLOPs are counted on shapes alone at the paper's size; times are the least
of several repetitions at a size that fits a processor: its own time, which other load does not lengthen, or wall time
on a GPU. `uniseg` shares the encoder, models with generated heads share the decoder too.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.interface import NetworkSpec, SegmentationModel
from models.loader import build_model, model_card
from segbench.core.task import Channel, Structure, Task, TaskSet
from segbench.documentation.cost import device_name

# name -> the largest accepted cost: 'full' in fractions of K full passes, 'single' in single full passes
LIMITS = {
    "uniseg": ("full", 0.76),
    "multi_head": ("single", 1.3),
    "dodnet": ("single", 1.3),
    "dodnet_original": ("single", 1.3),
    "clip_driven": ("single", 1.3),
    "clip_driven_original": ("single", 1.3),
}


def tasks_of(count: int) -> TaskSet:
    """Return so many tasks with one channel, an organ and its tumour each."""
    structures = (Structure("organ", (1,), 1.0), Structure("tumour", (2,), 1.0, lesion=True))
    return TaskSet(
        Task(f"task_{number}", f"task {number}", (Channel("CT", "CT"),), (f"organ {number}", "tumour"), structures)
        for number in range(count)
    )


def full_passes(model: SegmentationModel, images_BCZYX: torch.Tensor) -> None:
    """Predict every task from the image."""
    for task in model.tasks:
        model(images_BCZYX, task)


def shared_pass(model: SegmentationModel, images_BCZYX: torch.Tensor) -> None:
    """Predict every task from one encoding."""
    features = model.encode(images_BCZYX)
    for task in model.tasks:
        model.decode(features, task)


def flops(model: SegmentationModel, patch_zyx: tuple[int, int, int], action: Callable) -> int:
    """Return the FLOPs of an action on one patch, counted on shapes alone."""
    shadow = copy.deepcopy(model).to("meta")
    with FlopCounterMode(display=False) as counter:
        action(shadow, torch.empty(1, 1, *patch_zyx, device="meta"))
    return counter.get_total_flops()


def seconds(model: SegmentationModel, images_BCZYX: torch.Tensor, actions: list[Callable], repeats: int) -> list[float]:
    """Return the least time of each action; the actions take turns, so that other load hits them alike."""
    least = [float("inf")] * len(actions)
    for _ in range(repeats + 1):  # the first round warms up and is rarely the least
        for number, action in enumerate(actions):
            began = _now(images_BCZYX.device)
            action(model, images_BCZYX)
            least[number] = min(least[number], _now(images_BCZYX.device) - began)
    return least


def _now(device: torch.device) -> float:
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.inference_mode()
def main() -> int:
    """Print one line per model; return 1 when a cost is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=7)
    parser.add_argument("--patch", type=int, nargs=3, default=(32, 64, 64), metavar=("Z", "Y", "X"))
    parser.add_argument("--base", type=int, default=16, help="width of the first stage for the times")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(LIMITS), choices=list(LIMITS))
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    paper, tasks, failed = NetworkSpec(), tasks_of(args.tasks), []
    patch, paper_patch = ("x".join(map(str, size)) for size in (args.patch, paper.patch_size_zyx))
    print(f"K = {args.tasks} tasks; FLOPs at {paper_patch} and base 32, time at {patch} and base {args.base}")
    print(f"on {device_name(device)}, least of {args.repeats + 1}")
    for name in args.models:
        model = build_model(name, tasks, paper).eval()
        counted = [flops(model, paper.patch_size_zyx, action) for action in (shared_pass, full_passes)]
        small = dataclasses.replace(paper, patch_size_zyx=tuple(args.patch), base_features=args.base)
        model = build_model(name, tasks, small).eval().to(device)
        images_BCZYX = torch.randn(1, 1, *args.patch, generator=torch.Generator().manual_seed(0)).to(device)
        timed = seconds(model, images_BCZYX, [shared_pass, full_passes], args.repeats)
        against, limit = LIMITS[name]
        scale = 1 if against == "full" else args.tasks
        fractions = [shared / full * scale for shared, full in (counted, timed)]
        base = f"{args.tasks} full passes" if against == "full" else "a single full pass"
        print(
            f"{model_card(name)['title']}: {fractions[0]:.3f} of {base} in FLOPs, {fractions[1]:.3f} in time "
            f"({timed[0]:.2f} s shared, {timed[1]:.2f} s apart); limit {limit}",
            flush=True,
        )
        if max(fractions) > limit:
            failed.append(name)
    if failed:
        print(f"above the limit: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
