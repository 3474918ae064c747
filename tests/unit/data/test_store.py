"""The store: content addresses, staleness, resuming, parallel preprocessing, patches."""

import os
import resource
import signal
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segbench.core import cards
from segbench.core.errors import InputError, is_machine_failure
from segbench.data import preprocess, store
from segbench.data.ingest import ingest
from segbench.data.preprocess import preprocess_task, store_folder
from segbench.data.preprocessing_recipes import PreprocessingRecipe
from segbench.data.sampling import read_patch
from segbench.data.store import open_case, write_case
from tests.unit.data.miniature import write_tree

NAME = "kits19"
RECIPE = PreprocessingRecipe("coarse", (6.0, 6.0, 6.0), clip_hu=(-325.0, 325.0))


@pytest.fixture
def world(tmp_path):
    """Five cases in their official layout, their card and task, and an empty store."""
    card = cards.dataset_cards()[NAME]
    write_tree(tmp_path / "raw", NAME, card)
    task = cards.task_from_card(NAME, card)
    return ingest(task, card, tmp_path / "raw"), task, card, tmp_path / "store"


def contents(folders: dict) -> dict:
    return {case: {path.name: path.read_bytes() for path in folder.iterdir()} for case, folder in folders.items()}


def test_two_workers_write_what_one_writes(world, tmp_path):
    cases, task, card, root = world
    one = preprocess_task(cases, task, card, RECIPE, store_root=root)
    two = preprocess_task(cases, task, card, RECIPE, store_root=tmp_path / "other", workers=2)
    assert list(one) == list(two) == [case.case_id for case in cases]
    assert contents(one) == contents(two)


def test_preprocessed_cases_are_kept_and_the_missing_one_is_made(world):
    cases, task, card, root = world
    folders = preprocess_task(cases, task, card, RECIPE, store_root=root)
    times = {case: folder.stat().st_mtime_ns for case, folder in folders.items()}
    lost = folders[cases[0].case_id]
    (lost / "meta.json").unlink()
    for path in lost.iterdir():
        path.unlink()
    lost.rmdir()
    assert preprocess_task(cases, task, card, RECIPE, store_root=root) == folders
    kept = {case for case, folder in folders.items() if folder.stat().st_mtime_ns == times[case]}
    assert kept == {case.case_id for case in cases[1:]}


def test_a_case_that_fails_leaves_nothing_half_written(world, monkeypatch):
    cases, task, card, root = world
    monkeypatch.setattr(store, "_foreground", lambda labels: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        preprocess_task(cases, task, card, RECIPE, store_root=root)
    assert list((root / RECIPE.name).iterdir()) == []


@pytest.mark.parametrize("fails", ["images.b2nd", "foreground.npy"])
def test_a_full_disk_is_a_failure_of_the_machine_and_leaves_nothing(tmp_path, fails):
    images_CZYX, labels_ZYX = np.zeros((1, 32, 32, 32), np.float32), np.ones((32, 32, 32), np.uint8)
    if fails == "images.b2nd":
        images_CZYX[:] = np.random.default_rng(0).normal(size=images_CZYX.shape)
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match="not written") as found:
            write_case(tmp_path / "case", images_CZYX, labels_ZYX, {"case_id": "a"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert is_machine_failure(found.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("side", ["image", "label"])
def test_a_file_that_changed_after_ingest_is_refused_with_all_its_like(world, side):
    cases, task, card, root = world
    for case in cases[1:3]:
        path = Path(case.image_paths[0] if side == "image" else case.label_path)
        image = nib.load(path)
        data = np.asarray(image.dataobj).copy()
        data[0, 0, 0] = 1 - data[0, 0, 0]
        nib.save(nib.Nifti1Image(data, image.affine), path)
    with pytest.raises(InputError) as caught:
        preprocess_task(cases, task, card, RECIPE, store_root=root)
    lines = [problem.line() for problem in caught.value.problems]
    assert len(lines) == 2
    assert "changed since ingest" in lines[0]
    assert f"{NAME}/{cases[1].case_id}" in lines[0]
    assert len(list((root / RECIPE.name).iterdir())) == 3  # the others are preprocessed


def test_a_file_that_is_gone_is_named(world):
    cases, task, card, root = world
    os.remove(cases[0].label_path)
    with pytest.raises(InputError, match="No such file"):
        preprocess_task(cases, task, card, RECIPE, store_root=root)


def test_the_address_depends_on_what_shapes_the_bytes_and_on_nothing_else(world, monkeypatch):
    cases, _, card, root = world
    case = cases[0]

    def address(case=case, card=card, recipe=RECIPE):
        return store_folder(case, card, recipe, store_root=root).name

    first = address()
    assert first == address(case=replace(case, patient_id="other"), card=card | {"licence": "other"})
    others = [
        address(case=replace(case, image_sha256="0")),
        address(case=replace(case, label_sha256="0")),
        address(case=replace(case, annotated=(1,))),
        address(card=card | {"merge": {2: 1}}),
        address(recipe=replace(RECIPE, image_order=1)),
    ]
    monkeypatch.setattr(preprocess, "code_digest", lambda *entries, without: "other code")
    others.append(address())
    assert len({first, *others}) == 7


def test_patches_inside_and_across_the_border(tmp_path):
    rng = np.random.default_rng(0)
    images_CZYX = rng.normal(size=(2, 20, 70, 33)).astype(np.float32)
    labels_ZYX = rng.integers(0, 3, images_CZYX.shape[1:]).astype(np.uint8)
    write_case(tmp_path / "case", images_CZYX, labels_ZYX, {"case_id": "case"})
    case = open_case(tmp_path / "case")
    assert case.shape_zyx == labels_ZYX.shape
    images, labels = read_patch(case, (3, 40, 0), (8, 30, 16))
    assert np.array_equal(images, images_CZYX[:, 3:11, 40:70, :16])
    assert np.array_equal(labels, labels_ZYX[3:11, 40:70, :16])
    images, labels = read_patch(case, (-4, 60, 10), (30, 20, 30))
    padded = np.pad(images_CZYX, [(0, 0), (4, 6), (0, 10), (0, 7)])
    assert np.array_equal(images, padded[:, :, 60:80, 10:40])
    assert np.array_equal(labels, np.pad(labels_ZYX, [(4, 6), (0, 10), (0, 7)])[:, 60:80, 10:40])


def test_many_open_cases_hold_few_files(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    cases = []
    for number in range(50):
        folder = tmp_path / str(number)
        write_case(folder, np.full((1, 8, 8, 8), number), np.zeros((8, 8, 8)), {"case_id": str(number)})
        cases.append(open_case(folder))
    for _ in range(2):
        assert [read_patch(case, (0, 0, 0), (4, 4, 4))[0].max() for case in cases] == list(range(50))
    assert len(os.listdir("/proc/self/fd")) <= before + store.OPEN_ARRAYS
