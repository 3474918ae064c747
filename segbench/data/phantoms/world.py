"""The phantom world: a small, seeded, synthetic stand-in for the benchmark's data sets.

It writes real NIfTI files in the layout of the Medical Segmentation Decathlon, one folder per task: `imagesTr`,
`labelsTr`, `dataset.json`, and beside them `phantom.json` with seed, versions and the SHA-256 of every volume. The same
seed and the same library versions give the same bytes. What a task is called and which classes it labels stands in its
card, `segbench/data/sources/phantom_NAME.py`, and nowhere else. Nothing here comes from a patient.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import json
import logging
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import scipy

from segbench import __version__
from segbench.core.errors import Problem, input_error, raise_problems, suggestion
from segbench.core.files import write_bytes, write_json
from segbench.core.seeds import seed_for
from segbench.data import sources
from segbench.data.parallel import mapped
from segbench.data.phantoms import mr as phantom_mr
from segbench.data.phantoms import torso as phantom_torso
from segbench.data.phantoms.shapes import Tissues

log = logging.getLogger(__name__)

PREFIX = "phantom_"
LICENCE = "CC0-1.0"
RECORD = "phantom.json"
SUFFIX = ".nii.gz"
# Class name in a card -> tissues that carry it, where it is not simply the tissue of that name.
CLASS_TISSUES = {
    "liver": phantom_torso.LIVER,
    "kidney": phantom_torso.KIDNEYS,
    "hepatic tumour": ("liver tumour",),
    "vertebrae": ("vertebra",),
    "stomach": ("stomach", "stomach wall"),
    "prostate": ("peripheral zone", "transition zone"),
    "lesion": phantom_torso.TUMOURS,
}
EVERY_NTH_PET_WITHOUT_LESION = 4

Phantom = tuple[np.ndarray, Tissues, np.ndarray]


def task_names() -> tuple[str, ...]:
    """Return the phantom tasks, sorted: every card whose file name begins with `phantom_`."""
    return tuple(sorted(info.name for info in pkgutil.iter_modules(sources.__path__) if info.name.startswith(PREFIX)))


def card_of(task: str) -> dict[str, Any]:
    """Return the card of a phantom task; an unknown name raises `InputError` with a suggestion."""
    if task not in task_names():
        raise input_error("tasks", found=repr(task), expected="a phantom task", fix=suggestion(task, task_names()))
    return importlib.import_module(f"{sources.__name__}.{task}").CARD


def make_case(task: str, index: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one case: image (X, Y, Z) or (X, Y, Z, C) int16, labels (X, Y, Z) uint8, affine 4 x 4 (RAS+, mm).

    index: 1, 2, ...; decides the patient, and for PET/CT every fourth patient has no lesion.
    """
    signal, tissues, affine = _generator(task, index)(np.random.default_rng(seed_for("phantom", seed, task, index)))
    labels = np.zeros(tissues.map_XYZ.shape, np.uint8)
    for value, name in card_of(task)["classes"].items():
        labels[tissues.mask(*CLASS_TISSUES.get(name, (name,)))] = int(value)
    return np.rint(np.clip(signal, -32000, 32000)).astype(np.int16), labels, affine


def write_world(
    root: Path, *, seed: int, cases_per_task: int, tasks: Sequence[str] | None = None, workers: int = 1
) -> None:
    """Write the cases of the named tasks (None: all) below `root`, each file whole or not at all.

    workers: tasks that are written at once, each in a process.

    All cases are labelled; which are for training and which for test is decided by the splits. Surplus volumes of an
    earlier world, as its `phantom.json` lists them, are removed. Raises `InputError`, before anything is written, for
    an unknown task, fewer than one case, or a folder with volumes of unknown origin: they would pass for cases.
    """
    root = Path(root)
    chosen = task_names() if tasks is None else tuple(dict.fromkeys(tasks))
    if cases_per_task < 1 or not chosen:
        raise input_error(
            "phantom",
            found=f"{cases_per_task} cases of {len(chosen)} tasks",
            expected="at least 1 of each",
            fix="ask for more cases or tasks",
        )
    folders = {task: root / card_of(task)["folder"] for task in chosen}
    raise_problems(found for task in chosen for found in _strangers(folders[task], _case_ids(task, cases_per_task)))
    write = partial(_write_task, seed=seed, count=cases_per_task)
    for (task, folder), _ in zip(folders.items(), mapped(write, list(folders.items()), workers=workers), strict=True):
        log.info("%s: %d synthetic cases in %s", task, cases_per_task, folder)


def _generator(task: str, index: int) -> Callable[[np.random.Generator], Phantom]:
    name = task.removeprefix(PREFIX)
    if name in phantom_torso.VIEWS and name != "petct":
        return partial(phantom_torso.ct_phantom, name)
    with_lesions = index % EVERY_NTH_PET_WITHOUT_LESION != 0
    return {
        "petct": partial(phantom_torso.petct_phantom, lesions=with_lesions),
        "prostate": partial(phantom_mr.prostate_phantom, site=index),
        "brain": phantom_mr.brain_phantom,
        "schwannoma": phantom_mr.schwannoma_phantom,
    }[name]


def _case_ids(task: str, count: int) -> list[str]:
    return [f"{task.removeprefix(PREFIX)}_{index:03d}" for index in range(1, count + 1)]


def _write_task(task_and_folder: tuple[str, Path], *, seed: int, count: int) -> None:
    """Write one task; `dataset.json` comes last, as it expects the others."""
    task, folder = task_and_folder
    ids = _case_ids(task, count)
    for path in _volumes(folder):
        if path.name.removesuffix(SUFFIX) not in ids:
            path.unlink()
    hashes = {}
    for index, case in enumerate(ids, start=1):
        image, labels, affine = make_case(task, index, seed=seed)
        for name, array in ((f"imagesTr/{case}{SUFFIX}", image), (f"labelsTr/{case}{SUFFIX}", labels)):
            content = _nifti_bytes(array, affine)
            write_bytes(folder / name, content)
            hashes[name] = hashlib.sha256(content).hexdigest()
    libraries = {
        "segbench": __version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "nibabel": nib.__version__,
    }
    record = {"synthetic": True, "licence": LICENCE, "seed": seed, "versions": libraries, "sha256": hashes}
    write_json(folder / RECORD, record)
    write_json(folder / "dataset.json", _dataset_json(card_of(task), ids))


def _dataset_json(card: dict[str, Any], ids: Sequence[str]) -> dict[str, Any]:
    return {
        "name": card["folder"],
        "description": f"{card['title']}: generated phantom, no patient data",
        "licence": LICENCE,
        "tensorImageSize": "4D" if len(card["channels"]) > 1 else "3D",
        "modality": {str(i): channel["name"] for i, channel in enumerate(card["channels"])},
        "labels": {"0": "background", **card["classes"]},
        "numTraining": len(ids),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{case}{SUFFIX}", "label": f"./labelsTr/{case}{SUFFIX}"} for case in ids],
        "test": [],
    }


def _nifti_bytes(array: np.ndarray, affine: np.ndarray) -> bytes:
    """Return a gzipped NIfTI file without a time stamp, so that equal volumes are equal files."""
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=5, mtime=0)


def _volumes(folder: Path) -> list[Path]:
    return sorted(path for part in ("imagesTr", "labelsTr") for path in (folder / part).glob("[!.]*.nii*"))


def _strangers(folder: Path, ids: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for each volume in a task's folder that neither this world nor the one before it wrote."""
    try:
        known = dict(json.loads((folder / RECORD).read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: nothing says what was generated
        known = {}
    for path in _volumes(folder):
        if path.name.removesuffix(SUFFIX) not in ids and f"{path.parent.name}/{path.name}" not in known:
            expected = f"only generated cases, here {len(ids)}"
            yield Problem(str(path), "a volume that was not generated", expected, "move it, or write to another folder")
