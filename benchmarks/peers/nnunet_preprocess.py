"""nnU-Net v2 preprocesses a raw folder: PYTHON benchmarks/peers/nnunet_preprocess.py JOB.json; prints one line of JSON.

Runs in nnU-Net's own environment and imports nothing of segbench. Imports, and the start of worker processes (forked
from the loaded library), are outside the measured time.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, "/tmp")  # only silences a warning; no such folder is used

from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor  # noqa: E402
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: E402
from process import cpu_seconds  # noqa: E402

RESAMPLE = "resample_data_or_seg_to_shape"


def plans(job: dict) -> dict:
    """Return plans with the default resampling of nnU-Net v2: order 3, labels order 1, order 0 along a coarse axis."""
    ct = {"mean": -325.0, "std": 650.0, "percentile_00_5": -325.0, "percentile_99_5": 325.0}
    rules = {"order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "benchmark",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": job["patch_size_zyx"],
        "median_image_size_in_voxels": job["patch_size_zyx"],
        "spacing": job["spacing_mm_zyx"],
        "normalization_schemes": ["CTNormalization" if job["modality"] == "CT" else "ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": RESAMPLE,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **rules},
        "resampling_fn_seg": RESAMPLE,
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **rules},
        "resampling_fn_probabilities": RESAMPLE,
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **rules},
        "architecture": {},
        "batch_dice": False,
    }
    return {
        "dataset_name": "Dataset001_Benchmark",
        "plans_name": "benchmark",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": ct},
    }


def preprocess(job: dict, case: str) -> None:
    """Preprocess and store one case."""
    raw = Path(job["raw"])
    manager = PlansManager(plans(job))
    DefaultPreprocessor(verbose=False).run_case_save(
        str(Path(job["store"]) / case),
        [str(raw / "imagesTr" / f"{case}_0000.nii.gz")],
        str(raw / "labelsTr" / f"{case}.nii.gz"),
        manager,
        manager.get_configuration("3d_fullres"),
        json.loads((raw / "dataset.json").read_text(encoding="utf-8")),
    )


def main() -> None:
    """Preprocess all cases and print the cost."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(job["store"]).mkdir(parents=True)
    began, cpu = time.perf_counter(), cpu_seconds()
    work = [(job, case) for case in job["cases"]]
    if job["workers"] == 1:
        for item in work:
            preprocess(*item)
    else:
        with multiprocessing.get_context("fork").Pool(job["workers"]) as pool:
            pool.starmap(preprocess, work, chunksize=1)
            pool.close()
            pool.join()
    print(json.dumps({"seconds": time.perf_counter() - began, "cpu_seconds": cpu_seconds() - cpu}))


if __name__ == "__main__":
    main()
