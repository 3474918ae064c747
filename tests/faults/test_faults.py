"""Every kind of fault is found, named in one line with its mend, and nothing is written."""

import os

import pytest

from segbench.cli import main
from segbench.core.cards import task_from_card
from segbench.data.checks import check_folder, check_task
from tests.faults.corpus import KINDS, edit_label, healthy, image


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_healthy_folder_is_accepted(tmp_path):
    healthy(tmp_path / "Task_ü with space")
    summary, faults = check_folder(tmp_path / "Task_ü with space")
    assert not faults
    assert "accepted, 3 cases, 1 channel(s), labels [0, 1, 2]" in summary


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_named_in_one_line(kind, tmp_path, capsys):
    spoil, words = KINDS[kind]
    folder = tmp_path / "Task01_Faulty"
    healthy(folder)
    spoil(folder)
    before = files(tmp_path)
    assert main(["check", "--data", str(folder)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "; expected " in line]
    assert len({line for line in lines if all(word in line for word in words)}) >= 1, lines
    assert all("Traceback" not in line for line in lines)
    assert files(tmp_path) == before


def test_there_are_at_least_forty_kinds():
    assert len(KINDS) >= 40


def test_all_faults_come_in_one_message(tmp_path):
    folder = tmp_path / "Task01_Faulty"
    healthy(folder)
    for kind in ("undeclared label value", "constant image"):
        KINDS[kind][0](folder)
    _, faults = check_folder(folder)
    assert len(faults) == 2


def test_swapped_channels_are_seen(tmp_path):
    folder = tmp_path / "Task02_PetCt"
    healthy(folder, channels=2, modality=("PET", "CT"))
    assert not check_folder(folder)[1]
    listing = folder / "dataset.json"
    listing.write_text(listing.read_text().replace('"0": "PET", "1": "CT"', '"0": "CT", "1": "PET"'))
    found = "\n".join(fault.line() for fault in check_folder(folder)[1])
    assert "in a CT channel" in found
    assert "in a PET channel" in found


def test_an_all_background_label_is_accepted_because_healthy_patients_exist(tmp_path):
    folder = tmp_path / "Task01_Healthy"
    healthy(folder)
    edit_label(lambda data: 0 * data)(folder)
    assert not check_folder(folder)[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_named(tmp_path):
    folder = tmp_path / "Task01_Faulty"
    healthy(folder)
    image(folder).chmod(0)
    assert "cannot be opened" in check_folder(folder)[1][0].found


def test_an_empty_folder_is_refused(tmp_path, capsys):
    assert main(["check", "--data", str(tmp_path)]) == 2
    assert "dataset.json" in capsys.readouterr().err


def test_too_few_cases_are_told(tmp_path):
    healthy(tmp_path / "Task_x")
    card = {
        "title": "X", "layout": "msd", "folder": "Task_x", "channels": [{"name": "CT", "modality": "CT"}],
        "classes": {"1": "liver", "2": "tumour"}, "merge": {}, "recipe": "ct", "synthetic": False,
        "structures": [{"name": "liver", "labels": [1], "tolerance_mm": 1.0}],
        "expected_cases": {"total": 4}, "obtain": "ask the owner",
    }  # fmt: skip
    (fault,) = check_task(task_from_card("x", card), card, tmp_path)
    assert fault.found == "3 labelled cases"
    assert "ask the owner" in fault.mend
