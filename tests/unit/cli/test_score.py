"""The command `score`: any label maps, every problem in one line, no partial table."""

import unicodedata

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK

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
        [
            "score",
            "--reference",
            str(folder / "reference"),
            "--prediction",
            str(folder / "prediction"),
            "--labels",
            "1=liver,2=tumour,organ=1+2",
            "--out",
            str(folder / "scores.csv"),
            *extra,
        ]
    )


@pytest.mark.parametrize(
    ("out", "words"), [("reference/a.nii.gz/scores.csv", "which is no folder"), ("n" * 300, "File name too long")]
)
def test_a_table_that_cannot_be_written_is_one_line_before_any_case(out, words, folders, capsys):
    assert score(folders, "--out", str(folders / out)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_name_in_another_unicode_form_is_the_same_name(folders, capsys):
    for side, form in (("reference", "NFC"), ("prediction", "NFD")):
        save(folders / side / f"{unicodedata.normalize(form, 'Fäll')}.nii.gz", cube())
    assert score(folders) == 0
    assert "of 4 cases, 1 prediction(s) missing" in capsys.readouterr().out


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
def test_a_wrong_prediction_is_one_line_and_no_table(folders, change, words, capsys):
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


def problems(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if "; expected" in line]


def test_names_below_a_folder_with_spaces_and_either_suffix(tmp_path, capsys):
    save(tmp_path / "reference" / "site 1" / "a b.nii.gz", cube())
    save(tmp_path / "prediction" / "site 1" / "a b.nii", cube().astype(np.float64))
    (tmp_path / "prediction" / "._a.nii.gz").write_bytes(b"left by a file manager")
    (tmp_path / "prediction" / "plan.json").write_text("{}")
    assert score(tmp_path, "--metrics", "dice") == 0
    table = pd.read_csv(tmp_path / "scores.csv")
    assert set(table.case) == {"site 1/a b"}
    assert (table.value == 1).all()


def test_a_case_stored_twice_is_refused(folders, capsys):
    save(folders / "prediction" / "a.nii", cube())
    assert score(folders) == 2
    (line,) = problems(capsys)
    assert "a.nii and a.nii.gz; expected one file per case" in line


def test_every_wrong_file_has_its_line_and_there_is_no_table(folders, capsys):
    save(folders / "reference" / "a.nii.gz", cube() + 6)
    save(folders / "prediction" / "a.nii.gz", cube() * np.float32(0.3))
    save(folders / "prediction" / "b.nii.gz", cube()[..., None])
    save(folders / "prediction" / "c.nii.gz", np.full((12, 10, 8), np.inf, np.float32))
    assert score(folders, "--workers", "2") == 2
    lines = problems(capsys)
    assert len(lines) == 3
    for line, words in zip(lines, ("[6, 7, 8]", "fractional", "not finite"), strict=True):
        assert words in line
    assert not (folders / "scores.csv").exists()


def test_another_orientation_of_the_same_space_is_refused(folders, capsys):
    flipped = AFFINE @ np.array([[-1, 0, 0, 11], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    save(folders / "prediction" / "a.nii.gz", cube()[::-1], flipped)
    assert score(folders) == 2
    (line,) = problems(capsys)
    assert "orientation LAS" in line
    assert "expected RAS" in line


@pytest.mark.parametrize(("scale", "status"), [(1.0, 0), (0.01, 0)])
def test_the_grid_tolerance_is_a_fraction_of_the_voxel(folders, scale, status, capsys):
    """A shift of 4 % of a voxel side passes, one of 6 % does not, whatever the size of the voxels (smallest 1 mm)."""
    affine = AFFINE * scale
    affine[3, 3] = 1
    for case in ("a", "b", "c"):
        save(folders / "reference" / f"{case}.nii.gz", cube(), affine)
        save(folders / "prediction" / f"{case}.nii.gz", cube(), affine)
    moved = affine.copy()
    moved[0, 3] += 0.04 * scale
    save(folders / "prediction" / "a.nii.gz", cube(), moved)
    assert score(folders, "--metrics", "dice") == status
    moved[0, 3] += 0.02 * scale
    save(folders / "prediction" / "a.nii.gz", cube(), moved)
    assert score(folders, "--metrics", "dice") == 2
    assert "affine that differs" in capsys.readouterr().err


def test_a_slightly_wrong_voxel_size_adds_up_over_the_volume(tmp_path):
    data = np.zeros((300, 4, 4), np.uint8)
    data[:, 1:3, 1:3] = 1
    save(tmp_path / "r.nii.gz", data, np.diag([1.0, 1, 1, 1]))
    save(tmp_path / "p.nii.gz", data, np.diag([1.001, 1, 1, 1]))
    assert (
        main(
            [
                "score",
                "--reference",
                str(tmp_path / "r.nii.gz"),
                "--prediction",
                str(tmp_path / "p.nii.gz"),
                "--labels",
                "1=x",
                "--out",
                str(tmp_path / "s.csv"),
            ]
        )
        == 2
    )


def test_two_files_into_a_new_folder(folders, capsys):
    out = folders / "new folder" / "deeper" / "scores.csv"
    files = ["--reference", str(folders / "reference" / "a.nii.gz"), "--prediction"]
    assert (
        main(
            [
                "score",
                *files,
                str(folders / "prediction" / "b.nii.gz"),
                "--labels",
                "1=liver,7=spleen",
                "--ignore-labels",
                "2",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    assert "note: spleen (7) occurs in no file" in capsys.readouterr().out
    assert set(pd.read_csv(out).query("structure == 'spleen'").status) == {"both_empty"}
    assert main(["score", *files, str(folders / "typing error.nii.gz"), "--labels", "1=liver", "--out", str(out)]) == 2
    assert main(["score", *files, str(folders / "prediction"), "--labels", "1=liver", "--out", str(out)]) == 2
    assert (
        main(
            [
                "score",
                *files,
                str(folders / "prediction" / "a.nii.gz"),
                "--labels",
                "1=liver,2=t",
                "--out",
                str(folders),
            ]
        )
        == 2
    )
    assert len(problems(capsys)) == 3


def test_an_empty_folder_is_refused(folders, capsys):
    (folders / "none").mkdir()
    arguments = ["--labels", "1=liver", "--out", str(folders / "scores.csv")]
    assert (
        main(["score", "--reference", str(folders / "reference"), "--prediction", str(folders / "none"), *arguments])
        == 2
    )
    assert (
        main(["score", "--reference", str(folders / "none"), "--prediction", str(folders / "prediction"), *arguments])
        == 2
    )
    assert all("no label map" in line or "without a reference" in line for line in problems(capsys))


def test_a_cut_file_a_sheared_and_an_impossible_grid(folders, capsys):
    whole = (folders / "prediction" / "a.nii.gz").read_bytes()
    (folders / "prediction" / "a.nii.gz").write_bytes(whole[: len(whole) // 2])
    save(folders / "prediction" / "b.nii.gz", cube(), AFFINE + np.eye(4)[[1, 0, 2, 3]] * [[0.5], [0], [0], [0]])
    colours = np.zeros((12, 10, 8), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    save(folders / "prediction" / "c.nii.gz", colours)
    assert score(folders) == 2
    lines = problems(capsys)
    assert len(lines) == 3
    for line, words in zip(lines, ("cannot be read", "right angles", "values of type"), strict=True):
        assert words in line


@pytest.mark.parametrize(
    "options",
    [
        ["--tolerance", "liver=-1"],
        ["--tolerance", "liver=nan"],
        ["--tolerance", "liver=inf"],
        ["--tolerance", "liver=1", "--tolerance", "liver=2"],
        ["--workers", "0"],
        ["--ignore-labels", "x"],
        ["--metrics", "dice,"],
        ["--metrics", "nsd", "--engine", "medpy"],
        ["--labels", "0=background,1=liver,2=t"],
        ["--labels", "1=a,2=a"],
        ["--labels", "²=liver"],
        ["--labels", "99999999999=liver"],
        ["--labels", "liver"],
        ["--labels", ""],
        ["--labels", "organ=1+"],
        ["--model", ""],
        ["--task", "  "],
        ["--other-labels", "1"],
        ["--patient", "("],
    ],
)
def test_wrong_options_are_one_line_each(folders, options, capsys):
    assert score(folders, *options) == 2
    assert len(problems(capsys)) == 1
    assert not (folders / "scores.csv").exists()


def test_labels_may_be_written_in_any_way(folders):
    assert (
        score(folders, "--labels", " 1 = liver , organ = 1 + 2,tumour=2", "--metrics", "dice, dice", "--workers", "9")
        == 0
    )
    table = pd.read_csv(folders / "scores.csv")
    assert len(table) == 9
    assert set(table.structure) == {"liver", "organ", "tumour"}


def test_medpy_is_asked_only_for_what_it_has(folders):
    score(folders, "--engine", "medpy", "--metrics", "all")
    theirs = pd.read_csv(folders / "scores.csv")
    assert set(theirs.metric) == {"dice", "iou", "hd95", "hd", "assd"}
    score(folders, "--metrics", "dice,iou,hd95,hd,assd")
    pd.testing.assert_frame_equal(pd.read_csv(folders / "scores.csv"), theirs, rtol=1e-6)


def test_a_patient_of_several_files_is_asked_for_where_names_do_not_tell(tmp_path, capsys):
    for name in ("site_1/a", "site_1/b", "site_2/c", "site_2/d"):
        save(tmp_path / "reference" / f"{name}.nii.gz", cube())
        save(tmp_path / "prediction" / f"{name}.nii.gz", cube())
    assert score(tmp_path, "--metrics", "dice") == 2
    assert "add `--patient folder`" in capsys.readouterr().err
    for patient, number in (("file", 4), ("folder", 2)):
        assert score(tmp_path, "--metrics", "dice", "--patient", patient) == 0
        assert pd.read_csv(tmp_path / "scores.csv").patient.nunique() == number


def test_another_label_is_background_and_an_ignored_one_is_nothing(tmp_path):
    """8 of 16 voxels of the prediction lie where the reference has the value 5."""
    reference, prediction = np.zeros((6, 6, 4), np.uint8), np.zeros((6, 6, 4), np.uint8)
    reference[1:3, 1:3, 1:3], prediction[1:5, 1:3, 1:3] = 1, 1
    reference[3:5] = 5
    save(tmp_path / "reference" / "a.nii.gz", reference)
    save(tmp_path / "prediction" / "a.nii.gz", prediction)
    for option, dice in (("--other-labels", 16 / 24), ("--ignore-labels", 1.0)):
        assert score(tmp_path, "--labels", "1=liver", "--metrics", "dice", option, "5") == 0
        (found,) = pd.read_csv(tmp_path / "scores.csv").value
        assert found == pytest.approx(dice)
    assert score(tmp_path, "--labels", "1=liver", "--ignore-labels", "1,5") == 2


def test_a_prediction_under_another_spelling_gets_the_name_of_its_reference(folders, capsys):
    (folders / "prediction" / "a.nii.gz").rename(folders / "prediction" / "A_0000.nii.gz")
    assert score(folders) == 2
    (line,) = problems(capsys)
    assert "expected the name a, as its reference; rename it" in line


def test_nrrd_predictions_are_scored_against_nifti(folders):
    image = SimpleITK.ReadImage(str(folders / "prediction" / "b.nii.gz"))
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    SimpleITK.WriteImage(image, str(folders / "prediction" / "b.nrrd"))
    (folders / "prediction" / "b.nii.gz").unlink()
    assert score(folders, "--metrics", "dice") == 0
    table = pd.read_csv(folders / "scores.csv", dtype={"case": str}).set_index(["case", "structure"])
    assert table.loc[("b", "liver"), "value"] == pytest.approx(0.75)


def tree(folder, names, *extra) -> int:
    """Score label maps in folders."""
    for name in names:
        save(folder / "reference" / f"{name}.nii.gz", cube())
        save(folder / "prediction" / f"{name}.nii.gz", cube(1))
    return score(folder, "--metrics", "dice", *extra)


ORGANS = ["liver", "spleen"]
LAYOUTS = {
    "a folder per subject": ([f"s{k}/{organ}" for k in (1, 2) for organ in ORGANS], ["s1", "s2"]),
    "segmentations below each subject": ([f"s{k}/seg/{organ}" for k in (1, 2) for organ in ORGANS], 2),
    "a structure that one subject lacks": (["s1/liver", "s1/spleen", "s2/liver"], ["s1", "s2"]),
    "one file per folder": (["s1/seg", "s2/seg"], ["s1/seg", "s2/seg"]),
    "files alone": (["p1", "p2"], ["p1", "p2"]),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_patients_are_counted_by_what_folders_hold(kind, tmp_path):
    names, patients = LAYOUTS[kind]
    assert tree(tmp_path, names) == 0
    found = sorted(set(pd.read_csv(tmp_path / "scores.csv").patient))
    assert (len(found) if isinstance(patients, int) else found) == patients


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (["siteA/p1", "siteA/p2", "siteB/p3", "siteB/p4"], {"file": 4, "folder": 2, "top-folder": 2}),
        (["s1/t0/seg", "s1/t1/seg", "s2/t0/seg"], {"file": 3, "folder": 3, "top-folder": 2}),
        (["sub-1/ses-1/sub-1_seg", "sub-1/ses-2/sub-1_seg"], {"file": 2, "folder": 2, "top-folder": 1}),
        (["siteA/p1/liver", "siteA/p1/spleen", "siteA/p2/liver"], {"file": 3, "folder": 2, "top-folder": 1}),
    ],
)
def test_who_is_a_patient_is_asked_where_names_do_not_say_it(names, counts, tmp_path, capsys):
    assert tree(tmp_path, names) == 2
    error = capsys.readouterr().err
    assert "to know what one patient is" in error
    for way, count in counts.items():
        assert f"--patient {way}" in error or way == "top-folder"
        assert tree(tmp_path, names, "--patient", way) == 0
        assert pd.read_csv(tmp_path / "scores.csv").patient.nunique() == count


def test_time_points_of_one_subject_are_one_patient_with_structures_from_files(tmp_path):
    for name in ("s1/t0/liver", "s1/t1/liver", "s2/t0/liver"):
        save(tmp_path / "reference" / f"{name}.nii.gz", (cube() > 0).astype(np.uint8))
        save(tmp_path / "prediction" / f"{name}.nii.gz", (cube(1) > 0).astype(np.uint8))
    assert score(tmp_path, "--labels", "", "--structures-from-files", "--metrics", "dice") == 0
    table = pd.read_csv(tmp_path / "scores.csv")
    assert sorted(set(table.case)) == ["s1/t0", "s1/t1", "s2/t0"]
    assert sorted(set(table.patient)) == ["s1", "s2"]


@pytest.mark.parametrize("value", [-1, 3, 255, 65535])
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_ignored_voxels_count_nowhere_whatever_their_value(value, dtype, tmp_path):
    reference, prediction = cube().astype(dtype), cube().astype(dtype)
    reference[9:], prediction[9:] = value, 1
    save(tmp_path / "reference" / "a.nii.gz", reference)
    save(tmp_path / "prediction" / "a.nii.gz", prediction)
    assert score(tmp_path, f"--ignore-labels={value}", "--metrics", "dice,hd95,volume_error_ml") == 0
    table = pd.read_csv(tmp_path / "scores.csv")
    assert set(table[table.metric == "dice"].value) == {1}
    assert set(table[table.metric != "dice"].value) == {0}


def test_what_the_prediction_says_of_ignored_voxels_does_not_matter(tmp_path):
    reference = cube()
    reference[9:] = 9
    for number, said in enumerate((0, 1, 2, 9)):
        prediction = cube()
        prediction[9:] = said
        save(tmp_path / "reference" / f"{number}.nii.gz", reference)
        save(tmp_path / "prediction" / f"{number}.nii.gz", prediction)
    assert score(tmp_path, "--ignore-labels", "9", "--metrics", "dice,hd95") == 0
    table = pd.read_csv(tmp_path / "scores.csv")
    assert set(table[table.metric == "dice"].value) == {1}
    assert set(table[table.metric == "hd95"].value) == {0}


def test_values_to_ignore_are_whole_numbers(folders, capsys):
    assert score(folders, "--ignore-labels", "ignore") == 2
    assert "write the values, comma-separated" in capsys.readouterr().err


@pytest.mark.parametrize(("unit", "factor"), [("unknown", 1), ("mm", 1), ("micron", 1000), ("meter", 0.001)])
def test_distances_are_millimetres_whatever_the_unit(unit, factor, tmp_path):
    for side, data in (("reference", cube()), ("prediction", cube(1))):
        image = nib.Nifti1Image(data, np.diag([*(np.array([1.0, 2, 3]) * factor), 1]))
        image.header.set_xyzt_units(unit, "sec")
        (tmp_path / side).mkdir()
        nib.save(image, tmp_path / side / "a.nii.gz")
    assert score(tmp_path, "--metrics", "hd95_max,volume_error_ml", "--labels", "1=liver", "--other-labels", "2") == 0
    table = pd.read_csv(tmp_path / "scores.csv").set_index("metric")
    assert table.value["hd95_max"] == pytest.approx(1, rel=1e-5)
    assert table.reference_volume_mm3["hd95_max"] == pytest.approx(4 * 4 * 3 * 6, rel=1e-5)


def test_a_segmentation_of_slicer_belongs_to_its_nifti(tmp_path):
    save(tmp_path / "reference" / "a.nii.gz", cube(), np.diag([-1.0, -2, 3, 1]))
    image = SimpleITK.GetImageFromArray(cube().T.copy())
    image.SetSpacing((1, 2, 3))
    (tmp_path / "prediction").mkdir()
    SimpleITK.WriteImage(image, str(tmp_path / "prediction" / "a.seg.nrrd"))
    assert score(tmp_path, "--metrics", "dice") == 0
    assert set(pd.read_csv(tmp_path / "scores.csv").value) == {1}


def test_masks_of_0_and_255_are_scored_by_the_names_of_their_files(tmp_path, capsys):
    for name in ("s1/liver", "s2/liver", "s1/spleen", "s2/spleen"):
        mask = (cube() > 0).astype(np.uint8)
        save(tmp_path / "reference" / f"{name}.nii.gz", mask * 255)
        save(tmp_path / "prediction" / f"{name}.nii.gz", mask if name == "s1/liver" else mask * 255)
    options = ["--labels", "", "--structures-from-files", "--metrics", "dice"]
    assert score(tmp_path, *options) == 0
    assert "masks with the value 255 are read as masks with the value 1, in 4 of 4" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "scores.csv")
    assert set(table.value) == {1}
    assert (table.reference_volume_mm3 == (4 * 4 * 3 + 4 * 3) * 6).all()
    save(tmp_path / "reference" / "s1" / "liver.nii.gz", cube())
    assert score(tmp_path, *options) == 2
    (line,) = problems(capsys)
    assert "labels [1, 2]; expected 0 and one other value, the structure; write a file per structure" in line
    assert "--labels" not in line
    assert score(tmp_path, *options, "--other-labels", "2") == 0


def test_time_points_of_flat_files_are_one_patient_by_a_regular_expression(tmp_path, capsys):
    names = ["sub-1_ses-1_seg", "sub-1_ses-2_seg", "sub-2_ses-1_seg"]
    assert tree(tmp_path, names) == 2
    assert "add `--patient 'sub-[^_/]+'`" in capsys.readouterr().err
    assert tree(tmp_path, names, "--patient", "sub-[^_/]+") == 0
    assert "3 cases of 2 patient(s)" in capsys.readouterr().out
    assert set(pd.read_csv(tmp_path / "scores.csv").patient) == {"sub-1", "sub-2"}
