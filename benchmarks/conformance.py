"""Our scores beside those of MedPy, surface-distance and MONAI on the same tiny cases.

    python -m benchmarks.conformance

Prints the Markdown table of docs/metrics.md. An answer that a library refuses to give is shown as the word it gives.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import surface_distance
import torch
from medpy.metric import binary
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from segbench.core.task import Structure
from segbench.metrics import score_pair

SPACING = (1.0, 2.0, 4.0)
TOLERANCE = 2.0
SHAPE = (24, 14, 12)


def box(x: tuple[int, int], y: tuple[int, int], z: tuple[int, int]) -> np.ndarray:
    """Return a box of half-open ranges."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[slice(*x), slice(*y), slice(*z)] = True
    return mask


def with_island(mask: np.ndarray) -> np.ndarray:
    """Return the mask with one voxel far away."""
    found = mask.copy()
    found[20, 12, 10] = True
    return found


NONE = np.zeros(SHAPE, dtype=bool)
BLOCK = box((4, 12), (3, 9), (3, 8))
CASES = {
    "equal blocks": (BLOCK, BLOCK),
    "block shifted by 2 mm": (BLOCK, np.roll(BLOCK, 2, axis=0)),
    "block and an island": (BLOCK, with_island(BLOCK)),
    "one voxel, two aside (8 mm)": (box((4, 5), (4, 5), (4, 5)), box((4, 5), (4, 5), (6, 7))),
    "touching the border": (box((0, 8), (0, 8), (0, 8)), box((0, 7), (0, 8), (0, 8))),
    "prediction empty": (BLOCK, NONE),
    "reference empty": (NONE, BLOCK),
    "both empty": (NONE, NONE),
}


def asked(function: Callable[[], float]) -> str:
    """Return a number as text, or the kind of refusal."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return f"{float(function()):.4g}"
    except Exception as error:  # libraries refuse in many ways; the table shows how
        return type(error).__name__


def as_monai(mask: np.ndarray) -> torch.Tensor:
    """Return a one-hot batch of background and mask."""
    return torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32))


def line(name: str, reference: np.ndarray, prediction: np.ndarray) -> str:
    """Return one row of the table."""
    pair = (reference.astype(np.uint8), prediction.astype(np.uint8))
    found = {item.metric: item for item in score_pair(*pair, SPACING, [Structure("x", (1,), TOLERANCE)])}

    def ours(metric: str) -> str:
        return "no value" if found[metric].value is None else f"{found[metric].value:.4g}"

    def nsd() -> float:
        distances = surface_distance.compute_surface_distances(reference, prediction, SPACING)
        return surface_distance.compute_surface_dice_at_tolerance(distances, TOLERANCE)

    batch = (as_monai(prediction), as_monai(reference))
    cells = [
        name,
        found["dice"].status,
        ours("dice"),
        asked(lambda: binary.dc(prediction, reference)),
        ours("hd95"),
        asked(lambda: binary.hd95(prediction, reference, SPACING)),
        ours("hd95_max"),
        asked(lambda: compute_hausdorff_distance(*batch, percentile=95, spacing=SPACING)),
        ours("nsd"),
        asked(nsd),
        ours("nsd_voxel"),
        asked(lambda: compute_surface_dice(*batch, class_thresholds=[TOLERANCE], spacing=SPACING)),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    print(
        "| case | status | Dice | MedPy dc | HD95 pooled | MedPy hd95 | HD95 max | MONAI 95 % | NSD | surface-distance "
        "| NSD voxel | MONAI surface Dice |"
    )
    print("|" + "---|" * 12)
    for name, (reference, prediction) in CASES.items():
        print(line(name, reference, prediction))


if __name__ == "__main__":
    main()
