"""Time random patch reads beside nnU-Net v2: NNUNET_PYTHON=... python -m benchmarks.patches

One 300x512x512 volume (z,y,x; a generated CT with noise, 0..1, float32) and its label map, stored by each side in its
own way; then the same random patches, image and label, read in a fresh process. Prints milliseconds per patch, their
ratio, the growth of resident memory over all reads (mapped files included) and of the part that is not file-backed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage
from tabulate import tabulate

from benchmarks.peers.process import memory_mib
from benchmarks.sides import ours, peer, run_side
from segbench.data.sampling import read_patch
from segbench.data.store import open_case, write_case

MODULE = "benchmarks.patches"
SHAPE = (300, 512, 512)
PATCHES = {(64, 192, 192): 300, (32, 32, 32): 600}


def generated() -> tuple[np.ndarray, np.ndarray]:
    """Return volume_ZYX (float32, 0..1) and labels_ZYX (uint8): smooth shapes, and noise as after resampling."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 300, [round(size / 32) + 1 for size in SHAPE]).astype(np.float32)
    smooth = ndimage.zoom(coarse, 32, order=1)[tuple(slice(0, size) for size in SHAPE)]
    noise = ndimage.uniform_filter(rng.normal(0, 40, SHAPE).astype(np.float32), 2)
    return np.clip((smooth + noise + 325) / 650, 0, 1), np.digitize(smooth, (200, 400)).astype(np.uint8)


def run(job: dict) -> dict:
    """Our side: store the volume, or read all patches in a process that has never held it."""
    folder = Path(job["store"]) / "case"
    if job["step"] == "store":
        write_case(folder, np.load(job["volume"])[None], np.load(job["labels"]), {"case_id": "case"})
        return {}
    case, patch = open_case(folder), tuple(job["patch_size_zyx"])
    read_patch(case, job["starts"][0], patch)
    before = memory_mib()
    began, cpu = time.perf_counter(), time.process_time()
    total = 0.0
    for start in job["starts"]:
        images_CZYX, labels_ZYX = read_patch(case, start, patch)
        total += float(images_CZYX[0, 0, 0, 0]) + float(labels_ZYX[0, 0, 0])
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    growth = [after - earlier for after, earlier in zip(memory_mib(), before, strict=True)]
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "growth_mib": growth, "sum": total}


def compare(folder: Path, patch: tuple[int, int, int], count: int, *, repeats: int) -> list[list]:
    """Store and read on both sides; return one row per side."""
    rng = np.random.default_rng(1)
    starts = [[int(rng.integers(size - part + 1)) for size, part in zip(SHAPE, patch, strict=True)]
              for _ in range(count)]  # fmt: skip
    job = {"volume": str(folder / "volume.npy"), "labels": str(folder / "labels.npy"), "patch_size_zyx": patch,
           "starts": starts}  # fmt: skip
    found: dict[str, dict] = {}
    for side in ("segbench", "nnU-Net v2"):
        store, path = folder / f"{side}-{patch[0]}", folder / "job.json"
        store.mkdir()
        command = ours(MODULE, path) if side == "segbench" else peer("nnunet_patches.py", path)
        results = []
        for step in ("store", *["read"] * repeats):
            path.write_text(json.dumps(job | {"store": str(store), "step": step}), encoding="utf-8")
            results.append(run_side(command, cores=1))
        found[side] = min(results[1:], key=lambda item: item["seconds"])
        found[side]["cpu_seconds"] = min(item["cpu_seconds"] for item in results[1:])
        found[side]["megabytes"] = sum(item.stat().st_size for item in store.rglob("*") if item.is_file()) / 1e6
    sums = [item["sum"] for item in found.values()]
    assert np.isclose(*sums), f"the two sides read different voxels: {sums}"
    base = found["nnU-Net v2"]
    return [
        ["x".join(map(str, patch)), count, side, 1e3 * item["seconds"] / count, base["seconds"] / item["seconds"],
         1e3 * item["cpu_seconds"] / count, base["cpu_seconds"] / item["cpu_seconds"], *item["growth_mib"],
         item["megabytes"]]
        for side, item in found.items()
    ]  # fmt: skip


HEAD = ["patch z,y,x", "reads", "side", "ms", "times as fast", "CPU ms", "times as fast", "growth MiB",
        "not file-backed MiB", "store MB"]  # fmt: skip


def main() -> None:
    """Compare all patch sizes, or run our side of one job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="read passes of each side; the shortest counts")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(run(json.loads(args.job.read_text(encoding="utf-8")))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stem, array in zip(("volume", "labels"), generated(), strict=True):
            np.save(folder / f"{stem}.npy", array)
        rows = [row for patch, count in PATCHES.items() for row in compare(folder, patch, count, repeats=args.repeats)]
    print(tabulate(rows, HEAD, tablefmt="pipe", floatfmt=".2f"))


if __name__ == "__main__":
    main()
