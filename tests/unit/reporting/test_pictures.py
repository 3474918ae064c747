"""Pictures are inputs of a page: embedded by their hash where the card permits, refused when they are others."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segbench.core.errors import InputError
from segbench.core.files import sha256_of
from segbench.core.run_record import ScoredTask
from segbench.reporting import case_pictures
from segbench.reporting.page import render
from segbench.reporting.run import Run
from segbench.reporting.verify import differing_files
from tests.unit import written_run
from tests.unit.reporting.synthetic_run import write_run

FILE = "upstream_task_worst.png"


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (2, 2), value).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture
def results(tmp_path) -> Path:
    """A finished run with one picture of its first upstream task."""
    folder = write_run(tmp_path / "results", seeds=(0,), cases=3, upstream=2, methods=2, curves=False)
    (folder / "pictures").mkdir()
    (folder / "pictures" / FILE).write_bytes(png(7))
    change(folder)
    return folder


def change(folder: Path, **facts) -> None:
    record = json.loads((folder / "run.json").read_text())
    task = next(task["name"] for task in record["tasks"] if task["experiment"] == "upstream")
    picture = {"experiment": "upstream", "task": task, "case": "case <1>", "choice": "worst", "file": FILE}
    picture |= {"sha256": sha256_of(folder / "pictures" / FILE), "may_be_shown": True, "text": "Dice (%): A 12.0."}
    record["pictures"] = [picture | facts]
    (folder / "run.json").write_text(json.dumps(record))


def test_a_page_embeds_a_picture_with_its_values_and_is_rebuilt_from_itself(results, tmp_path):
    report = tmp_path / "report"
    render(results, report)
    page = (report / "index.html").read_text()
    assert base64.b64encode(png(7)).decode() in page
    assert "worst case case &lt;1&gt;: reference and predictions on three planes. Dice (%): A 12.0." in page
    assert (report / "pictures" / FILE).read_bytes() == png(7)
    assert differing_files(report) == []
    (report / "pictures" / FILE).unlink()
    assert {line.split()[0] for line in differing_files(report)} == {"index.html"}
    (report / "pictures" / FILE).write_bytes(png(8))
    with pytest.raises(InputError, match="restore the file"):
        differing_files(report)


def test_a_picture_that_the_card_does_not_permit_is_named_and_not_shown(results, tmp_path):
    change(results, may_be_shown=False)
    render(results, tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "does not permit pictures on this page" in page
    assert "data:image/png;base64," + base64.b64encode(png(7)).decode() not in page
    assert not (tmp_path / "report" / "pictures").exists()


def test_another_picture_than_that_of_the_record_is_refused(results, tmp_path):
    (results / "pictures" / FILE).write_bytes(png(9))
    with pytest.raises(InputError, match=r"as run\.json says"):
        render(results, tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("name", ["../a.png", "a/b.png", "a.svg", ""])
def test_a_name_that_leaves_the_folder_is_refused(results, name):
    change(results, file=name)
    with pytest.raises(InputError, match="file"):
        Run(results)


def test_every_method_is_drawn_on_the_plane_with_most_errors_and_the_bytes_are_the_same_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = written_run.config()
    case = written_run.write_cases(config, written_run.SPLEEN)[0]
    wrong_XYZ = np.asarray(nib.load(case.label_path).dataobj).copy()
    wrong_XYZ[:, :, 14] = 1
    paths = {}
    for title, labels_XYZ in (("right", np.asarray(nib.load(case.label_path).dataobj)), ("wrong", wrong_XYZ)):
        paths[title] = tmp_path / f"{title}.nii.gz"
        nib.save(nib.Nifti1Image(labels_XYZ, np.eye(4)), paths[title])
    task = scored_task(written_run.SPLEEN)
    first, again = (case_pictures._drawn(config, task, case, paths, ["#0072B2", "#D55E00"]) for _ in range(2))
    assert first == again
    with Image.open(io.BytesIO(first)) as image:
        assert image.width == pytest.approx(180 / 25.4 * case_pictures.DOTS_PER_INCH * 2 / 3, abs=2)
    errors_XYZ = wrong_XYZ != np.asarray(nib.load(case.label_path).dataobj)
    assert case_pictures._most_errors(errors_XYZ, wrong_XYZ, 2) == 14
    assert case_pictures._most_errors(np.zeros_like(errors_XYZ), wrong_XYZ, 2) == 14


def scored_task(name: str) -> ScoredTask:
    facts = {"name": name, "title": name, "experiment": "upstream", "modality": "CT", "structures": ()}
    facts |= {"n_test": 1, "n_train": 1, "spacing_is_nominal": False, "synthetic": True, "licence": "", "citation": ""}
    return ScoredTask(**facts)


@pytest.mark.parametrize(("orientation", "spacing"), [("RAS", (1.0, 2.0, 3.0)), ("SPL", (3.0, 2.0, 1.0))])
def test_planes_have_the_sizes_of_the_patient_s_axes(orientation, spacing):
    """A volume stored in another orientation has the same sagittal, coronal and axial planes in mm."""
    window = (slice(0, 10), slice(0, 20), slice(0, 30))
    turn = nib.orientations.axcodes2ornt(orientation)
    turned = np.empty(3)
    turned[turn[:, 0].astype(int)] = spacing
    expected = (1.0, 2.0, 3.0)
    assert tuple(turned) == expected
    assert case_pictures._shown_size(window, turned, 0) == (40.0, 90.0)
    assert case_pictures._shown_size(window, turned, 2) == (10.0, 40.0)


def test_the_window_holds_all_foreground_and_a_margin():
    volume_XYZ = np.zeros((40, 40, 40), np.uint8)
    volume_XYZ[10:30, 20:22, 0:40] = 1
    assert case_pictures._window([volume_XYZ]) == (slice(5, 35), slice(16, 26), slice(0, 40))
    assert case_pictures._window([np.zeros((3, 4, 5))]) == (slice(0, 3), slice(0, 4), slice(0, 5))
