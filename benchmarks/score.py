"""Time our scorer beside MedPy on the same arrays in one process: python -m benchmarks.score

Prints seconds, the ratio to MedPy, the largest difference, peak memory beside MedPy's and the crop's, and how a folder
of cases scales from one worker to two.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
from medpy.metric import binary
from scipy import ndimage

from segbench.core.task import Structure
from segbench.evaluation.external import Request, score_all
from segbench.metrics import METRICS, score_pair

SHAPE = (128, 320, 320)
SPACING = (3.0, 0.8, 0.8)
REPEATS = 3


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
    ours, both = peak_bytes(lambda: score_pair(reference, prediction, SPACING, structures)), reference + prediction > 0
    theirs = peak_bytes(lambda: medpy_hd95(reference, prediction, values[:1]))
    crop = np.prod([part.stop - part.start for part in ndimage.find_objects(both.astype(np.uint8))[0]])
    print(
        f"  peak memory of arrays: all metrics {ours / 1e6:.0f} MB, MedPy hd95 of one structure {theirs / 1e6:.0f} MB;"
        f" the crop of both label maps, 8 bits a voxel, is {2 * crop / 1e6:.0f} MB"
    )


def peak_bytes(function) -> int:
    """Return the most that Python and numpy had allocated at once during a call."""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


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
            jobs.append((str(number), *paths))
        seconds = {workers: best(lambda workers=workers: score_all(jobs, request, workers=workers))[0]
                   for workers in (1, 2)}  # fmt: skip
    print(f"folder of {cases} cases: 1 worker {seconds[1]:.2f} s, 2 workers {seconds[2]:.2f} s, "
          f"{seconds[1] / seconds[2]:.2f} times")  # fmt: skip


def main() -> None:
    """Run both pairs."""
    row("one structure, 128x320x320", *one_structure())
    row("13 structures, 128x320x320", *thirteen_structures())
    folder(24)


if __name__ == "__main__":
    main()
