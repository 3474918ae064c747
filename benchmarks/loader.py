"""Batches of segbench beside those of nnU-Net v2's own data loader, from the same preprocessed cases.

    NNUNET_PYTHON=... python -m benchmarks.loader --data FOLDER_OF_DATA_SETS

Cases of one data set are preprocessed here and handed to both sides, each a process of its own with one thread. Shown
are the fraction of forced samples, how often each step of augmentation is drawn, the distributions of what is drawn
and of the intensities, the fraction of voxels that lie outside the image, and patches per second of processor time.
One line `result: NAME VALUE TARGET ok|short` each; exits with status 1 when one is short.

For the fraction of invented voxels the same cases get a label of at least 1 everywhere, so that 0 marks what a loader
adds. Distributions are compared by Kolmogorov-Smirnov tests; that of intensities by its distance, as the voxels of a
patch are no independent draws.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from scipy import stats

from benchmarks.sides import ours, peer, run_side
from segbench.core import cards
from segbench.data.ingest import discover, manifest_row
from segbench.data.preprocess import preprocess_folds
from segbench.data.preprocessing_recipes import preprocessing_recipe
from segbench.data.sampling import PatchSampler, is_forced
from segbench.data.store import open_case, write_case
from segbench.data.transforms import PROBABILITY, Augmentation

MODULE, SCRIPT = "benchmarks.loader", "nnunet_loader.py"
SPREAD = 4.5  # standard deviations that a fraction may differ
LEAST_P = 1e-4  # of a Kolmogorov-Smirnov test
LARGEST_DISTANCE = 0.05  # of the distributions of intensities
SPEED = 1.2
VALUES_PER_BATCH = 100
STEPS = ("noise", "brightness", "contrast", "inverted_gamma", "gamma")
"""Steps of a single-channel case that have one value whenever they are drawn."""


def sampler(job: dict) -> PatchSampler:
    """Return our loader of the cases of a folder."""
    patch = tuple(job["patch_size_zyx"])
    task = cards.task_from_card(job["task"], cards.dataset_cards()[job["task"]])
    cases = [open_case(folder) for folder in sorted(Path(job["store"]).iterdir())]
    return PatchSampler(cases, task, patch_size_zyx=patch, augmentation=Augmentation(patch, level="full"))


def run(job: dict) -> dict:
    """Our side: draw batches in a process of its own."""
    torch.set_num_threads(1)
    drawn, rng = sampler(job), np.random.default_rng(job["seed"])
    if job["step"] == "time":
        for _ in range(job["warm_up"]):
            drawn.sample(rng, job["batch_size"])
        began = time.process_time()
        for _ in range(job["batches"]):
            drawn.sample(rng, job["batch_size"])
        return {"cpu_seconds": time.process_time() - began}
    names = ("affine", "blur", "low_resolution", *STEPS)
    seen: dict[str, list] = {name: [] for name in names} | {"forced": []}
    start = drawn._start

    def watched(case, rng, *, forced):
        seen["forced"].append(forced)
        return start(case, rng, forced=forced)

    drawn._start = watched
    chosen, outside, values = np.random.default_rng(0), [], []
    for _ in range(job["batches"]):
        batch = drawn.sample(rng, job["batch_size"])
        for item in batch.drawn:
            seen["affine"].append(None if item.affine is None else item.affine.tolist())
            seen["noise"] += [item.noise[0]] if item.noise else []
            seen["blur"] += [value for channel in item.blur if channel for value in channel]
            seen["low_resolution"] += [value for value in item.low_resolution if value is not None]
            for name in STEPS[1:]:
                seen[name] += getattr(item, name)
        outside.append(float((batch.labels == 0).float().mean()))
        flat = batch.images.flatten().numpy()
        values.append(flat[chosen.integers(len(flat), size=job["values"])])
    np.save(job["out"], np.concatenate(values))
    return seen | {"outside": float(np.mean(outside))}


def hand_over(options: argparse.Namespace, folder: Path) -> dict:
    """Preprocess the cases once, hand them to both sides, and return the keys that their jobs share."""
    card = cards.dataset_cards()[options.task]
    task = cards.task_from_card(options.task, card)
    found = discover(options.task, card, options.data)[: options.cases]
    cases = [manifest_row(task.name, files) for files in found]
    recipe, names = preprocessing_recipe(task, {}), [case.case_id for case in cases]
    index = preprocess_folds(cases, task, card, recipe, sides={0: names}, store_root=folder / "made")
    for kind, more in (("plain", 0), ("marked", 1)):
        (folder / "arrays" / kind).mkdir(parents=True)
        for name in names:
            case = open_case(index.folder(name))
            images, labels = case.images[:], case.labels[:] + np.uint8(more)
            np.savez(folder / "arrays" / kind / f"{name}.npz", images=images, labels=labels)
            write_case(folder / "ours" / kind / name, images, labels, {"case_id": name})
    shared = {"task": task.name, "classes": len(task.classes), "patch_size_zyx": options.patch, "batch_size": 2}
    for kind in ("plain", "marked"):
        (folder / "theirs" / kind).mkdir(parents=True)
        arrays, store = str(folder / "arrays" / kind), str(folder / "theirs" / kind)
        ask(folder, SCRIPT, shared | {"step": "store", "arrays": arrays, "store": store})
    return shared | {"values": VALUES_PER_BATCH, "warm_up": 5}


def ask(folder: Path, script: str, job: dict) -> dict:
    """Run one job of a side; script: the peer's, or empty for ours."""
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    return run_side(peer(script, path) if script else ours(MODULE, path), cores=1)


def spatial(affines: list) -> tuple[list[float], list[float]]:
    """Return angles (degrees) of the rotations, and factors of the scalings, of those samples that have one."""
    angles, scales = [], []
    for affine in affines:
        if affine is None:
            continue
        matrix = np.asarray(affine)
        factors = np.linalg.norm(matrix, axis=0)
        angle = np.degrees(np.arccos(np.clip((np.trace(matrix / factors) - 1) / 2, -1, 1)))
        angles += [float(angle)] if angle > 1e-3 else []
        scales += [float(factors[-1])] if abs(factors[-1] - 1) > 1e-6 else []
    return angles, scales


def compared(found: dict[str, dict], batches: int) -> Iterator[tuple[str, float, str, bool]]:
    """Yield name, value, target and whether it is reached, for all that was drawn."""
    one, other = found["ours"], found["theirs"]
    expected = [is_forced(number % 2, 2, 0.33) for number in range(2 * batches)]
    forced = [float(np.mean(item["forced"])) for item in (one, other)]
    yield "forced_fraction", forced[0], f"{forced[1]:g}", one["forced"] == other["forced"] == expected
    for item in (one, other):
        item["rotation"], item["scaling"] = spatial(item["affine"])
    for name in ("rotation", "scaling", *STEPS):
        probability = PROBABILITY[name.replace("_", " ")]
        fractions = [len(item[name]) / (2 * batches) for item in (one, other)]
        allowed = SPREAD * np.sqrt(2 * probability * (1 - probability) / (2 * batches))
        target = f"{fractions[1]:.3f}+-{allowed:.3f}"
        yield f"{name}_fraction", fractions[0], target, abs(fractions[0] - fractions[1]) <= allowed
    for name in ("rotation", "scaling", "blur", "low_resolution", *STEPS):
        p = float(stats.ks_2samp(one[name], other[name]).pvalue)
        yield f"{name}_ks_p", p, f">={LEAST_P:g}", p >= LEAST_P


def results(folder: Path, shared: dict, options: argparse.Namespace) -> Iterator[tuple[str, float, str, bool]]:
    """Yield every result of the comparison."""
    sides = {"ours": "", "theirs": SCRIPT}
    watch = shared | {"step": "watch", "batches": options.batches, "seed": 1}
    plain, outside, values = {}, {}, {}
    for side, script in sides.items():
        out = {kind: str(folder / f"{side}-{kind}.npy") for kind in ("plain", "marked")}
        plain[side] = ask(folder, script, watch | {"store": str(folder / side / "plain"), "out": out["plain"]})
        marked = watch | {"store": str(folder / side / "marked"), "out": out["marked"]}
        outside[side] = ask(folder, script, marked)["outside"]
        values[side] = np.load(out["plain"])
    yield from compared(plain, options.batches)
    yield (
        "invented_voxels",
        outside["ours"],
        f"<={outside['theirs']:.4f}",
        outside["ours"] <= outside["theirs"] * 1.05 + 0.001,
    )
    distance = float(stats.ks_2samp(values["ours"], values["theirs"]).statistic)
    yield "intensities_ks_distance", distance, f"<={LARGEST_DISTANCE:g}", distance <= LARGEST_DISTANCE
    spent: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(options.repeats):
        for side, script in sides.items():
            job = shared | {"step": "time", "batches": options.batches, "seed": number}
            spent[side].append(ask(folder, script, job | {"store": str(folder / side / "plain")})["cpu_seconds"])
    for side in sides:
        print(f"{side}: {2 * options.batches / median(spent[side]):.1f} patches per second of processor time")
    ratio = median(spent["theirs"]) / median(spent["ours"])
    yield "speed_ratio", ratio, f">={SPEED:g}", ratio >= SPEED


def main() -> int:
    """Compare, or be our side of the comparison when `--job` names one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, default=os.environ.get("SEGBENCH_DATA"), help="folder with the data sets")
    parser.add_argument("--task", default="openkbp_head_neck_ct", help="card of a data set with one channel")
    parser.add_argument("--cases", type=int, default=4, help="cases that both sides draw from")
    parser.add_argument("--patch", type=int, nargs=3, default=[32, 40, 40], metavar=("Z", "Y", "X"))
    parser.add_argument("--batches", type=int, default=1000, help="batches of two patches that are drawn")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each timing")
    options = parser.parse_args()
    if options.job:
        print(json.dumps(run(json.loads(options.job.read_text(encoding="utf-8")))))
        return 0
    if options.data is None:
        sys.exit("name the folder of the data sets: --data, or the environment variable SEGBENCH_DATA")
    reached = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, value, target, is_ok in results(folder, hand_over(options, folder), options):
            print(f"result: {title} {value:.4g} {target} {'ok' if is_ok else 'short'}", flush=True)
            reached &= is_ok
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
