"""Intensities of the training cases: nnU-Net's statistics, never of test cases, and what folds share."""

import dataclasses

import numpy as np
import pytest

from segbench.core.case import CaseFiles
from segbench.core.errors import InputError
from segbench.core.task import Channel, Structure, Task
from segbench.data.ingest import manifest_row
from segbench.data.intensities import with_intensities
from segbench.data.preprocess import preprocess_folds
from segbench.data.preprocessing_recipes import Intensities, PreprocessingRecipe
from segbench.data.sampling import PatchSampler
from segbench.data.store import open_case
from segbench.data.transforms import Augmentation
from segbench.experiment.preprocessed_index import read_index
from tests.unit.written_run import write_map

SHAPE = (16, 15, 14)
CARD = {"merge": {3: 0}, "classes": {"1": "x", "2": "y"}, "channels": [{"name": "CT", "modality": "CT"}]}
RECIPE = PreprocessingRecipe("default")


def task(*modalities):
    channels = tuple(Channel(name, name) for name in modalities)
    return Task("t", "T", channels, ("x", "y"), (Structure("x", (1,), 1.0),))


def write_cases(folder, *, level=lambda number: 100.0 * number, border=0):
    """Five cases; foreground is a block of classes 1 and 2 of one mean each, and a value that is merged away."""
    found = []
    for number, name in enumerate("abcde"):
        rng = np.random.default_rng(number)
        image = rng.normal(-500, 20, SHAPE)
        labels = np.zeros(SHAPE, np.uint8)
        labels[4:8, 4:11, 4:10], labels[8:12, 4:11, 4:10] = 1, 2
        image[labels > 0] = rng.normal(level(number), 10, int((labels > 0).sum()))
        labels[0:2, 5:9, 5:9], image[0:2, 5:9, 5:9] = 3, 9000
        image = np.pad(image[border : 16 - border], [(border, border), (0, 0), (0, 0)]) if border else image
        path = write_map(folder / f"{name}.nii.gz", image.astype(np.float32), (1, 1, 1))
        label = write_map(folder / "labels" / f"{name}.nii.gz", labels, (1, 1, 1))
        found.append(manifest_row("t", CaseFiles(name, name, (path,), label)))
    return found


def test_statistics_are_of_the_foreground_of_the_training_cases(tmp_path):
    cases = write_cases(tmp_path)
    found = with_intensities(RECIPE, cases, task("CT"), CARD, sides={0: ["b", "c"], 1: ["d"]})
    low, high, mean, deviation = found[0].training.foreground[0]
    assert mean == pytest.approx(150, abs=2)  # cases of 100 and 200, each counted alike
    assert deviation == pytest.approx(np.hypot(50, 10), abs=2)
    assert (low, high) == pytest.approx((100 - 23, 200 + 23), abs=6)  # 1 % of each half lies beyond 2.33 deviations
    assert found[1].training.foreground[0][2] == pytest.approx(300, abs=2)


def test_test_cases_are_not_opened(tmp_path):
    cases = write_cases(tmp_path)
    (tmp_path / "a.nii.gz").write_bytes(b"must not be opened")
    assert with_intensities(RECIPE, cases, task("CT"), CARD, sides={0: ["b", "c"]})[0].training
    with pytest.raises(InputError, match="changed since ingest"):
        with_intensities(RECIPE, cases, task("CT"), CARD, sides={0: ["a", "c"]})


def test_a_recipe_with_a_window_reads_nothing(tmp_path):
    cases = write_cases(tmp_path)
    for path in tmp_path.glob("*.nii.gz"):
        path.unlink()
    window = dataclasses.replace(RECIPE, clip_hu=(0.0, 1.0))
    assert with_intensities(window, cases, task("CT"), CARD, sides={0: ["b"]}) == {0: window}


def test_ct_without_foreground_in_training_is_named(tmp_path):
    cases = write_cases(tmp_path)
    card = CARD | {"merge": {1: 0, 2: 0, 3: 0}}
    with pytest.raises(InputError, match="no foreground voxel in the training cases"):
        with_intensities(RECIPE, cases, task("CT"), card, sides={0: ["b"]})


@pytest.mark.parametrize(("border", "masked"), [(0, False), (1, False), (3, True)])
def test_the_mask_follows_the_fraction_that_the_crop_leaves(tmp_path, border, masked):
    """Of 16 slices 14 are 0.88 and 10 are 0.63 of the volume; the rule is below 3/4."""
    cases = write_cases(tmp_path, border=border)
    found = with_intensities(RECIPE, cases, task("MR"), CARD, sides={0: ["b", "c"]})[0]
    assert found.training == Intensities((None,), masked)
    whole = dataclasses.replace(RECIPE, crop_to_nonzero=False)
    assert with_intensities(whole, cases, task("MR"), CARD, sides={0: ["b"]}) == {0: whole}


def test_folds_share_cases_unless_their_intensities_differ(tmp_path):
    cases = write_cases(tmp_path)
    sides = {0: ["a", "b"], 1: ["c", "d"], 2: ["a", "b"]}
    store = tmp_path / "store"
    index = preprocess_folds(cases, task("CT"), CARD, RECIPE, sides=sides, store_root=store)
    assert set(index.other_folds) == {1}
    index.write(tmp_path / "index.json")
    found = read_index(tmp_path / "index.json")
    assert [found.of(fold).folder("e") for fold in (0, 1, 2)] == [index.of(fold).folder("e") for fold in (0, 1, 2)]
    assert Intensities.from_dict(found.of(1).intensities) == Intensities.from_dict(index.of(1).intensities)
    assert index.of(2).folders == index.folders
    assert len(list((store / "default").iterdir())) == 10
    first, second = (open_case(index.of(fold).folder("e")).images[:] for fold in (0, 1))
    one, two = (index.of(fold).intensities["foreground"][0] for fold in (0, 1))
    back = np.clip(second * two[3] + two[2], *one[:2])
    assert np.abs(np.clip(first * one[3] + one[2], *two[:2]) - np.clip(back, *two[:2])).max() < 0.1
    brain = preprocess_folds(cases, task("MR"), CARD, RECIPE, sides=sides, store_root=tmp_path / "other")
    assert not brain.other_folds


def test_a_masked_case_is_zero_outside_its_mask_after_every_step(tmp_path):
    """A ball in a large empty volume: noise, gamma and contrast leave the outside at zero."""
    grid = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij")) - 11.5
    ball = (grid**2).sum(0) < 64
    cases = []
    for name in "ab":
        image = np.where(ball, np.random.default_rng(1).normal(300, 40, ball.shape), 0).astype(np.float32)
        path = write_map(tmp_path / f"{name}.nii.gz", image, (1, 1, 1))
        label = write_map(tmp_path / "labels" / f"{name}.nii.gz", (ball & (grid[0] > 4)).astype(np.uint8), (1, 1, 1))
        cases.append(manifest_row("t", CaseFiles(name, name, (path,), label)))
    brain = task("MR")
    index = preprocess_folds(cases, brain, CARD, RECIPE, sides={0: ["a"]}, store_root=tmp_path / "store")
    case = open_case(index.folder("a"))
    assert case.masked_channels == [0]
    inside = case.images[0][case.images[0] != 0]
    assert abs(inside.mean()) < 1e-3
    assert abs(inside.std() - 1) < 1e-3
    size = (16, 16, 16)
    for labelled in (brain, None):
        sampler = PatchSampler(
            [case],
            labelled,
            patch_size_zyx=size,
            augmentation=Augmentation(size, level="full"),
            foreground_fraction=0.5,
        )
        rng = np.random.default_rng(0)
        for batch in (sampler.sample(rng, 2) for _ in range(40)):
            assert int(batch.labels.max()) <= 1
            assert 0.1 < (batch.images == 0).float().mean() < 0.9
