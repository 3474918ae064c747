"""Measure the image fingerprints of the leak audit.

    python -m benchmarks.audit --data DIR [--per-task 30]

DIR holds data sets with a card. Prints seconds per volume beside hashing the file, the nearest pairs of different
patients (what a false positive would look like), how often each change of an image is still recognised, and the time
to match growing numbers of fingerprints. The comparison: a 64-bit average hash of the middle slice (`imagehash`), when
that library is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from segbench.core import cards
from segbench.core.case import CaseFiles
from segbench.data.audit.fingerprint import (
    CELLS,
    LANDMARKS,
    SAME_LANDMARKS,
    SAME_THUMBNAIL,
    Fingerprint,
    correlation,
    descriptors,
    fingerprint,
    fingerprints_of,
    same_images,
    shared_landmarks,
)
from segbench.data.ingest import discover

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
NEAREST = 40


def crop(volume_XYZ: np.ndarray, fraction: float) -> np.ndarray:
    """Return the inner fraction of every axis."""
    cut = [round(size * (1 - fraction) / 2) for size in volume_XYZ.shape]
    return volume_XYZ[tuple(slice(edge, size - edge) for edge, size in zip(cut, volume_XYZ.shape, strict=True))]


def turned(volume_XYZ: np.ndarray) -> np.ndarray:
    """Return the volume with two axes flipped and all axes in another order."""
    return volume_XYZ[::-1, :, ::-1].transpose(2, 0, 1)


def resampled(volume_XYZ: np.ndarray, factor: float) -> np.ndarray:
    """Return the volume on a grid of `factor` times as many voxels along each axis, linearly interpolated."""
    return ndimage.zoom(volume_XYZ.astype(np.float32), factor, order=1, grid_mode=True, mode="nearest")


def windowed(volume_XYZ: np.ndarray) -> np.ndarray:
    """Return the volume clipped to its inner 96 % of values and scaled to 0..255 in whole numbers."""
    low, high = np.percentile(volume_XYZ, (2, 98))
    return np.round((np.clip(volume_XYZ, low, high) - low) * (255 / max(high - low, 1e-6)))


def noisy(volume_XYZ: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the volume with Gaussian noise of 2 % of its standard deviation."""
    return volume_XYZ + rng.normal(0, 0.02 * volume_XYZ.std(), volume_XYZ.shape)


CHANGES: dict[str, Change] = {
    "axes flipped and permuted": lambda v, rng: turned(v),
    "intensities scaled and shifted": lambda v, rng: 0.37 * v + 1024,
    "padded with a constant": lambda v, rng: np.pad(v, 9, constant_values=v.min()),
    "cropped to 80 % per axis": lambda v, rng: crop(v, 0.8),
    "cropped to 60 % per axis": lambda v, rng: crop(v, 0.6),
    "resampled to 75 % of the voxels per axis": lambda v, rng: resampled(v, 0.75),
    "clipped to 2-98 %, stored in 8 bits": lambda v, rng: windowed(v),
    "2 % noise": noisy,
    "turned, scaled, cropped to 80 %": lambda v, rng: crop(turned(2.5 * v - 7), 0.8),
    "turned, scaled, resampled to 75 %": lambda v, rng: resampled(turned(2.5 * v - 7), 0.75),
    "cropped to 80 % and resampled to 75 %": lambda v, rng: resampled(crop(v, 0.8), 0.75),
}


def recognised(first: Fingerprint, second: Fingerprint) -> bool:
    """Tell whether the audit would take two fingerprints for the same image."""
    return bool(same_images([first, second]))


def sampled(root: Path, per_task: int) -> list[tuple[str, CaseFiles]]:
    """Return up to `per_task` evenly spaced cases of every data set below `root`."""
    found = []
    for name, card in cards.dataset_cards().items():
        if (root / card["folder"]).is_dir():
            cases = discover(name, card, root)
            step = max(1, len(cases) // per_task)
            found += [(name, case) for case in cases[::step][:per_task]]
    return found


def time_reading(cases: list[tuple[str, CaseFiles]]) -> list[tuple[str, CaseFiles, int, Fingerprint]]:
    """Fingerprint every case; print seconds and megabytes beside hashing the same files."""
    found, seconds, hashing, voxels, size = [], 0.0, 0.0, 0, 0
    for task, case in cases:
        began = time.perf_counter()
        prints = fingerprints_of(case.image_paths)
        seconds += time.perf_counter() - began
        began = time.perf_counter()
        for path in case.image_paths:
            content = path.read_bytes()
            hashlib.sha256(content).hexdigest()
            size += len(content)
        hashing += time.perf_counter() - began
        voxels += sum(int(np.prod(nib.load(path).shape)) for path in case.image_paths)
        found += [(task, case, channel, item) for channel, item in enumerate(prints)]
    print(f"{len(cases)} cases, {len(found)} channels, {voxels / 1e6:.0f} M voxels, {size / 1e6:.0f} MB of files")
    print(f"fingerprints {seconds:.1f} s ({voxels / 1e6 / seconds:.1f} M voxels/s, decompression included)")
    print(f"SHA-256 of the files {hashing:.2f} s")
    return found


def unrelated(found: list[tuple[str, CaseFiles, int, Fingerprint]]) -> None:
    """Print pairs of different patients that match, and how near the others come."""
    prints = [item for *_, item in found]
    shared = shared_landmarks(prints)
    vectors = descriptors(np.stack([item.thumbnail_XYZ for item in prints]))
    likeness = vectors @ vectors.T
    pairs = [
        (a, b)
        for a, b in zip(*np.triu_indices(len(found), 1), strict=True)
        if found[a][:2] != found[b][:2] and found[a][1].patient_id != found[b][1].patient_id
    ]
    nearest = sorted(pairs, key=lambda pair: -likeness[pair])[: NEAREST * 10]
    measured = sorted(
        ((correlation(prints[a].thumbnail_XYZ, prints[b].thumbnail_XYZ), a, b) for a, b in nearest), reverse=True
    )
    hits = [item for item in measured if item[0] >= SAME_THUMBNAIL]
    marks = {pair: shared.get((int(pair[0]), int(pair[1])), 0) for pair in pairs}
    print(
        f"{len(pairs)} pairs of channels of different patients: {len(hits)} with thumbnails at {SAME_THUMBNAIL} or "
        f"above, {sum(count >= SAME_LANDMARKS for count in marks.values())} with {SAME_LANDMARKS} or more shared "
        f"landmarks, {sum(0 < count < SAME_LANDMARKS for count in marks.values())} with 1 to "
        f"{SAME_LANDMARKS - 1}"
    )
    for value, a, b in measured[:12]:
        names = " = ".join(f"{found[k][0]}/{found[k][1].case_id}#{found[k][2]}" for k in (a, b))
        print(f"  {value:.4f}, {marks[a, b]} shared landmarks: {names}")


def robustness(cases: list[tuple[str, CaseFiles]], rng: np.random.Generator) -> None:
    """Print how often each change of a channel is still recognised, and by which fingerprint."""
    counts = {name: [0, 0, 0, 0] for name in CHANGES}
    library = importlib.util.find_spec("imagehash") is not None
    for _, case in cases:
        volume = np.asarray(nib.load(case.image_paths[0]).dataobj, dtype=np.float32)
        volume = volume if volume.ndim == 3 else volume[..., 0]
        original = fingerprint(volume)
        for name, change in CHANGES.items():
            other_volume = np.ascontiguousarray(change(volume, rng)).astype(np.float32)
            other = fingerprint(other_volume)
            counts[name][0] += recognised(original, other)
            counts[name][1] += correlation(original.thumbnail_XYZ, other.thumbnail_XYZ) >= SAME_THUMBNAIL
            counts[name][2] += shared_landmarks([original, other]).get((0, 1), 0) >= SAME_LANDMARKS
            counts[name][3] += library and slice_distance(volume, other_volume) <= 5
    head = f"{'change':<42} {'recognised':>12} {'thumbnail':>10} {'landmarks':>10}"
    print(head + (" imagehash of the middle slice, 5 bits" if library else ""))
    for name, (either, thumb, marks, slices) in counts.items():
        line = f"{name:<42} {either:>5} of {len(cases):<4} {thumb:>9} {marks:>10}"
        print(line + (f" {slices:>6}" if library else ""))


def slice_distance(first_XYZ: np.ndarray, second_XYZ: np.ndarray) -> int:
    """Return the Hamming distance of the average hashes of the middle slices along the last axis."""
    import imagehash
    from PIL import Image

    hashes = []
    for volume in (first_XYZ, second_XYZ):
        plane = volume[..., volume.shape[2] // 2]
        span = max(float(np.ptp(plane)), 1e-6)
        hashes.append(imagehash.average_hash(Image.fromarray(np.uint8((plane - plane.min()) * (255 / span)))))
    return int(hashes[0] - hashes[1])


def time_matching(counts: list[int], rng: np.random.Generator) -> None:
    """Print seconds to match made-up fingerprints of the given numbers, one planted pair each."""
    for count in counts:
        smooth = ndimage.gaussian_filter(rng.normal(size=(count, CELLS, CELLS, CELLS)), (0, 2, 2, 2))
        smooth -= smooth.mean(axis=(1, 2, 3), keepdims=True)
        smooth /= np.linalg.norm(smooth.reshape(count, -1), axis=1)[:, None, None, None]
        prints = [
            Fingerprint(cells.astype(np.float32), np.sort(rng.integers(0, 2**63, LANDMARKS, dtype=np.uint64)))
            for cells in smooth
        ]
        prints[-1] = prints[0]
        began = time.perf_counter()
        matches = same_images(prints)
        print(f"match {count} fingerprints: {time.perf_counter() - began:.2f} s, {len(matches)} pair(s)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds data sets with a card")
    parser.add_argument("--per-task", type=int, default=30, help="cases per data set for unrelated pairs")
    parser.add_argument("--changed", type=int, default=6, help="cases per data set that are changed")
    parser.add_argument("--match", type=int, nargs="*", default=[3237, 6474, 12948], help="numbers to match")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    unrelated(time_reading(sampled(args.data, args.per_task)))
    robustness(sampled(args.data, args.changed), rng)
    time_matching(args.match, rng)


if __name__ == "__main__":
    main()
