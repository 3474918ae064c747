"""nnU-Net v2's data loader on given arrays: PYTHON benchmarks/peers/nnunet_loader.py JOB.json.

`store` writes the cases as its preprocessor does; `watch` draws batches and notes what was drawn; `time` only draws.
Prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, "/tmp")  # only silences a warning; no such folder is used

import numpy as np  # noqa: E402
import torch  # noqa: E402
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform  # noqa: E402
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform  # noqa: E402
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform  # noqa: E402
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform  # noqa: E402
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform  # noqa: E402
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform  # noqa: E402
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform  # noqa: E402
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor  # noqa: E402
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size  # noqa: E402
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader  # noqa: E402
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2  # noqa: E402
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402

ROTATION = (-np.pi / 6, np.pi / 6)
COARSE_PATCH = 3


def store(job: dict) -> dict:
    """Write every case of the arrays' folder with the voxels of its classes that forced samples are drawn from."""
    patch = tuple(job["patch_size_zyx"])
    for path in sorted(Path(job["arrays"]).glob("*.npz")):
        arrays = np.load(path)
        images, labels = arrays["images"], arrays["labels"][None].astype(np.int16)
        found = DefaultPreprocessor._sample_foreground_locations(labels, list(range(1, int(job["classes"]) + 1)))
        sizes = [comp_blosc2_params(array.shape, patch, array.itemsize) for array in (images, labels)]
        (blocks, chunks), (blocks_seg, chunks_seg) = sizes
        nnUNetDatasetBlosc2.save_case(
            images,
            labels,
            {"class_locations": found},
            str(Path(job["store"]) / path.stem),
            chunks=chunks,
            blocks=blocks,
            chunks_seg=chunks_seg,
            blocks_seg=blocks_seg,
        )
    return {}


def loader(job: dict) -> nnUNetDataLoader:
    """Return the training loader as `nnUNetTrainer` sets it up, without deep supervision."""
    patch = list(job["patch_size_zyx"])
    in_plane = max(patch) / patch[0] > COARSE_PATCH
    rotation = (-np.pi, np.pi) if in_plane else ROTATION
    larger = get_patch_size(np.array(patch), rotation, rotation, rotation, (0.85, 1.25))
    if in_plane:
        larger[0] = patch[0]
    transforms = nnUNetTrainer.get_training_transforms(patch, rotation, None, (0, 1, 2), in_plane)
    labels = SimpleNamespace(all_labels=list(range(int(job["classes"]) + 1)), has_ignore_label=False)
    dataset = nnUNetDatasetBlosc2(job["store"])
    return nnUNetDataLoader(dataset, job["batch_size"], larger, patch, labels, 0.33, None, None, transforms=transforms)


def watched(seen: dict[str, list]) -> None:
    """Note the parameters of every transform, and which samples are forced, in lists of `seen`."""

    def note(kind: type, add) -> None:
        former = kind.get_parameters

        def get_parameters(self, **data):
            found = former(self, **data)
            add(self, found)
            return found

        kind.get_parameters = get_parameters

    def spatial(self, found: dict) -> None:
        seen["affine"].append(None if found["affine"] is None else np.asarray(found["affine"]).tolist())

    def gamma(self, found: dict) -> None:
        seen["inverted_gamma" if self.p_invert_image else "gamma"] += found["gamma"].tolist()

    note(SpatialTransform, spatial)
    note(GammaTransform, gamma)
    note(GaussianNoiseTransform, lambda self, found: seen["noise"].append(float(found["sigmas"])))
    note(GaussianBlurTransform, lambda self, found: seen["blur"].extend(np.ravel(found["sigmas"]).tolist()))
    note(
        MultiplicativeBrightnessTransform, lambda self, found: seen["brightness"].extend(found["multipliers"].tolist())
    )
    note(ContrastTransform, lambda self, found: seen["contrast"].extend(found["multipliers"].tolist()))
    note(SimulateLowResolutionTransform, lambda self, found: seen["low_resolution"].extend(_first(found["scales"])))
    boxes = nnUNetDataLoader.get_bbox

    def get_bbox(self, shape, force_fg, *rest, **how):
        seen["forced"].append(bool(force_fg))
        return boxes(self, shape, force_fg, *rest, **how)

    nnUNetDataLoader.get_bbox = get_bbox


def _first(scales: torch.Tensor) -> list[float]:
    return scales[:, -1].tolist() if len(scales) else []


def main() -> None:
    """Do the job of the file that is named."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    if job["step"] == "store":
        print(json.dumps(store(job)))
        return
    np.random.seed(job["seed"])
    torch.manual_seed(job["seed"])
    batches = loader(job)
    if job["step"] == "time":
        for _ in range(job["warm_up"]):
            batches.generate_train_batch()
        began = time.process_time()
        for _ in range(job["batches"]):
            batches.generate_train_batch()
        print(json.dumps({"cpu_seconds": time.process_time() - began}))
        return
    names = ["affine", "gamma", "inverted_gamma", "noise", "blur", "brightness", "contrast", "low_resolution", "forced"]
    seen: dict[str, list] = {name: [] for name in names}
    watched(seen)
    rng, outside, values = np.random.default_rng(0), [], []
    for _ in range(job["batches"]):
        batch = batches.generate_train_batch()
        outside.append(float((batch["target"] == 0).float().mean()))
        flat = batch["data"].flatten().numpy()
        values.append(flat[rng.integers(len(flat), size=job["values"])])
    np.save(job["out"], np.concatenate(values))
    print(json.dumps(seen | {"outside": float(np.mean(outside))}))


if __name__ == "__main__":
    main()
