"""Time our scorer beside MedPy on the same arrays in one process.

    python -m benchmarks.score

Prints seconds, the ratio to MedPy, the largest difference, peak memory beside MedPy's and the crop's, and how a folder
of cases scales from one worker to two.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
from medpy.metric import binary
from scipy import ndimage

from segbench.core.task import Structure
from segbench.evaluation.label_maps import Pair
from segbench.evaluation.score_files import Request, score_all
from segbench.metrics import METRICS, score_pair

SHAPE = (128, 320, 320)
SPACING = (3.0, 0.8, 0.8)
REPEATS = 3
ONE = Structure("s1", (1,), 2.0)


def ellipsoid(centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """Return a mask of the benchmark's shape."""
    grids = np.ogrid[tuple(slice(0, size) for size in SHAPE)]
    return sum(((grid - c) / r) ** 2 for grid, c, r in zip(grids, centre, radii, strict=True)) < 1


def one_structure() -> tuple[np.ndarray, np.ndarray]:
    """Return a pair with one structure of about a million voxels and a rough border."""
    rng = np.random.default_rng(0)
    rough = ndimage.zoom(rng.normal(size=(16, 40, 40)), 8, order=1)[: SHAPE[0]]
    reference = ellipsoid((64, 160, 160), (40, 78, 78))
    prediction = ellipsoid((65, 162, 158), (39, 80, 77)) & (rough > -1.2)
    return reference.astype(np.uint8), prediction.astype(np.uint8)


def thirteen_structures() -> tuple[np.ndarray, np.ndarray]:
    """Return an abdominal pair: 13 organs of very different size, each a little displaced."""
    rng = np.random.default_rng(1)
    reference, prediction = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    for value in range(1, 14):
        centre = rng.uniform((25, 60, 60), (103, 260, 260))
        radii = rng.uniform(0.3, 1.0) * np.array((16.0, 40.0, 40.0))
        reference[ellipsoid(tuple(centre), tuple(radii))] = value
        prediction[ellipsoid(tuple(centre + rng.uniform(-1, 1, 3)), tuple(radii * 1.03))] = value
    return reference, prediction


def best(function) -> tuple[float, object]:
    """Return the shortest of a few runs and the last result."""
    seconds, result = [], None
    for _ in range(REPEATS):
        began = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - began)
    return min(seconds), result


def medpy_hd95(reference: np.ndarray, prediction: np.ndarray, values: list[int]) -> list[float]:
    """Return MedPy's HD95 of every structure."""
    return [float(binary.hd95(prediction == value, reference == value, SPACING)) for value in values]


def row(title: str, reference: np.ndarray, prediction: np.ndarray) -> None:
    """Time one pair and print its lines."""
    values = [int(value) for value in np.unique(reference) if value]
    structures = [Structure(f"s{value}", (value,), 2.0) for value in values]
    began = time.perf_counter()
    theirs = medpy_hd95(reference, prediction, values)
    medpy_seconds = time.perf_counter() - began
    print(f"{title}: MedPy hd95 {medpy_seconds:.2f} s")
    for name, metrics in (("hd95", ["hd95"]), ("all metrics", list(METRICS))):
        for threads in (1, 2):
            seconds, found = best(
                lambda metrics=metrics, threads=threads: score_pair(
                    reference, prediction, SPACING, structures, metrics=metrics, threads=threads
                )
            )
            ours = [item.value for item in found if item.metric == "hd95"]
            worst = max(abs(a - b) / max(b, 1e-9) for a, b in zip(ours, theirs, strict=True))
            print(
                f"  segbench {name:<12} {threads} thread(s): {seconds:.3f} s, {medpy_seconds / seconds:.0f} times "
                f"faster; largest relative difference of HD95 {worst:.1e}"
            )


def memory() -> None:
    """Print the peak of each in a fresh process, and its ratio to the crop of both label maps at 8 bits a voxel."""
    lesion = dataclasses.replace(ONE, lesion=True)
    reference, prediction = one_structure()
    box = ndimage.find_objects(((reference + prediction) > 0).astype(np.uint8))[0]
    crop = 2 * math.prod(part.stop - part.start for part in box)
    print(f"peak memory of the one structure; the crop of both label maps, 8 bits a voxel, is {crop / 1e6:.1f} MB")
    for title, work in {
        "segbench hd95": (score_pair, {"structures": [ONE], "metrics": ["hd95"]}),
        "segbench all metrics": (score_pair, {"structures": [ONE]}),
        "segbench all metrics, 2 threads": (score_pair, {"structures": [ONE], "threads": 2}),
        "segbench all metrics, as a lesion": (score_pair, {"structures": [lesion]}),
        "MedPy hd95": (medpy_hd95, {"values": [1]}),
    }.items():
        given_back, kept = (in_fresh_process(*work, arena=arena) for arena in (False, True))
        print(
            f"  {title:<34} {given_back / 1e6:6.1f} MB, {given_back / crop:.1f} times the crop; "
            f"{kept / 1e6:.1f} MB with glibc's own habit of keeping freed arrays"
        )


def in_fresh_process(function: Callable, settings: dict, *, arena: bool) -> int:
    """Return the most bytes that a call added to a fresh process, C++ allocations included (Linux).

    glibc keeps freed arrays for later ones once it has seen a large one; without `arena` it gives them back, so that
    the value is what was needed at one time.
    """
    os.environ.pop("MALLOC_MMAP_THRESHOLD_", None)
    if not arena:
        os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(resident_peak, function, settings).result()


def resident_peak(function: Callable, settings: dict) -> int:
    """Return how far the resident memory rises above where it stands before a call that is not the first."""
    reference, prediction = one_structure()
    spacing = {"spacing_mm_xyz": SPACING} if function is score_pair else {}
    function(reference[60:64], prediction[60:64], **spacing, **settings)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    function(reference, prediction, **spacing, **settings)
    return resident("VmHWM") - before


def resident(name: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def folder(cases: int) -> None:
    """Time a folder of cases with one and two worker processes, reading included."""
    reference, prediction = thirteen_structures()
    structures = tuple(Structure(f"s{value}", (value,), 2.0) for value in range(1, 14))
    request = Request(structures, frozenset(range(14)), ("dice", "hd95", "nsd"))
    with tempfile.TemporaryDirectory() as root:
        jobs = []
        for number in range(cases):
            paths = [Path(root) / f"{number}{side}.nii.gz" for side in "rp"]
            for path, labels in zip(paths, (reference, prediction), strict=True):
                nib.save(nib.Nifti1Image(labels, np.diag((*SPACING, 1.0))), path)
            jobs.append(Pair(str(number), *paths, patient=str(number)))
        seconds = {
            workers: best(lambda workers=workers: score_all(jobs, request, workers=workers))[0] for workers in (1, 2)
        }
    print(
        f"folder of {cases} cases: 1 worker {seconds[1]:.2f} s, 2 workers {seconds[2]:.2f} s, "
        f"{seconds[1] / seconds[2]:.2f} times"
    )


def main() -> None:
    """Run both pairs, the memory and the folder."""
    row("one structure, 128x320x320", *one_structure())
    row("13 structures, 128x320x320", *thirteen_structures())
    memory()
    folder(24)


if __name__ == "__main__":
    main()
