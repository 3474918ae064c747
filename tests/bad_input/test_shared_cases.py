"""The inputs of ../shared/cases: each kind gives the right number, or one line that helps.

Kinds of score tables are tested with the comparison.
"""

import importlib.util

import pandas as pd
import pytest

from segbench.cli import main
from tests.paths import SHARED

MAKER = SHARED / "cases" / "make_cases.py"
pytestmark = pytest.mark.skipif(not MAKER.exists(), reason="../shared/cases is not beside this checkout")


@pytest.fixture
def run(tmp_path, capsys):
    """Write a kind, run its command; return status, what was printed, and the table of scores or None."""
    spec = importlib.util.spec_from_file_location("make_cases", MAKER)
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)

    def of_kind(name: str, *options: str):
        arguments = [*map(str, getattr(maker, name)(tmp_path)), *options]
        status = main(arguments)
        printed = capsys.readouterr()
        scores = tmp_path / "scores.csv"
        return status, printed.out + printed.err, pd.read_csv(scores) if scores.exists() else None

    return of_kind


def value(table: pd.DataFrame, metric: str) -> float:
    (found,) = table[table.metric == metric].value
    return found


def test_a_header_in_metres_is_scored_in_millimetres(run):
    status, printed, table = run("header_unit")
    assert status == 0
    assert "converted to mm" in printed
    assert value(table, "hd95") == pytest.approx(1.5 * 2**0.5, rel=1e-6)


def test_ignored_voxels_count_nowhere(run):
    status, printed, table = run("ignored_voxels")
    assert status == 0
    assert "count nowhere" in printed
    assert value(table, "dice") == 1
    assert value(table, "hd95") == 0
    assert (table.reference_volume_mm3 == table.prediction_volume_mm3).all()


def test_ignored_voxels_count_nowhere_for_medpy_either(run):
    status, _, table = run("ignored_voxels", "--engine", "medpy", "--metrics", "dice,hd95")
    assert status == 0
    assert list(table.value) == [1, 0]


def test_two_spellings_of_a_case_are_a_leak(run):
    status, printed, _ = run("two_spellings")
    assert status == 1
    assert "two spellings of one case" in printed


def test_a_folder_is_the_patient_of_its_files(run):
    status, printed, table = run("files_as_patients")
    assert status == 0
    assert "8 cases of 4 patient(s)" in printed
    assert set(table.patient) == {"s0", "s1", "s2", "s3"}


def test_the_files_of_a_folder_can_be_its_structures(run):
    status, _, table = run("files_as_patients", "--labels", "", "--structures-from-files", "--metrics", "dice")
    assert status == 0
    assert set(table.structure) == {"liver", "spleen"}
    assert set(table.case) == set(table.patient) == {"s0", "s1", "s2", "s3"}
    assert len(table) == 8


def test_a_label_off_the_grid_is_refused(run):
    status, printed, _ = run("label_off_grid")
    assert status == 2
    assert "corners lie up to 3.25 mm apart" in printed


def test_a_header_without_orientation_is_said(run):
    status, printed, _ = run("no_orientation")
    assert status == 0
    assert "does not say how the axes lie in the patient" in printed


def test_notices_come_from_what_was_read(run):
    status, printed, _ = run("untrue_notice")
    assert status == 2
    assert "in a CT channel" in printed
    assert "empty" not in printed
    assert "in no case" not in printed


def test_audit_names_a_missing_image(run):
    status, printed, _ = run("audit_missing_image")
    assert status == 2
    assert "c1.nii.gz: found no file" in printed


@pytest.mark.parametrize("name", ["audit_one_slice", "nnunet_v1_folder", "byte_order_mark", "linked_folders"])
def test_valid_input_is_accepted(run, name):
    status, printed, _ = run(name)
    assert status == 0, printed


@pytest.mark.parametrize("name", ["scaled_label", "trailing_axis"])
def test_labels_are_read_as_the_field_writes_them(run, name):
    status, _, table = run(name)
    assert status == 0
    assert value(table, "dice") == 1


def test_a_split_with_numpy_arrays_is_read(run):
    status, printed, _ = run("numpy_split")
    assert status == 1
    assert "case:splits_final/a_2" in printed
