"""Time random patch reads beside nnU-Net v2.

    NNUNET_PYTHON=... python -m benchmarks.patches

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
SIDES = (  # name, script of the peer, when it opens the case
    ("segbench", "", "once"),
    ("nnU-Net v2, as its loader reads", "nnunet_patches.py", "for every patch"),
    ("nnU-Net v2, opened once", "nnunet_patches.py", "once"),
)
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
        total += sum(float(array.flat[0]) for array in read_patch(case, start, patch))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    growth = [after - earlier for after, earlier in zip(memory_mib(), before, strict=True)]
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "growth_mib": growth, "sum": total}


def compare(folder: Path, patch: tuple[int, int, int], count: int, *, repeats: int) -> list[list]:
    """Store and read on all sides; return one row per side."""
    rng = np.random.default_rng(1)
    starts = [
        [int(rng.integers(size - part + 1)) for size, part in zip(SHAPE, patch, strict=True)] for _ in range(count)
    ]
    job = {
        "volume": str(folder / "volume.npy"),
        "labels": str(folder / "labels.npy"),
        "patch_size_zyx": patch,
        "starts": starts,
    }
    found: dict[str, dict] = {}
    for side, script, opened in SIDES:
        store, path = folder / f"{script}-{patch[0]}", folder / "job.json"
        command = peer(script, path) if script else ours(MODULE, path)
        results = []
        for step in ([] if store.exists() else ["store"]) + ["read"] * repeats:
            store.mkdir(exist_ok=True)
            path.write_text(json.dumps(job | {"store": str(store), "step": step, "open": opened}), encoding="utf-8")
            results.append(run_side(command, cores=1))
        found[side] = min(results[-repeats:], key=lambda item: item["cpu_seconds"])
        found[side]["seconds"] = min(item["seconds"] for item in results[-repeats:])
        found[side]["megabytes"] = sum(item.stat().st_size for item in store.rglob("*") if item.is_file()) / 1e6
    sums = [item["sum"] for item in found.values()]
    assert np.allclose(sums, sums[0]), f"the sides read different voxels: {sums}"
    mine = found[SIDES[0][0]]
    return [
        [
            "x".join(map(str, patch)),
            count,
            side,
            1e3 * item["seconds"] / count,
            item["seconds"] / mine["seconds"],
            1e3 * item["cpu_seconds"] / count,
            item["cpu_seconds"] / mine["cpu_seconds"],
            *item["growth_mib"],
            item["megabytes"],
        ]
        for side, item in found.items()
    ]


HEAD = [
    "patch z,y,x",
    "reads",
    "side",
    "ms",
    "/ ours",
    "CPU ms",
    "/ ours",
    "growth MiB",
    "not file-backed MiB",
    "store MB",
]


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
