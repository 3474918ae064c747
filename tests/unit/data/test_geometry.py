"""A preprocessed label goes back to the native grid: exact affine and shape, no loss where the plan is not coarser."""

import itertools
import json

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from segbench.data.geometry import Geometry, write_prediction
from segbench.data.preprocessing_recipes import PreprocessingRecipe
from tests.paths import SHARED

REAL = SHARED / "realdata"
SHAPE = (14, 11, 9)


def labelled(shape=SHAPE) -> np.ndarray:
    """An asymmetric label, so that a wrong flip or axis is seen."""
    labels = np.zeros(shape, dtype=np.uint8)
    labels[2:7, 3:9, 1:5] = 1
    labels[5:11, 2:5, 4:8] = 2
    labels[12, 9, 7] = 3
    return labels


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def to_grid(images, labels, affine, recipe):
    """Return what `preprocess` stores of a case; the geometry has been through JSON, as in `meta.json`."""
    geometry = Geometry.of(images, affine, recipe)
    stored = Geometry.from_dict(json.loads(json.dumps(geometry.to_dict())))
    assert stored == geometry
    return geometry.to_grid(images, recipe), geometry.labels_to_grid(labels), stored


ORIENTATIONS = [
    np.array([[axis, flip] for axis, flip in zip(axes, flips, strict=True)])
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize("angle", [0.0, 0.3], ids=["straight", "oblique"])
@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda o: "".join(orientations.ornt2axcodes(o)))
def test_every_orientation_returns_exactly(orientation, angle):
    labels = labelled()
    oblique = nib.affines.from_matvec(nib.eulerangles.euler2mat(z=angle, x=angle / 2), (-12.5, 7.25, 100.125))
    affine = oblique @ np.diag([1.5, 2.0, 3.0, 1.0]) @ orientations.inv_ornt_aff(orientation, SHAPE)
    images, preprocessed, geometry = to_grid(
        labels[None].astype(np.float32), labels, affine, PreprocessingRecipe("native")
    )
    assert images.shape[1:] == preprocessed.shape
    assert np.array_equal(geometry.labels_to_native(preprocessed), labels)
    assert np.array_equal(geometry.affine, affine)


def test_an_oblique_affine_is_kept_exactly(tmp_path):
    angle = 0.3
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([1.1, 0.9, 2.5])
    affine[:3, 3] = (-12.5, 7.25, 100.125)
    labels = labelled()
    _, preprocessed, geometry = to_grid(labels[None].astype(np.float32), labels, affine, PreprocessingRecipe("native"))
    nib.save(nib.Nifti1Image(labels.astype(np.float32), affine), tmp_path / "image.nii.gz")
    write_prediction(tmp_path / "p.nii.gz", geometry.labels_to_native(preprocessed), like=tmp_path / "image.nii.gz")
    stored = nib.load(tmp_path / "p.nii.gz")
    assert np.allclose(stored.affine, affine, atol=1e-6)
    assert np.array_equal(np.asarray(stored.dataobj), labels)


def test_labels_restore_exactly_where_the_plan_is_finer():
    labels = labelled()
    recipe = PreprocessingRecipe("finer", spacing_mm_zyx=(1.5, 1.0, 0.75), crop_to_nonzero=False)
    _, preprocessed, geometry = to_grid(labels[None].astype(np.float32), labels, np.diag([1.5, 2.0, 3.0, 1.0]), recipe)
    assert np.array_equal(geometry.labels_to_native(preprocessed), labels)


def test_a_coarser_plan_loses_something_and_keeps_the_position():
    labels = labelled()
    recipe = PreprocessingRecipe("coarser", spacing_mm_zyx=(6.0, 4.0, 3.0), crop_to_nonzero=False)
    _, preprocessed, geometry = to_grid(labels[None].astype(np.float32), labels, np.diag([1.5, 2.0, 3.0, 1.0]), recipe)
    assert preprocessed.size < labels.size
    assert 0.5 < dice(geometry.labels_to_native(preprocessed) == 1, labels == 1) < 1


def test_a_crop_comes_back_at_its_position():
    labels = labelled()
    images = np.where(labels > 0, 100.0, 0.0)[None].astype(np.float32)
    _, preprocessed, geometry = to_grid(images, labels, np.diag([2.0, 2.0, 2.0, 1.0]), PreprocessingRecipe("native"))
    assert preprocessed.size < labels.size
    assert np.array_equal(geometry.labels_to_native(preprocessed), labels)


@pytest.mark.parametrize("task", ["Task04_Hippocampus", "STS_MR_T1", "SpinalCord_SCT", "OpenKBP_HeadNeckCT"])
def test_real_labels_survive_a_plan_no_coarser_than_native(task):
    folder = REAL / task / "labelsTr"
    if not folder.exists():
        pytest.skip("the real volumes are not beside this checkout")
    for path in sorted(folder.glob("*.nii*"))[:6]:
        image = nib.load(path)
        labels = np.asarray(image.dataobj).astype(np.uint8)
        spacing = np.array(nib.affines.voxel_sizes(image.affine))
        ras = np.argsort(orientations.io_orientation(image.affine)[:, 0])
        recipe = PreprocessingRecipe("finer", spacing_mm_zyx=tuple(spacing[ras][::-1] * 0.8), crop_to_nonzero=False)
        _, preprocessed, geometry = to_grid(labels[None].astype(np.float32), labels, image.affine, recipe)
        restored = geometry.labels_to_native(preprocessed)
        for value in np.unique(labels[labels > 0]):
            if (labels == value).sum() > 500:
                assert dice(restored == value, labels == value) >= 0.97, (path.name, value)


def test_a_coarse_recipe_costs_the_hippocampus_an_eighth():
    """The ceiling that the oracle shows at 3x1.5x1.5 mm; measured as 0.878 on 40 cases."""
    folder = REAL / "Task04_Hippocampus" / "labelsTr"
    if not folder.exists():
        pytest.skip("the real volumes are not beside this checkout")
    found = []
    for path in sorted(folder.glob("*.nii*"))[::26]:
        image = nib.load(path)
        labels = np.asarray(image.dataobj).astype(np.uint8)
        recipe = PreprocessingRecipe("coarse", spacing_mm_zyx=(3.0, 1.5, 1.5), crop_to_nonzero=False)
        _, preprocessed, geometry = to_grid(labels[None].astype(np.float32), labels, image.affine, recipe)
        restored = geometry.labels_to_native(preprocessed)
        found += [dice(restored == value, labels == value) for value in (1, 2)]
    assert len(found) == 20
    assert 0.86 < np.mean(found) < 0.90
