"""What an image looks like, whatever its header, orientation, padding, crop and intensity scale.

Two fingerprints per channel, because each survives what the other does not:

- the *thumbnail*: the volume without constant padding, averaged to 12^3 cells, extremes clipped, standardised. It
  survives resampling, rounding and noise; two thumbnails are compared over all 48 orientations.
- the *landmarks*: a bottom-k sample (Broder 1997) of hashes of 3x3x3 neighbourhoods around local maxima, each
  neighbourhood sorted (so no orientation matters) and scaled to [0, 1] (so no linear intensity scale matters). Every
  voxel position counts alike, so any crop of a volume shares hashes with it.

Suffixes: F fingerprints, XYZ voxels or cells along the three axes as stored, D entries of a descriptor.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import fft
from sklearn.decomposition import PCA

from segbench.data.volumes import open_volume

CELLS = 12
FREQUENCIES = 8
LANDMARKS = 256
LEVELS = 64
SAME_THUMBNAIL = 0.98  # measured, see docs/protocols.md: different patients of ten tasks stay below 0.974
SAME_LANDMARKS = 6  # measured: different patients share none
DISTINCT = 18  # different values of 27; plateaus and padding look alike in all images
CANDIDATE = 0.985
CHUNK = 2048
AXES = 16

_AXIS_ORDERS = tuple(itertools.permutations(range(3)))
_FLIPS = tuple(itertools.product((1, -1), repeat=3))


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of one channel: averaged cells, zero mean and unit norm (CELLS^3), and sorted 64-bit hashes."""

    thumbnail_XYZ: np.ndarray
    landmarks: np.ndarray


@dataclass(frozen=True)
class Match:
    """Two fingerprints of the same image: their positions, correlation of thumbnails, number of shared landmarks."""

    first: int
    second: int
    correlation: float
    shared_landmarks: int


def fingerprints_of(paths: Sequence[Path | str]) -> list[Fingerprint]:
    """Return one fingerprint per channel of a case; a 4D file has its channels last."""
    found = []
    for path in paths:
        with np.errstate(over="ignore"):  # an image beyond float32, which `check` refuses
            channels = [channel_XYZ.astype(np.float32) for channel_XYZ in open_volume(path).channels()]
        found += map(fingerprint, channels)
    return found


def fingerprint(volume_XYZ: np.ndarray) -> Fingerprint:
    """Return the fingerprint of one volume; a constant volume has an all-zero thumbnail and no landmarks."""
    finite = np.nan_to_num(volume_XYZ, posinf=0, neginf=0)
    return Fingerprint(_thumbnail(without_padding(finite)), _landmarks(finite))


def without_padding(volume_XYZ: np.ndarray) -> np.ndarray:
    """Cut off the outer planes that look like the corners; a volume without other planes is returned whole.

    A plane is kept when more than 1 % of it differs from the median corner by more than 2 % of the contrast, which
    leaves a margin for the ripples that interpolation and noise draw into constant padding.
    """
    corner = np.median(volume_XYZ[np.ix_(*[(0, -1)] * 3)])
    lowest, highest = np.percentile(volume_XYZ.ravel()[:: max(1, volume_XYZ.size // 100_000)], (0.5, 99.5))
    content = np.abs(volume_XYZ - corner) > 0.02 * (highest - lowest)
    box = []
    for axis in range(3):
        kept = np.flatnonzero(content.mean(axis=tuple({0, 1, 2} - {axis})) > 0.01)
        box.append(slice(kept[0], kept[-1] + 1) if len(kept) else slice(None))
    return volume_XYZ[tuple(box)]


def _thumbnail(volume_XYZ: np.ndarray) -> np.ndarray:
    cells = volume_XYZ.astype(np.float32)
    for axis in range(3):
        cells = np.moveaxis(np.tensordot(_averaging(cells.shape[axis]), cells, axes=(1, axis)), 0, axis)
    cells = np.clip(cells, *np.percentile(cells, (2, 98)))
    cells = cells - cells.mean()
    norm = np.linalg.norm(cells)
    contrast = norm > 1e-6 * np.abs(volume_XYZ).max() * CELLS**1.5
    return (cells / norm if contrast else np.zeros_like(cells)).astype(np.float32)


def _averaging(size: int) -> np.ndarray:
    """Weights (CELLS, size) of the mean over the part of the axis that each cell covers."""
    edges = np.linspace(0, size, CELLS + 1)
    starts = np.arange(size)
    covered = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    covered = np.clip(covered, 0, None)
    return (covered / covered.sum(axis=1, keepdims=True)).astype(np.float32)


def _landmarks(volume_XYZ: np.ndarray) -> np.ndarray:
    """Return the smallest LANDMARKS hashes of the neighbourhoods of local maxima, sorted."""
    if min(volume_XYZ.shape) < 3:
        return np.empty(0, dtype=np.uint64)
    around = _neighbourhoods(volume_XYZ, np.argwhere(_peaks(volume_XYZ)))
    around = around[np.count_nonzero(np.diff(around, axis=1), axis=1) >= DISTINCT]
    lowest, highest = around[:, :1].astype(np.float64), around[:, -1:]
    words = np.round((around[:, 1:-1] - lowest) * (LEVELS / (highest - lowest))).astype(np.uint64)
    return np.unique(_hash(words))[:LANDMARKS]


def _peaks(volume_XYZ: np.ndarray) -> np.ndarray:
    """Tell of each inner voxel whether none of its 26 neighbours is higher and its 6 face neighbours are lower."""
    highest = volume_XYZ
    for axis in range(3):
        size = highest.shape[axis] - 2
        first, second, third = (highest[(slice(None),) * axis + (slice(k, k + size),)] for k in range(3))
        highest = np.maximum(np.maximum(first, second), third)
    inner = (slice(1, -1),) * 3
    peaks = volume_XYZ[inner] == highest
    for axis in range(3):
        for shifted in (slice(None, -2), slice(2, None)):
            peaks &= volume_XYZ[inner] > volume_XYZ[(*inner[:axis], shifted, *inner[axis + 1 :])]
    return peaks


def _neighbourhoods(volume_XYZ: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return the 27 values of the 3x3x3 neighbourhoods that start at `corners`, sorted in each row."""
    flat = np.ravel_multi_index(corners.T, volume_XYZ.shape)
    steps = np.ravel_multi_index(np.indices((3, 3, 3)).reshape(3, -1), volume_XYZ.shape)
    return np.sort(volume_XYZ.ravel()[flat[:, None] + steps], axis=1)


def _hash(words: np.ndarray) -> np.ndarray:
    """Mix rows of small numbers into 64-bit hashes (multiply and shift, the constants of splitmix64)."""
    value = np.zeros(len(words), dtype=np.uint64)
    for column in words.T:
        value = (value ^ column) * np.uint64(0xBF58476D1CE4E5B9) + np.uint64(0x9E3779B97F4A7C15)
        value ^= value >> np.uint64(31)
    return value


def correlation(first_XYZ: np.ndarray, second_XYZ: np.ndarray) -> float:
    """Return the largest correlation of two thumbnails over the 48 orientations, in -1..1."""
    return float(max(np.vdot(first_XYZ, turned) for turned in _orientations(second_XYZ)))


def _orientations(cells_XYZ: np.ndarray) -> Iterator[np.ndarray]:
    for order in _AXIS_ORDERS:
        turned = cells_XYZ.transpose(order)
        for x, y, z in _FLIPS:
            yield turned[::x, ::y, ::z]


def descriptors(thumbnails_FXYZ: np.ndarray) -> np.ndarray:
    """Return unit vectors FD that no orientation changes, so that one matrix product finds the candidates.

    A flip only changes signs of the cosine transform and an axis order only permutes it: magnitudes, sorted within
    each group of permuted frequencies, are therefore the same for all 48 orientations.
    """
    waves = np.abs(fft.dctn(thumbnails_FXYZ, axes=(1, 2, 3), norm="ortho"))
    groups = defaultdict(list)
    for frequency in itertools.product(range(FREQUENCIES), repeat=3):
        groups[tuple(sorted(frequency))].append(frequency)
    parts = [np.sort(waves[(slice(None), *np.array(group).T)], axis=1) for group in groups.values()]
    found = np.concatenate(parts, axis=1).astype(np.float32)
    norm = np.linalg.norm(found, axis=1, keepdims=True)
    return found / np.where(norm > 0, norm, 1)


def same_images(prints: Sequence[Fingerprint], owners: Sequence[int] | None = None) -> list[Match]:
    """Return all pairs of fingerprints that show the same image, first < second, in order.

    owners: number of the case of each fingerprint; channels of one case are not compared. The candidates come from
    one chunked matrix product (thumbnails) and one index of hashes (landmarks), so memory grows linearly.
    """
    owners = np.arange(len(prints)) if owners is None else np.asarray(owners)
    if not len(prints):
        return []
    shared = shared_landmarks(prints)
    pairs = {pair for pair, count in shared.items() if count >= SAME_LANDMARKS}
    pairs |= set(similar_thumbnails(np.stack([item.thumbnail_XYZ for item in prints])))
    matches = []
    for first, second in sorted(pairs):
        if owners[first] == owners[second]:
            continue
        likeness = correlation(prints[first].thumbnail_XYZ, prints[second].thumbnail_XYZ)
        count = shared.get((first, second), 0)
        if likeness >= SAME_THUMBNAIL or count >= SAME_LANDMARKS:
            matches.append(Match(first, second, likeness, count))
    return matches


def similar_thumbnails(thumbnails_FXYZ: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield pairs, first < second, whose descriptors are close enough for a comparison of all orientations.

    Two points are never nearer than their projections, so the product over a few principal axes loses no pair.
    """
    if len(thumbnails_FXYZ) < 2:
        return
    vectors_FD = descriptors(thumbnails_FXYZ)
    near = 1 - CANDIDATE + 1e-5  # half the squared distance of unit vectors; the rest is for rounding
    with np.errstate(invalid="ignore"):  # equal thumbnails have no variance to explain
        axes = PCA(min(AXES, *vectors_FD.shape), svd_solver="covariance_eigh").fit(vectors_FD)
    few_FA = vectors_FD @ axes.components_.T
    halves_F1, ones_F1 = (few_FA**2).sum(axis=1, keepdims=True) / 2, np.ones((len(few_FA), 1), np.float32)
    left, right = np.hstack([few_FA, -halves_F1, -ones_F1]), np.hstack([few_FA, ones_F1, halves_F1])
    for start in range(0, len(vectors_FD), CHUNK):
        for other in range(start, len(vectors_FD), CHUNK):
            flat = np.flatnonzero(left[start : start + CHUNK] @ right[other : other + CHUNK].T >= -near)
            rows, columns = np.divmod(flat, len(right[other : other + CHUNK]))
            firsts, seconds = rows[(ahead := start + rows < other + columns)] + start, columns[ahead] + other
            close = np.einsum("nd,nd->n", vectors_FD[firsts], vectors_FD[seconds]) >= CANDIDATE
            yield from zip(firsts[close].tolist(), seconds[close].tolist(), strict=True)


def shared_landmarks(prints: Sequence[Fingerprint]) -> dict[tuple[int, int], int]:
    """Return the number of landmarks in common for every pair, first < second, that has any."""
    found: dict[tuple[int, int], int] = defaultdict(int)
    if not prints:
        return found
    hashes = np.concatenate([item.landmarks for item in prints])
    if not len(hashes):
        return found
    holders = np.repeat(np.arange(len(prints)), [len(item.landmarks) for item in prints])
    order = np.argsort(hashes, kind="stable")
    hashes, holders = hashes[order], holders[order]
    again = np.append(hashes[1:] == hashes[:-1], False)
    repeated = again | np.roll(again, 1)  # hashes of one print alone, nearly all, are not looked at
    hashes, holders = hashes[repeated], holders[repeated]
    for group in np.split(holders, np.flatnonzero(np.diff(hashes)) + 1):
        for pair in itertools.combinations(group.tolist(), 2):
            found[pair] += 1
    return found
