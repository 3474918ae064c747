"""Every kind of problem is found, named in one line with its fix, and nothing is written."""

import json
import os
import struct
import tracemalloc
import unicodedata

import nibabel as nib
import numpy as np
import pytest

from segbench.cli import main
from segbench.core.cards import task_from_card
from segbench.data.checks import check_folder, check_task
from tests.bad_input.corpus import (
    KINDS,
    edit_image,
    edit_label,
    edit_listing,
    header_bytes,
    healthy,
    image,
    label,
    set_at,
    voxels,
    write,
)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_healthy_folder_is_accepted(tmp_path):
    healthy(tmp_path / "Task_ü with space")
    checked = check_folder(tmp_path / "Task_ü with space")
    assert not checked.problems
    assert "accepted, 3 cases, 1 channel(s), labels [0, 1, 2]" in checked.summary


@pytest.mark.parametrize("kind", KINDS)
def test_a_problem_is_named_in_one_line(kind, tmp_path, capsys):
    corrupt, words = KINDS[kind]
    folder = tmp_path / "Task01_Wrong"
    healthy(folder)
    corrupt(folder)
    before = files(tmp_path)
    assert main(["check", "--data", str(folder)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "; expected " in line]
    assert len({line for line in lines if all(word in line for word in words)}) >= 1, lines
    assert all("Traceback" not in line for line in lines)
    assert files(tmp_path) == before


def test_all_problems_come_in_one_message(tmp_path):
    folder = tmp_path / "Task01_Wrong"
    healthy(folder)
    for kind in ("undeclared label value", "constant image"):
        KINDS[kind][0](folder)
    assert len(check_folder(folder).problems) == 2


def test_swapped_channels_are_seen(tmp_path):
    folder = tmp_path / "Task02_PetCt"
    healthy(folder, channels=2, modality=("PET", "CT"))
    assert not check_folder(folder).problems
    listing = folder / "dataset.json"
    listing.write_text(listing.read_text().replace('"0": "PET", "1": "CT"', '"0": "CT", "1": "PET"'))
    found = "\n".join(problem.line() for problem in check_folder(folder).problems)
    assert "in a CT channel" in found
    assert "in a PET channel" in found


@pytest.mark.parametrize("kind", ["giant header dimensions", "more voxels than the file can hold"])
def test_a_giant_header_allocates_nothing(kind, tmp_path):
    folder = tmp_path / "Task01_Wrong"
    healthy(folder)
    KINDS[kind][0](folder)
    tracemalloc.start()
    assert check_folder(folder).problems
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


def nnunet(folder):
    """Turn the healthy folder into the layout of nnU-Net v2."""
    healthy(folder)
    for path in (folder / "imagesTr").iterdir():
        path.rename(path.with_name(path.name.replace(".nii.gz", "_0000.nii.gz")))
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": [1, 2], "tumour": 2},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def test_an_nnunet_folder_is_accepted(tmp_path):
    nnunet(tmp_path)
    checked = check_folder(tmp_path)
    assert not checked.problems
    assert "labels [0, 1, 2]" in checked.summary


@pytest.mark.parametrize(
    ("corrupt", "words"),
    [
        (lambda f: (f / "imagesTr" / "case_1_0000.nii.gz").unlink(), "channel 0 of case_1"),
        (
            edit_listing(lambda d: d.update(channel_names={str(k): "CT" for k in range(99)})),
            "channel 1, 2, 3, 4 and",
        ),
        (edit_listing(lambda d: d.update(channel_names={})), "no channel_names"),
        (edit_listing(lambda d: d.update(file_ending="/../*")), "file_ending"),
        (edit_listing(lambda d: d.update(file_ending=5)), "file_ending 5"),
        (edit_listing(lambda d: d.update(file_ending=".mha")), "no label map"),
        (lambda f: [path.unlink() for path in (f / "labelsTr").iterdir()], "no label map"),
    ],
)
def test_a_wrong_nnunet_folder_is_refused(corrupt, words, tmp_path, capsys):
    nnunet(tmp_path)
    corrupt(tmp_path)
    assert main(["check", "--data", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def uncompressed(folder):
    """Store the image without compression and with bytes after its voxels."""
    path = image(folder).with_suffix("")
    write(path, voxels(image(folder)))
    image(folder).unlink()
    path.write_bytes(path.read_bytes() + b"more")
    edit_listing(lambda d: d["training"][1].update(image="imagesTr/case_1.nii"))(folder)


def other_qform(folder):
    """Let the qform, which some programs prefer, say another position than the sform."""
    stored = nib.load(image(folder))
    stored.set_qform(np.diag([2.0, 2.0, 3.0, 1.0]) + np.eye(4, k=3) * 7, code=1)
    nib.save(stored, image(folder).with_name("new.nii.gz"))
    image(folder).with_name("new.nii.gz").rename(image(folder))


ACCEPTED = {
    "whole numbers stored as float": (edit_label(lambda data: data, np.float64), ""),
    "slope of 0, which means none": (header_bytes(112, struct.pack("<2f", 0.0, 0.0)), ""),
    "Unicode and spaces in a case id": (
        lambda f: (
            image(f).rename(f / "imagesTr" / "Fäll 1.nii.gz"),
            edit_listing(lambda d: d["training"][1].update(image="imagesTr/Fäll 1.nii.gz"))(f),
        ),
        "",
    ),
    "a name that another system stores in another Unicode form": (
        lambda f: (
            image(f).rename(f / "imagesTr" / unicodedata.normalize("NFD", "Fäll.nii.gz")),
            edit_listing(lambda d: d["training"][1].update(image=unicodedata.normalize("NFC", "imagesTr/Fäll.nii.gz")))(
                f
            ),
        ),
        "",
    ),
    "byte order mark": (lambda f: (f / "dataset.json").write_text("\ufeff" + (f / "dataset.json").read_text()), ""),
    "an empty label, as of healthy patients": (edit_label(lambda data: 0 * data), "1 of 3 label maps are empty"),
    "sform and qform differ": (other_qform, "sform and qform differ (the sform is used) in 1 of 3 cases: case_1"),
    "bytes after the voxels": (uncompressed, "the file goes on after its voxels in 1 of 3 cases"),
    "metal": (edit_image(set_at(30000)), "values up to 30000, above 4095, in 1 case(s)"),
    "an unlisted label": (lambda f: write(f / "labelsTr" / "x.nii.gz", voxels(label(f))), "1 files in labelsTr"),
    "a class in no case": (edit_listing(lambda d: d["labels"].update({"3": "cyst"})), "label values in no case: 3"),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_what_is_odd_but_no_problem_is_accepted_with_a_notice(kind, tmp_path):
    corrupt, notice = ACCEPTED[kind]
    folder = tmp_path / "Task01_Odd"
    healthy(folder)
    corrupt(folder)
    checked = check_folder(folder)
    assert not checked.problems
    notices = [text for text in checked.notices if "patients" not in text]
    assert (notice in notices[0] and len(notices) == 1) if notice else not notices


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_named(tmp_path):
    folder = tmp_path / "Task01_Wrong"
    healthy(folder)
    image(folder).chmod(0)
    assert "cannot be opened" in check_folder(folder).problems[0].found


def test_an_empty_folder_is_refused(tmp_path, capsys):
    assert main(["check", "--data", str(tmp_path)]) == 2
    assert "dataset.json" in capsys.readouterr().err


def test_too_few_cases_get_a_notice(tmp_path):
    healthy(tmp_path / "Task_x")
    card = {
        "title": "X",
        "layout": "msd",
        "folder": "Task_x",
        "channels": [{"name": "CT", "modality": "CT"}],
        "classes": {"1": "liver", "2": "tumour"},
        "merge": {},
        "preprocessing": "ct",
        "synthetic": False,
        "structures": [{"name": "liver", "labels": [1], "tolerance_mm": 1.0}],
        "expected_cases": {"total": 4},
        "obtain": "ask the owner",
        "patient_namespace": "x",
        "spacing_is_nominal": False,
        "licence": "",
        "permits": {"commercial": True},
    }
    (problem,) = check_task(task_from_card("x", card), card, tmp_path).problems
    assert problem.found == "3 labelled cases"
    assert "ask the owner" in problem.fix


@pytest.mark.parametrize("kind", KINDS)
def test_the_audit_of_unchecked_files_never_fails_and_finds_real_leaks_only(kind, tmp_path, capsys):
    """It names what it cannot read; what only labels or intensities tell is not its concern."""
    folder = tmp_path / "Task01_Wrong"
    healthy(folder)
    KINDS[kind][0](folder)
    status = main(["audit", "--data", str(folder)])
    leaks = kind in ("one patient under two ids", "case ids that differ in letter case")
    assert status == 1 if leaks else status in (0, 2)
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert ("; expected " in printed.err) == (status == 2)
