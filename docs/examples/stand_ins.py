"""Stand-ins that show how external systems read prompts and support cases; no network, no learning.

    python docs/examples/stand_ins.py text JOB        # a text-driven system: the text of a class decides
    python docs/examples/stand_ins.py in-context JOB  # an in-context system: the support cases decide

`text` reads two numbers in the text of a class and marks the voxels between them. `in-context` gives each voxel the
class whose median intensity in the support cases is nearest to its own. Copy what reads the job file, and put a real
system in the place of the last two functions. Needs nibabel, NumPy and SciPy.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage


def main(kind: str, path: str) -> None:
    """Predict every test case of a job file."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    for task in job["tasks"]:
        if kind == "text":
            prompts = {int(value): text for value, text in task["prompts"].items()}
            segment = text_driven(prompts)
        else:
            chosen = [case for case in task["training"] if case["case"] in task["support"]]
            segment = in_context([(voxels(case["images"][0]), voxels(case["label"])) for case in chosen])
        for case in task["test"]:
            labels = segment(smoothed(voxels(case["images"][0]))).astype(np.uint8)
            affine = nib.load(case["images"][0]).affine
            nib.save(nib.Nifti1Image(labels, affine), Path(job["output"]) / task["name"] / f"{case['case']}.nii.gz")


def voxels(path: str) -> np.ndarray:
    """Return the values of an image or a label map."""
    return np.asarray(nib.load(path).dataobj)


def smoothed(image: np.ndarray) -> np.ndarray:
    """Return the image without most of its noise."""
    return ndimage.median_filter(image, 3)


def text_driven(prompts: dict[int, str]):
    """Stand-in for a text-driven network: class value -> text with the lowest and the highest intensity."""
    ranges = {value: [float(number) for number in re.findall(r"-?\d+", text)[:2]] for value, text in prompts.items()}

    def segment(image: np.ndarray) -> np.ndarray:
        labels = np.zeros(image.shape)
        for value, (low, high) in ranges.items():
            labels[(image >= low) & (image <= high)] = value
        return labels

    return segment


def in_context(support: list[tuple[np.ndarray, np.ndarray]]):
    """Stand-in for an in-context network: pairs of an image and its label map."""
    images, labels = (np.concatenate([part.ravel() for part in parts]) for parts in zip(*support, strict=True))
    values = np.unique(labels)
    centres = np.array([np.median(images[labels == value]) for value in values])

    def segment(image: np.ndarray) -> np.ndarray:
        return values[np.abs(image[..., None] - centres).argmin(axis=-1)]

    return segment


if __name__ == "__main__":
    main(*sys.argv[1:])
