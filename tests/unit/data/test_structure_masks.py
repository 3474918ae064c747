"""A mask per structure becomes a label map per case; what is missing was not looked for."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segbench.cli import main
from segbench.core.errors import InputError
from segbench.data.layouts import table
from segbench.data.structure_masks import merge_folder

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
IMAGES, STRUCTURES = {"CT": "ct.nii.gz"}, ("liver", "tumour")
CARD = {"channels": [{"name": "CT"}], "classes": {"1": "liver", "2": "tumour"}, "obtain": "make it"}


def write(path: Path, values_XYZ: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values_XYZ, affine), path)


def block(first: int, last: int, value: int = 1) -> np.ndarray:
    mask_XYZ = np.zeros((6, 7, 8), np.uint8)
    mask_XYZ[first:last] = value
    return mask_XYZ


@pytest.fixture
def folder(tmp_path) -> Path:
    """s1 with both masks, which share two planes; s2 without a tumour mask; s3 with an empty one."""
    for case in ("s1", "s2", "s3"):
        write(tmp_path / case / "ct.nii.gz", np.zeros((6, 7, 8), np.int16))
        write(tmp_path / case / "masks" / "liver.nii.gz", block(0, 4, 255))
        write(tmp_path / case / "masks" / "spleen.nii.gz", block(5, 6))
    write(tmp_path / "s1" / "masks" / "tumour.nii", block(2, 5))
    write(tmp_path / "s3" / "masks" / "tumour.nii.gz", block(0, 0))
    (tmp_path / "notes").mkdir()
    return tmp_path


def merged(folder: Path):
    return merge_folder(folder, images=IMAGES, masks="masks", structures=STRUCTURES)


def test_masks_are_merged_in_order_and_read_as_the_layout_table(folder):
    done = merged(folder)
    assert (done.cases, dict(done.shared_voxels)) == (3, {"s1": 2 * 7 * 8})
    cases = {case.case_id: case for case in table(folder, CARD)}
    assert {name: case.annotated for name, case in cases.items()} == {"s1": None, "s2": (1,), "s3": None}
    assert cases["s1"].image_paths == (folder / "s1" / "ct.nii.gz",)
    labels = nib.load(cases["s1"].label_path)
    assert np.array_equal(labels.affine, AFFINE)
    assert np.asarray(labels.dataobj)[:, 0, 0].tolist() == [1, 1, 2, 2, 2, 0]
    assert np.unique(nib.load(cases["s3"].label_path).dataobj).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: write(folder / "s2/masks/tumour.nii.gz", np.zeros((6, 7, 9), np.uint8)), r"tumour.*shape"),
        (lambda folder: write(folder / "s2/masks/tumour.nii.gz", block(0, 2), np.eye(4)), "an affine that differs"),
        (lambda folder: write(folder / "s2/masks/tumour.nii.gz", block(0, 2) + block(1, 3)), "values 0, 1, 2"),
        (lambda folder: write(folder / "s2/masks/tumour.nii.gz", block(0, 2) * np.float32("nan")), "values"),
        (lambda folder: write(folder / "s2/masks/tumour.nii.gz", block(0, 2) * np.float32(0.5)), "values 0, 0.5"),
        (lambda folder: write(folder / "s2/masks/liver.nii", block(0, 2)), "liver.nii, liver.nii.gz"),
        (lambda folder: (folder / "s2/masks/liver.nii.gz").write_bytes(b"no image"), "liver.nii.gz"),
        (lambda folder: (folder / "s2/masks/liver.nii.gz").unlink(), "s2/masks: found no mask of a structure"),
        (lambda folder: (folder / "s2/masks/liver.nii.gz").rename(folder / "s2/masks/Liver.nii.gz"), "spelling"),
        (lambda folder: (folder / "s2/ct.nii.gz").rename(folder / "s2/CT.nii.gz"), r"s2/ct.nii.gz: found no file"),
        (lambda folder: (folder / "cases.csv").touch(), "move both away"),
        (lambda folder: [path.unlink() for path in folder.glob("*/ct.nii.gz")], "no subfolder with ct.nii.gz"),
    ],
)
def test_what_cannot_be_merged_is_named_and_nothing_is_written(folder, damage, message):
    damage(folder)
    with pytest.raises(InputError, match=message):
        merged(folder)
    assert not (folder / "labels").exists()


def test_the_command_says_what_it_wrote(folder, capsys):
    options = ["--image", "CT=ct.nii.gz", "--masks", "masks"]
    assert main(["merge-masks", str(folder), *options, "--structures", "liver, tumour"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "s1: 112 voxel(s) in several masks; the last of --structures counts",
        "tumour: a mask in 2 of 3 case(s); in the others nobody looked for it",
        f"3 case(s) merged into {folder / 'labels'} and {folder / 'cases.csv'}",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "ct.nii.gz", "--structures", "liver"], "--image: found 'ct.nii.gz'"),
        (["--image", "CT=a", "--image", "CT=b", "--structures", "liver"], "--image: found CT, CT"),
        (["--image", "CT=ct.nii.gz", "--structures", "liver,liver"], "--structures: found liver, liver"),
        (["--image", "CT=ct.nii.gz", "--structures", "liver,"], "--structures: found liver, "),
    ],
)
def test_wrong_options_are_refused(folder, options, message, capsys):
    assert main(["merge-masks", str(folder), *options]) == 2
    assert message in capsys.readouterr().err
