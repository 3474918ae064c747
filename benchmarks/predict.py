"""Predict whole cases from file to file beside nnU-Net v2's predictor, and the memory of a very large case.

    NNUNET_PYTHON=... python -m benchmarks.predict --data ../shared/realdata

Both sides have the same network (PlainConvUNet, random weights from one file), patch, step 0.5, mirroring along three
axes, target spacing and one thread; imports are not counted. nnU-Net predicts as `predict_from_files_sequential` does.
Our precision is `auto` unless another is asked for. Seconds are the medians of `--repeats`; the sides take turns. The
memory is the peak of a process that predicts 512x512x800 voxels into 105 classes with a network of one layer, with
`--cores` threads.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np

from benchmarks.sides import ours, peer, run_side
from segbench.core.memory import keep_freed_memory

MODULE = "benchmarks.predict"
GIB = 1e9
WIDTHS = (16, 32, 64)
ROWS = {  # name -> images, patch, spacing in mm, classes, least ratio of nnU-Net's seconds to ours
    "hippocampus": ("Task04_Hippocampus", 10, (40, 56, 40), (1.0, 1.0, 1.0), 3, 1.8),
    "openkbp": ("OpenKBP_HeadNeckCT", 1, (32, 40, 40), (3.0, 4.0, 4.0), 5, 3.0),
    "generated": ("", 1, (40, 56, 40), (2.5, 2.5, 2.5), 14, 3.0),
}
GENERATED_ZYX = (256, 320, 320)
MEMORY = {"shape_zyx": (800, 512, 512), "classes": 105, "patch_size_zyx": (64, 192, 192)}
MOST_GB = 6.0


def network_arguments(classes: int) -> dict:
    """Return what builds the network, as JSON can hold it."""
    return {
        "input_channels": 1,
        "n_stages": len(WIDTHS),
        "features_per_stage": list(WIDTHS),
        "kernel_sizes": [[3, 3, 3]] * len(WIDTHS),
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (len(WIDTHS) - 1),
        "n_conv_per_stage": 2,
        "num_classes": classes,
        "n_conv_per_stage_decoder": 2,
        "conv_bias": True,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": True,
    }


def one_task(classes: int):
    """Return a task of one MR channel."""
    from segbench.core.task import Channel, Structure, Task

    names = tuple(f"c{number}" for number in range(1, classes))
    return Task("bench", "bench", (Channel("MR", "MR"),), names, (Structure("c1", (1,), 1.0),), preprocessing="bench")


def predict(job: dict) -> dict:
    """Our side: predict all files; seconds without imports."""
    import torch

    from models.interface import NetworkSpec
    from models.loader import build_model
    from segbench.core.task import TaskSet
    from segbench.evaluation.predict import predict_files
    from segbench.inference.precision import ready

    torch.set_num_threads(1)
    patch, task = tuple(job["patch_size_zyx"]), one_task(job["classes"])
    kernels = ((2, 2, 2),) * (len(WIDTHS) - 1), ((3, 3, 3),) * len(WIDTHS)
    model = build_model("nnunet_plain", TaskSet([task]), NetworkSpec(patch, WIDTHS[0], WIDTHS[-1], *kernels))
    state = torch.load(job["weights"], weights_only=True)
    model.network.load_state_dict(state)
    ready(model, "cpu")
    recipe = {"spacing_mm_zyx": tuple(job["spacing_mm_zyx"]), "crop_to_nonzero": True}
    inference = SimpleNamespace(step=0.5, mirror_axes=(0, 1, 2), precision=job["precision"])
    context = SimpleNamespace(  # what prediction asks of a job
        config=SimpleNamespace(inference=inference, preprocessing_recipes={"bench": recipe}),
        network=SimpleNamespace(patch_size_zyx=patch),
        training=SimpleNamespace(mirror_sides=False),
        preprocessed={"bench": SimpleNamespace(intensities={"foreground": [None], "masked": False})},
    )
    images = {Path(name).name: [Path(name)] for name in job["images"]}
    began, cpu = time.perf_counter(), time.process_time()
    list(predict_files(model, context, [task], images, Path(job["output"])))
    return {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}


def peak_memory(job: dict) -> dict:
    """Predict one volume on its own grid with a network of one layer; return the peak of resident memory."""
    import torch

    from models.interface import NetworkSpec, SegmentationModel
    from segbench.core.task import TaskSet
    from segbench.data.geometry import Geometry
    from segbench.inference.precision import ready
    from segbench.inference.sliding_window import Windows, predict_labels

    task, shape = one_task(job["classes"]), tuple(job["shape_zyx"])

    class OneLayer(SegmentationModel):
        """One convolution of one voxel."""

        def __init__(self):
            super().__init__(TaskSet([task]), NetworkSpec(tuple(job["patch_size_zyx"])))
            self.layer = torch.nn.Conv3d(1, task.num_classes, 1)

        def encode(self, images_BCZYX):
            return images_BCZYX

        def decode(self, features, task):
            return [self.layer(features)]

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    images = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    crop, affine = tuple((0, size) for size in shape[::-1]), tuple(map(tuple, np.eye(4).tolist()))
    geometry = Geometry(shape[::-1], affine, crop, shape)
    began = time.perf_counter()
    found = predict_labels(ready(OneLayer(), "cpu"), images, [task], geometry, Windows(tuple(job["patch_size_zyx"])))
    return {
        "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB,
        "seconds": time.perf_counter() - began,
        "classes_found": len(np.unique(found["bench"])),
    }


def images_of(row: str, data: Path, folder: Path, fraction: float) -> list[str]:
    """Return the paths of a row's images; `fraction` makes a smaller trial of it."""
    source, count, *_ = ROWS[row]
    if source:
        found = sorted((data / source / "imagesTr").glob("*.nii.gz"))[: max(1, round(count * fraction))]
        if not found:
            sys.exit(f"no images in {data / source / 'imagesTr'}; name the folder with --data")
        return [str(path.resolve()) for path in found]
    shape = [max(64, round(size * fraction)) for size in GENERATED_ZYX[::-1]]
    path = folder / "generated.nii.gz"
    values = np.random.default_rng(0).normal(100, 30, shape).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    return [str(path)]


def compare(row: str, args: argparse.Namespace, folder: Path) -> float:
    """Print both sides of a row and how many voxels agree; return nnU-Net's seconds divided by ours."""
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from torch import nn

    _, _, patch, spacing, classes, _ = ROWS[row]
    torch.manual_seed(0)
    options = network_arguments(classes)
    network = PlainConvUNet(**options, conv_op=nn.Conv3d, norm_op=nn.InstanceNorm3d, nonlin=nn.LeakyReLU)
    torch.save(network.state_dict(), folder / "weights.pt")
    images = images_of(row, args.data, folder, args.fraction)
    for side in ("ours", "theirs"):
        (folder / row / side / "bench").mkdir(parents=True)
    outputs = [str(folder / row / "theirs" / Path(name).name.removesuffix(".nii.gz")) for name in images]
    job = {
        "step": "predict",
        "network": options,
        "weights": str(folder / "weights.pt"),
        "patch_size_zyx": patch,
        "spacing_mm_zyx": spacing,
        "classes": classes,
        "precision": args.precision,
        "images": images,
        "output": str(folder / row / "ours"),
        "outputs": outputs,
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(args.repeats):
        for side, command in (("theirs", peer("nnunet_predict.py", path)), ("ours", ours(MODULE, path))):
            seconds[side].append(run_side(command, cores=args.cores)["seconds"])
    same = [
        np.mean(
            np.asarray(nib.load(f"{theirs}.nii.gz").dataobj)
            == np.asarray(nib.load(folder / row / "ours" / "bench" / Path(name).name).dataobj)
        )
        for name, theirs in zip(images, outputs, strict=True)
    ]
    for side, values in seconds.items():
        print(f"{row}, {side}: {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})", flush=True)
    print(f"{row}: {np.mean(same):.4f} of the voxels have the same label", flush=True)
    return statistics.median(seconds["theirs"]) / statistics.median(seconds["ours"])


def main() -> int:
    """Print one line per target; return 1 when one is short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/realdata"))
    parser.add_argument("--rows", nargs="+", default=[*ROWS, "memory"], choices=[*ROWS, "memory"])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2, help="cores that each side may use")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the cases and sizes, for a quick trial")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        keep_freed_memory()  # as the command does
        job = json.loads(args.job.read_text())
        print(json.dumps({"predict": predict, "memory": peak_memory}[job["step"]](job)))
        return 0
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for row in args.rows:
            if row == "memory":
                shape = tuple(max(64, round(size * args.fraction)) for size in MEMORY["shape_zyx"])
                (folder / "job.json").write_text(json.dumps(MEMORY | {"step": "memory", "shape_zyx": shape}))
                found = run_side(ours(MODULE, folder / "job.json"), cores=args.cores)
                print(f"memory: {found['seconds']:.0f} s, {found['classes_found']} classes", flush=True)
                results.append(("memory_gb", found["gb"], MOST_GB, found["gb"] <= MOST_GB))
            else:
                ratio = compare(row, args, folder)
                results.append((row, ratio, ROWS[row][-1], ratio >= ROWS[row][-1]))
    for name, value, target, is_met in results:
        print(f"result: {name} {value:.2f} {target} {'ok' if is_met else 'short'}")
    return 0 if all(is_met for *_, is_met in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
