"""A per-case table that no model here produced: clinical PET thresholds scored by MedPy, for `segbench compare`.

    python -m benchmarks.pet_thresholds STS_PETCT thresholds.csv
    python -m segbench compare thresholds.csv --out comparison

The folder is in Medical Segmentation Decathlon layout with PET (standardised uptake value, SUV) as first channel and
the tumour as label 1, such as the soft-tissue sarcomas of the IBSI validation set (github.com/theibsi/data_sets,
CC BY 3.0). Methods: SUV of at least 2.5 and 4, at least 41 % of the maximum, and Otsu's threshold; the component with
the highest uptake is kept, and nothing was tuned or trained. Neither masks nor values pass through segbench.metrics.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from medpy.metric import binary
from scipy import ndimage
from skimage.filters import threshold_otsu

THRESHOLDS: dict[str, Callable[[np.ndarray], float]] = {
    "SUV 2.5": lambda suv: 2.5,
    "SUV 4": lambda suv: 4.0,
    "41 % of maximum": lambda suv: 0.41 * float(suv.max()),
    "Otsu": lambda suv: float(threshold_otsu(suv)),
}
COLUMNS = ("model", "task", "case", "structure", "metric", "value", "status")


def hottest_component(suv_XYZ: np.ndarray, threshold: float) -> np.ndarray:
    """Return the connected part at or above the threshold that holds the highest uptake; empty when nothing is."""
    labels, _ = ndimage.label(suv_XYZ >= threshold)
    at_peak = labels[np.unravel_index(suv_XYZ.argmax(), suv_XYZ.shape)]
    return labels == at_peak if at_peak else np.zeros(suv_XYZ.shape, dtype=bool)


def rows(folder: Path) -> Iterator[tuple]:
    """Yield the rows of every case, method and metric; an empty prediction has a status and no value."""
    for path in sorted((folder / "labelsTr").glob("*.nii.gz")):
        label = nib.load(path)
        reference = np.asarray(label.dataobj) == 1
        suv = np.asarray(nib.load(folder / "imagesTr" / path.name).dataobj)[..., 0]
        for method, threshold in THRESHOLDS.items():
            prediction = hottest_component(suv, threshold(suv))
            for metric, value in scores(prediction, reference, label.header.get_zooms()[:3]).items():
                status = "ok" if prediction.any() else "prediction_empty"
                yield method, "sarcoma PET", path.name.removesuffix(".nii.gz"), "tumour", metric, value, status


def scores(prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]) -> dict[str, float | str]:
    """Return MedPy's values; blank where the prediction is empty."""
    if not prediction.any():
        return {"dice": "", "hd95": ""}
    return {
        "dice": float(binary.dc(prediction, reference)),
        "hd95": float(binary.hd95(prediction, reference, voxelspacing=spacing_mm)),
    }


def main() -> None:
    """Write the table."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m benchmarks.pet_thresholds FOLDER TABLE.csv")
    with open(sys.argv[2], "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
