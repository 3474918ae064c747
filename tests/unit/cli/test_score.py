"""The verb `score`: any label maps, every fault in one line, no partial table."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from segbench.cli import main
from segbench.core.vocabulary import SCORE_COLUMNS

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def save(path, data, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)


def cube(shift: int = 0) -> np.ndarray:
    data = np.zeros((12, 10, 8), dtype=np.uint8)
    data[2 + shift : 6 + shift, 3:7, 2:5] = 1
    data[7, 3:7, 2:5] = 2
    return data


@pytest.fixture
def folders(tmp_path):
    for case in ("a", "b", "c"):
        save(tmp_path / "reference" / f"{case}.nii.gz", cube())
    save(tmp_path / "prediction" / "a.nii.gz", cube())
    save(tmp_path / "prediction" / "b.nii.gz", cube(1))
    return tmp_path


def score(folder, *extra) -> int:
    return main(
        ["score", "--reference", str(folder / "reference"), "--prediction", str(folder / "prediction"),
         "--labels", "1=liver,2=tumour,organ=1+2", "--out", str(folder / "scores.csv"), *extra]
    )  # fmt: skip


def test_a_folder_is_scored_and_a_missing_prediction_counted(folders, capsys):
    assert score(folders) == 0
    assert "27 rows of 3 cases, 1 prediction(s) missing" in capsys.readouterr().out
    table = pd.read_csv(folders / "scores.csv", dtype={"case": str})
    assert tuple(table.columns) == SCORE_COLUMNS
    assert set(table[table.case == "c"].status) == {"prediction_missing"}
    perfect = table[(table.case == "a") & (table.metric == "dice")]
    assert (perfect.value == 1).all()


def test_dice_by_hand(folders):
    """b: 4x4x3 = 48 voxels each, shifted by one: 36 in common, Dice 72 / 96."""
    score(folders, "--metrics", "dice")
    table = pd.read_csv(folders / "scores.csv", dtype={"case": str}).set_index(["case", "structure"])
    assert table.loc[("b", "liver"), "value"] == pytest.approx(0.75)
    assert table.loc[("b", "liver"), "reference_volume_mm3"] == 48 * 6


def test_workers_and_engines_agree(folders):
    score(folders, "--metrics", "dice,hd95", "--workers", "2")
    ours = pd.read_csv(folders / "scores.csv")
    score(folders, "--metrics", "dice,hd95", "--engine", "medpy")
    theirs = pd.read_csv(folders / "scores.csv")
    pd.testing.assert_frame_equal(ours, theirs, check_dtype=False, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:-1], "shape (11, 10, 8)"),
        (lambda data: data * 0.5, "fractional values [0.5]"),
        (lambda data: data + 4, "labels [4, 5, 6]"),
        (lambda data: np.where(data > 0, np.nan, 0.0), "not finite"),
    ],
)
def test_a_faulty_prediction_is_one_line_and_no_table(folders, change, words, capsys):
    save(folders / "prediction" / "b.nii.gz", change(cube().astype(np.float32)))
    assert score(folders) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "; expected" in line]
    assert words in line
    assert "b.nii.gz" in line
    assert not (folders / "scores.csv").exists()


def test_another_affine_an_extra_file_and_a_damaged_file_are_refused(folders, capsys):
    save(folders / "prediction" / "b.nii.gz", cube(), AFFINE * [[1], [1], [2], [1]])
    assert score(folders) == 2
    assert "affine that differs" in capsys.readouterr().err
    save(folders / "prediction" / "d.nii.gz", cube())
    assert score(folders) == 2
    assert "a prediction without a reference" in capsys.readouterr().err
    (folders / "prediction" / "d.nii.gz").unlink()
    (folders / "prediction" / "b.nii.gz").write_bytes(b"rubbish")
    assert score(folders) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--metrics", "dise"], ["--lesion", "tumor"], ["--tolerance", "liver=wide"]])
def test_bad_options_are_refused(folders, options, capsys):
    assert score(folders, *options) == 2
    assert "; expected" in capsys.readouterr().err


def test_nominal_spacing_gives_no_millimetres(folders):
    score(folders, "--nominal-spacing", "--metrics", "dice,hd95")
    table = pd.read_csv(folders / "scores.csv", dtype={"case": str})
    assert set(table[(table.metric == "hd95") & (table.case == "a")].status) == {"not_defined"}
