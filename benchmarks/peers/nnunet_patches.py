"""nnU-Net v2 stores a volume and reads random patches: PYTHON benchmarks/peers/nnunet_patches.py JOB.json.

Stored by `nnUNetDatasetBlosc2.save_case` with chunks for the patch size, read as its data loader reads: the case is
opened for every patch, or, with `"open": "once"`, before the first. Prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, "/tmp")  # only silences a warning; no such folder is used

import numpy as np  # noqa: E402
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd  # noqa: E402
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2  # noqa: E402
from process import memory_mib  # noqa: E402


def store(job: dict, patch: list[int]) -> None:
    """Write the volume as the preprocessor does, labels as int16."""
    volume, labels = np.load(job["volume"])[None], np.load(job["labels"])[None].astype(np.int16)
    sizes = [comp_blosc2_params(array.shape, tuple(patch), array.itemsize) for array in (volume, labels)]
    (blocks, chunks), (blocks_seg, chunks_seg) = sizes
    nnUNetDatasetBlosc2.save_case(
        volume,
        labels,
        {},
        str(Path(job["store"]) / "case"),
        chunks=chunks,
        blocks=blocks,
        chunks_seg=chunks_seg,
        blocks_seg=blocks_seg,
    )


def read(job: dict, patch: list[int]) -> dict:
    """Read all patches of one size and return seconds and the growth of memory."""
    dataset = nnUNetDatasetBlosc2(job["store"])
    data, labels, _, _ = dataset.load_case("case")
    boxes = [[[start, start + size] for start, size in zip(at, patch, strict=True)] for at in job["starts"]]
    crop_and_pad_nd(data, boxes[0], 0), crop_and_pad_nd(labels, boxes[0], -1)
    before = memory_mib()
    began, cpu = time.perf_counter(), time.process_time()
    total = 0.0
    for box in boxes:
        if job["open"] != "once":
            data, labels, _, _ = dataset.load_case("case")
        total += float(crop_and_pad_nd(data, box, 0)[0, 0, 0, 0]) + float(crop_and_pad_nd(labels, box, -1)[0, 0, 0, 0])
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    growth = [after - earlier for after, earlier in zip(memory_mib(), before, strict=True)]
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "growth_mib": growth, "sum": total}


def main() -> None:
    """Store, or read in a process that has never held the volume."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    patch = job["patch_size_zyx"]
    if job["step"] == "store":
        store(job, patch)
        print("{}")
    else:
        print(json.dumps(read(job, patch)))


if __name__ == "__main__":
    main()
