"""Files of folders: links, formats, folders in folders, patients, and masks of any one value."""

import os
import re

import nibabel as nib
import numpy as np
import pytest

from segbench.core.errors import InputError
from segbench.evaluation.label_maps import MASK_VALUE, pairs, read_label_map

MASK = np.pad(np.ones((2, 2, 2), np.uint8), 1)


def save(path, data=MASK):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)


def both(folder, *names):
    """Write references and predictions of these names."""
    for name in names:
        for side in ("reference", "prediction"):
            save(folder / side / f"{name}.nii.gz")


def cases(folder, **options):
    return pairs(folder / "reference", folder / "prediction", **options)


def refused(folder, **options) -> list[str]:
    """Return the lines of the refusal."""
    with pytest.raises(InputError) as error:
        cases(folder, **options)
    return [problem.line() for problem in error.value.problems]


def test_linked_folders_and_files_are_cases_like_others(tmp_path):
    both(tmp_path / "store", "s1/seg", "s2/seg")
    both(tmp_path, "s3/seg")
    for side in ("reference", "prediction"):
        (tmp_path / side / "s1").symlink_to(tmp_path / "store" / side / "s1")
        (tmp_path / side / "again").symlink_to(tmp_path / "store" / side / "s1")
        (tmp_path / side / "s2").mkdir()
        (tmp_path / side / "s2" / "seg.nii.gz").symlink_to(tmp_path / "store" / side / "s2" / "seg.nii.gz")
    found = cases(tmp_path)
    assert [pair.case for pair in found] == ["again/seg", "s1/seg", "s2/seg", "s3/seg"]
    assert all(pair.prediction for pair in found)


def test_links_in_a_circle_end(tmp_path):
    both(tmp_path, "s1/seg", "s2/seg")
    (tmp_path / "reference" / "s1" / "up").symlink_to(tmp_path / "reference")
    (tmp_path / "reference" / "itself").symlink_to(".")
    assert [pair.case for pair in cases(tmp_path)] == ["s1/seg", "s2/seg"]


@pytest.mark.parametrize("side", ["reference", "prediction"])
@pytest.mark.parametrize("name", ["b.nii.gz", "c.nrrd", "folder"])
def test_a_link_to_nothing_is_a_problem(side, name, tmp_path):
    both(tmp_path, "a", "b")
    link = tmp_path / side / name
    link.unlink(missing_ok=True)
    link.symlink_to("/nowhere")
    assert f"{link}: found a link to nothing" in refused(tmp_path)[0]


def test_a_link_to_nothing_that_is_no_label_map_does_not_matter(tmp_path):
    both(tmp_path, "a")
    (tmp_path / "reference" / "dataset_description.json").symlink_to("/nowhere")
    assert len(cases(tmp_path)) == 1


def test_a_pipe_is_not_waited_for(tmp_path):
    both(tmp_path, "a")
    os.mkfifo(tmp_path / "prediction" / "b.nii.gz")
    assert "no regular file" in refused(tmp_path)[0]


@pytest.mark.parametrize("suffix", [".mgz", ".mhd", ".nii.bz2", ".NPZ", ".hdr"])
def test_a_prediction_in_a_format_that_is_not_read_is_not_missing(suffix, tmp_path):
    both(tmp_path, "s/a", "s/b")
    (tmp_path / "prediction" / "s" / "b.nii.gz").rename(tmp_path / "prediction" / "s" / f"b{suffix}")
    (line,) = refused(tmp_path)
    assert f"b{suffix}: found a format that is not read ({suffix}); expected NIfTI" in line


def test_other_files_beside_predictions_do_not_matter(tmp_path):
    both(tmp_path, "a", "b")
    (tmp_path / "prediction" / "b.nii.gz").unlink()
    for name in ("a.npz", "b.json", "b.txt", "other.mgz"):
        (tmp_path / "prediction" / name).touch()
    assert [pair.prediction is None for pair in cases(tmp_path)] == [False, True]


def test_a_folder_with_nothing_but_another_format_says_so(tmp_path):
    both(tmp_path, "a")
    (tmp_path / "prediction" / "a.nii.gz").rename(tmp_path / "prediction" / "a.mgz")
    (line,) = refused(tmp_path)
    assert "found no label map, but a.mgz; expected files *.nii.gz" in line


def test_a_folder_inside_the_other_one_is_refused(tmp_path):
    save(tmp_path / "a.nii.gz")
    save(tmp_path / "pred" / "a.nii.gz")
    (tmp_path.parent / f"{tmp_path.name}_link").symlink_to(tmp_path)
    for reference, prediction, words in (
        (tmp_path, tmp_path / "pred", "inside"),
        (tmp_path / "pred", tmp_path, "around"),
        (tmp_path.parent / f"{tmp_path.name}_link", tmp_path / "pred", "inside"),
    ):
        with pytest.raises(InputError, match=f"found a folder {words} {reference}"):
            pairs(reference, prediction)


@pytest.mark.parametrize(
    ("pattern", "patients"), [(r"sub-[^_/]+", ["sub-1", "sub-2"]), (r"sub-(\d)", ["1", "2"]), ("file", 3)]
)
def test_a_regular_expression_tells_the_patient(pattern, patients, tmp_path):
    both(tmp_path, "sub-1_ses-1_seg", "sub-1_ses-2_seg", "sub-2_ses-1_seg")
    found = sorted({pair.patient for pair in cases(tmp_path, patient=pattern)})
    assert (len(found) if isinstance(patients, int) else found) == patients


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("sub-1", "'sub-1', which finds no patient in sub-2"),
        ("x*", "which finds no patient in sub-1, sub-2"),
        ("top_folder", "expected file, folder, top-folder, or a regular expression"),
        ("(", "expected a regular expression"),
        (r"(sub)-(\d)", "2 groups; expected one"),
    ],
)
def test_a_regular_expression_that_does_not_tell_it_is_refused(pattern, words, tmp_path):
    both(tmp_path, "sub-1", "sub-2")
    (line,) = refused(tmp_path, patient=pattern)
    assert line.startswith("--patient: ")
    assert words in line


def test_two_files_may_have_a_patient_too(tmp_path):
    both(tmp_path, "sub-1_ses-1")
    files = [tmp_path / side / "sub-1_ses-1.nii.gz" for side in ("reference", "prediction")]
    assert pairs(*files)[0].patient == "sub-1_ses-1"
    assert pairs(*files, patient="sub-[^_]+")[0].patient == "sub-1"


@pytest.mark.parametrize(
    "names",
    [
        ["sub-1_ses-1_seg", "sub-1_ses-2_seg", "sub-2_ses-1_seg"],
        ["sub-1_run-1", "sub-1_run-2"],
        ["ses-1/sub-1_seg", "ses-2/sub-1_seg"],
        ["ses-1/sub-1", "ses-1/sub-2", "ses-2/sub-1", "ses-2/sub-2"],
    ],
)
def test_several_files_of_a_subject_of_bids_are_asked_for(names, tmp_path):
    both(tmp_path, *names)
    (line,) = refused(tmp_path)
    assert "both of sub-1; expected to know what one patient is; add `--patient 'sub-[^_/]+'`" in line
    assert len(cases(tmp_path, patient="file")) == len(names)
    subjects = {re.search(r"sub-\d", name).group() for name in names}
    assert {pair.patient for pair in cases(tmp_path, patient="sub-[^_/]+")} == subjects


@pytest.mark.parametrize("names", [["sub-1_seg", "sub-2_seg"], ["sub-1/anat/sub-1_seg", "sub-2/anat/sub-2_seg"]])
def test_one_file_of_each_subject_is_not_asked_for(names, tmp_path):
    both(tmp_path, *names)
    assert len({pair.patient for pair in cases(tmp_path)}) == 2


@pytest.mark.parametrize("value", [1, 2, 255, MASK_VALUE, -3])
def test_the_one_value_of_a_mask_is_the_structure(value, tmp_path):
    data = MASK.astype(np.int32) * value
    data[0, 0, 0] = 9
    save(tmp_path / "a.nii.gz", data)
    found = read_label_map(tmp_path / "a.nii.gz", frozenset({0, 9, MASK_VALUE}))
    assert np.array_equal(found.labels_XYZ == 1, MASK == 1)
    assert found.labels_XYZ[0, 0, 0] == 9
    assert any(f"masks with the value {value} " in notice for notice in found.notices) == (value != 1)


def test_an_empty_mask_stays_empty_and_two_values_are_refused(tmp_path):
    save(tmp_path / "a.nii.gz", MASK * 0)
    assert not read_label_map(tmp_path / "a.nii.gz", frozenset({0, MASK_VALUE})).labels_XYZ.any()
    data = MASK * 255
    data[1, 1, 1] = 1
    save(tmp_path / "a.nii.gz", data)
    with pytest.raises(InputError, match=r"labels .1, 255.; expected 0 and one other value") as error:
        read_label_map(tmp_path / "a.nii.gz", frozenset({0, MASK_VALUE}))
    assert "--labels" not in str(error.value)
