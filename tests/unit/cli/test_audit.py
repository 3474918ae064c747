"""The command `audit`: leaks of split files and folders, status 1; files that cannot be read, status 2."""

import json
import pickle

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from segbench.cli import main


def write_json(path, content) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def brain(seed: int) -> np.ndarray:
    """A smooth random volume, different for every seed."""
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(40, 36, 32)), 2).astype(np.float32)


def dataset(folder, volumes: dict) -> str:
    """Write a folder in Decathlon layout."""
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for case, image in volumes.items():
        nib.save(nib.Nifti1Image(image, np.eye(4)), folder / "imagesTr" / f"{case}.nii.gz")
        nib.save(nib.Nifti1Image((image > 0).astype(np.uint8), np.eye(4)), folder / "labelsTr" / f"{case}.nii.gz")
    listed = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in volumes]
    write_json(
        folder / "dataset.json",
        {
            "modality": {"0": "MR"},
            "labels": {"0": "background", "1": "x"},
            "numTraining": len(listed),
            "training": listed,
            "test": [],
        },
    )
    return str(folder)


def test_a_clean_split_passes(tmp_path, capsys):
    split = {"train": ["a", "b"], "val": ["c"]}
    assert main(["audit", "--splits", write_json(tmp_path / "mine.json", [split])]) == 0
    assert "3 cases compared by name and patient, 0 by image: 0 leak(s)" in capsys.readouterr().out


def test_a_case_on_both_sides_is_a_leak(tmp_path, capsys):
    path = write_json(tmp_path / "mine.json", {"liver": {"train": ["a", "b"], "test": ["b"]}})
    out = tmp_path / "findings.csv"
    assert main(["audit", "--splits", path, "--out", str(out)]) == 1
    assert "leak case:liver/b" in capsys.readouterr().out
    table = pd.read_csv(out)
    assert table[["kind", "train_cases", "test_cases", "accepted"]].to_numpy().tolist() == [
        ["same case", "b", "b", False]
    ]
    assert main(["audit", "--splits", path, "--accept", "case:liver/b"]) == 0


def test_each_fold_is_compared_alone(tmp_path):
    folds = [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
    path = tmp_path / "splits_final.pkl"
    path.write_bytes(pickle.dumps(folds))
    assert main(["audit", "--splits", str(path)]) == 0


def test_the_patients_of_a_card_are_known(tmp_path, capsys):
    """Two studies of one PET/CT patient, one on each side; the card of the data set says what the patient is."""
    split = {"autopet22": {"train": ["PETCT_aa/01-01-2001"], "test": ["PETCT_aa/02-02-2002", "PETCT_bb/01-01-2001"]}}
    assert main(["audit", "--splits", write_json(tmp_path / "pet.json", split)]) == 1
    assert "same patient" in capsys.readouterr().out


@pytest.mark.parametrize("content", [{"train": "a"}, [["a"]], "text", {}, [{"train": [1]}], {"liver": {"trian": []}}])
def test_other_content_is_refused(tmp_path, capsys, content):
    assert main(["audit", "--splits", write_json(tmp_path / "mine.json", content)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_json_nested_without_end_is_a_problem(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text("[" * 100_000)
    assert main(["audit", "--splits", str(path)]) == 2


@pytest.mark.parametrize("name", ["absent.json", "absent.pkl"])
def test_an_absent_file_is_a_problem(tmp_path, name):
    assert main(["audit", "--splits", str(tmp_path / name)]) == 2


def test_the_same_image_under_another_name_is_found(tmp_path, capsys):
    """The copy is turned, cropped and scaled."""
    copy = 3 * brain(0)[::-1, 4:, :].transpose(1, 0, 2) + 100
    folders = [
        dataset(tmp_path / "one", {"a": brain(0), "b": brain(1)}),
        dataset(tmp_path / "two", {"p": brain(2), "q": np.ascontiguousarray(copy)}),
    ]
    out = tmp_path / "findings.csv"
    assert main(["audit", "--data", folders[0], "--data", folders[1], "--out", str(out)]) == 1
    table = pd.read_csv(out)
    assert table["kind"].tolist() == ["same image"]
    assert {table["train_cases"][0], table["test_cases"][0]} == {"a", "q"}
    assert main(["audit", "--data", folders[0]]) == 0


def test_images_that_cannot_be_read_are_named_together(tmp_path, capsys):
    folder = dataset(tmp_path / "one", {"a": brain(0), "b": brain(1), "c": brain(2)})
    for case in ("a", "c"):
        path = tmp_path / "one" / "imagesTr" / f"{case}.nii.gz"
        path.write_bytes(path.read_bytes()[:2000])
    assert main(["audit", "--data", folder]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert "a.nii.gz" in lines[0]
    assert "c.nii.gz" in lines[1]


def test_a_name_that_is_no_finding_cannot_be_accepted(tmp_path):
    path = write_json(tmp_path / "mine.json", [{"train": ["a"], "val": ["b"]}])
    assert main(["audit", "--splits", path, "--accept", "case:liver/b"]) == 2
