"""Time preprocessing beside nnU-Net v2.

    NNUNET_PYTHON=... python -m benchmarks.preprocess [--data DIR]

Same cases (an nnU-Net raw folder), same cores, same target spacing and spline order; each side reads, crops,
resamples, normalises, samples foreground and stores. Prints wall and processor seconds and their ratios. The sets:
generated CT volumes, and with --data cases of OpenKBP_HeadNeckCT and Task04_Hippocampus.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from tabulate import tabulate

from benchmarks.peers.process import cpu_seconds
from benchmarks.sides import ours, peer, run_side
from segbench.core import cards
from segbench.data.ingest import discover, manifest_row
from segbench.data.preprocess import preprocess_folds
from segbench.data.preprocessing_recipes import PreprocessingRecipe

MODULE = "benchmarks.preprocess"
GENERATED = ((256, 256, 120), (0.9, 0.9, 2.5))  # voxels x,y,z and mm


def generated(raw: Path, count: int) -> dict:
    """Write CT volumes with three structures and noise; return what to preprocess them to."""
    shape, spacing = GENERATED
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = rng.normal(0, 250, [size // 8 for size in shape])
        smooth = ndimage.zoom(coarse, 8, order=1)
        labels = np.digitize(smooth, (250, 400, 550)).astype(np.uint8)
        image = np.clip(smooth + rng.normal(0, 25, shape), -1000, 2000).astype(np.int16)
        _save(raw, f"ct_{number:03d}", image, labels, np.diag((*spacing, 1.0)))
    return {"modality": "CT", "classes": 3, "spacing_mm_zyx": [2.0, 1.2, 1.2], "patch_size_zyx": [64, 128, 128]}


def real(raw: Path, root: Path, name: str, count: int) -> dict:
    """Copy evenly spaced real cases; the target is no coarser than native, so that every axis is resampled."""
    card = cards.dataset_cards()[name]
    cases = discover(name, card, root)
    for case in cases[:: max(1, len(cases) // count)][:count]:
        image, label = nib.load(case.image_paths[0]), nib.load(case.label_path)
        labels = np.asarray(label.dataobj).astype(np.uint8)
        _save(raw, case.case_id, np.asarray(image.dataobj), labels, image.affine)
    modality = card["channels"][0]["modality"]
    spacing = [2.0, 3.0, 3.0] if modality == "CT" else [0.8, 0.8, 0.8]
    patch = [64, 64, 64] if modality == "CT" else [40, 64, 48]
    return {"modality": modality, "classes": len(card["classes"]), "spacing_mm_zyx": spacing, "patch_size_zyx": patch}


def _save(raw: Path, case: str, image: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> None:
    for folder, name, data in (("imagesTr", f"{case}_0000", image), ("labelsTr", case, labels)):
        (raw / folder).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(data, affine), raw / folder / f"{name}.nii.gz")


def describe(raw: Path, facts: dict) -> list[str]:
    """Write dataset.json of the raw folder and return its cases."""
    names = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    content = {
        "channel_names": {"0": facts["modality"]},
        "labels": {"background": 0} | {f"class {value}": value for value in range(1, facts["classes"] + 1)},
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return names


def preprocess(job: dict) -> dict:
    """Our side: ingest apart, preprocess the raw folder into a fresh store and return the cost."""
    raw = Path(job["raw"])
    card = _card(job, raw.name)
    task = cards.task_from_card("benchmark", card)
    cases = [manifest_row(task.name, files) for files in discover(task.name, card, raw.parent)]
    recipe = replace(PreprocessingRecipe("benchmark"), spacing_mm_zyx=tuple(job["spacing_mm_zyx"]))
    began, cpu = time.perf_counter(), cpu_seconds()
    names = [case.case_id for case in cases]
    preprocess_folds(cases, task, card, recipe, sides={0: names}, store_root=Path(job["store"]), workers=job["workers"])
    return {"seconds": time.perf_counter() - began, "cpu_seconds": cpu_seconds() - cpu}


def _card(job: dict, folder: str) -> dict:
    values = range(1, job["classes"] + 1)
    return {
        "title": "benchmark",
        "layout": "nnunet_raw",
        "folder": folder,
        "channels": [{"name": job["modality"], "modality": job["modality"]}],
        "classes": {str(value): f"class {value}" for value in values},
        "structures": [{"name": f"class {value}", "labels": [value], "tolerance_mm": 2.0} for value in values],
        "recipe": "default",
    }


def compare(title: str, raw: Path, facts: dict, *, repeats: int) -> Iterator[list]:
    """Yield one row per number of workers: the shortest of a few runs of each side, and the ratios."""
    names = describe(raw, facts)
    for workers in range(1, min(2, len(os.sched_getaffinity(0))) + 1):
        found: dict[str, list[dict]] = {"ours": [], "peer": []}
        for _ in range(repeats):
            for side in found:
                store, path = raw.parent / "store", raw.parent / "job.json"
                path.write_text(
                    json.dumps(facts | {"raw": str(raw), "store": str(store), "cases": names, "workers": workers}),
                    encoding="utf-8",
                )
                command = ours(MODULE, path) if side == "ours" else peer("nnunet_preprocess.py", path)
                result = run_side(command, cores=workers)
                result["bytes"] = sum(item.stat().st_size for item in store.rglob("*") if item.is_file())
                found[side].append(result)
                shutil.rmtree(store)
        wall, cpu = ([min(item[key] for item in found[side]) for side in found] for key in ("seconds", "cpu_seconds"))
        size = [found[side][0]["bytes"] / 1e6 for side in found]
        yield [title, len(names), workers, *wall, wall[1] / wall[0], *cpu, cpu[1] / cpu[0], *size]


HEAD = [
    "cases",
    "n",
    "workers",
    "ours s",
    "nnU-Net s",
    "ratio",
    "ours CPU s",
    "nnU-Net CPU s",
    "ratio",
    "ours MB",
    "nnU-Net MB",
]


def main() -> None:
    """Compare all sets, or run our side of one job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that holds OpenKBP_HeadNeckCT and Task04_Hippocampus")
    parser.add_argument("--cases", type=int, default=12, help="cases of each real data set")
    parser.add_argument("--generated", type=int, default=6, help="generated CT volumes")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each side; the shortest counts")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(preprocess(json.loads(args.job.read_text(encoding="utf-8")))))
        return
    shape = "x".join(map(str, GENERATED[0]))
    sets = {f"generated CT {shape}": lambda raw: generated(raw, args.generated)}
    if args.data:
        sets["head and neck CT"] = lambda raw: real(raw, args.data, "openkbp_head_neck_ct", args.cases)
        sets["hippocampus MR"] = lambda raw: real(raw, args.data, "task04_hippocampus", args.cases)
    rows = []
    for title, make in sets.items():
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "Dataset001_Benchmark"
            rows += compare(title, raw, make(raw), repeats=args.repeats)
    print(tabulate(rows, HEAD, tablefmt="pipe", floatfmt=".2f"))


if __name__ == "__main__":
    main()
