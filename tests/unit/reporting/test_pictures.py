"""Pictures are inputs of a page: embedded by their hash where the card permits, refused when they are others."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segbench.core.case import Case, write_manifest
from segbench.core.errors import InputError
from segbench.core.files import sha256_of, write_json
from segbench.core.paths import RunPaths
from segbench.core.run_record import ScoredTask
from segbench.core.task import IGNORED
from segbench.reporting import case_pictures
from segbench.reporting import page as page_module
from segbench.reporting.cases import case_table
from segbench.reporting.page import render
from segbench.reporting.run import Run
from segbench.reporting.tables import build_table
from segbench.reporting.verify import differing_files
from tests.unit import written_run
from tests.unit.reporting.synthetic_run import write_run

FILE = "upstream_task_worst.png"


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (2, 2), value).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """A finished run with one picture of its first upstream task; rendered without statistics and figures."""
    monkeypatch.setattr(page_module, "statistics_of", lambda *_: None)
    monkeypatch.setattr(page_module, "_plots", lambda *_: {})
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


def test_a_page_embeds_a_picture_with_its_values_and_is_rebuilt_from_itself(results, tmp_path, caplog):
    report = tmp_path / "report"
    render(results, report)
    page = (report / "index.html").read_text()
    assert base64.b64encode(png(7)).decode() in page
    assert "worst case case &lt;1&gt;: reference and predictions on three planes. Dice (%): A 12.0." in page
    assert (report / "pictures" / FILE).read_bytes() == png(7)
    assert differing_files(report) == []
    (report / "pictures" / FILE).unlink()
    assert {line.split()[0] for line in differing_files(report)} == {"index.html"}
    with caplog.at_level("WARNING"):
        render(report, tmp_path / "again")
    said = f"Pictures of this run that are not beside this page: {FILE}."
    assert said in (tmp_path / "again" / "index.html").read_text()
    assert said in caplog.text
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
    content, planes = first
    assert planes[2] == 14
    with Image.open(io.BytesIO(content)) as image:
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


DRAWN = "toy_liver"
SHAPE_XYZ = (14, 13, 12)
MODELS = ("uniseg", "dodnet")


@pytest.fixture
def finished(tmp_path, monkeypatch) -> SimpleNamespace:
    """A finished run with raw files of every task and, of one task, the kept label maps of two methods."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "results" / "toy", seeds=(0,), cases=5, upstream=2, methods=2, curves=False)
    paths, run = RunPaths("toy"), Run(Path("results/toy"))
    card = {"classes": {"1": "organ"}, "permits": {"commercial": True, "show_images": True}, "ignore_labels": [9]}
    cards = {task.name: card for task in run.record.tasks}
    for task in cards:
        write_manifest(paths.manifest(task), [raw_case(tmp_path / "raw", task, number) for number in range(5)])
    for number, model in enumerate(MODELS):
        for case in range(5):
            keep(paths, model, f"{DRAWN}_{case:03d}", labels(case, wrong_plane=5 + number))
    return SimpleNamespace(run="toy", data_root=tmp_path / "raw", dataset_cards=cards)


def labels(number: int, wrong_plane: int | None = None) -> np.ndarray:
    labels_XYZ = np.zeros(SHAPE_XYZ, np.uint8)
    labels_XYZ[3 : 7 + number, 4:9, 3:9] = 1
    if wrong_plane is not None:
        labels_XYZ[:, :, wrong_plane] = 1
    return labels_XYZ


def raw_case(root: Path, task: str, number: int) -> Case:
    name = f"{task}_{number:03d}"
    values_XYZ = np.random.default_rng(number).normal(0, 40, SHAPE_XYZ).astype(np.int16)
    image = written_run.write_map(root / task / f"{name}_image.nii.gz", values_XYZ, (1.0, 1.0, 1.0))
    label = written_run.write_map(root / task / f"{name}_label.nii.gz", labels(number), (1.0, 1.0, 1.0))
    hashes = sha256_of(image), sha256_of(label)
    return Case(task, name, name, (str(image),), str(label), *hashes, SHAPE_XYZ, (1.0, 1.0, 1.0), "RAS")


def keep(paths: RunPaths, model: str, case: str, labels_XYZ: np.ndarray) -> None:
    key = (f"upstream.{model}.random.joint.f0.s0", DRAWN, case)
    path = written_run.write_map(paths.prediction(*key), labels_XYZ, (1.0, 1.0, 1.0))
    write_json(paths.prediction_identity(*key), {"identity": "any", "sha256": sha256_of(path), "seconds": 1.0})


def test_chosen_cases_are_drawn_and_former_pictures_are_removed(finished):
    folder = Path("results/toy/pictures")
    folder.mkdir()
    (folder / "upstream_former_worst.png").write_bytes(png(1))
    run = Run(Path("results/toy"))
    pictures, notices = case_pictures.draw_pictures(finished, run)
    assert {picture.task for picture in pictures} == {DRAWN}
    assert [picture.choice for picture in pictures][:3] == ["worst", "median", "best"]
    assert len({picture.case for picture in pictures}) == len(pictures) <= len(case_pictures.CHOICES)
    assert {path.name for path in folder.iterdir()} == {picture.file for picture in pictures}
    rows = run.rows[(run.rows["task"] == DRAWN) & (run.rows["metric"] == "dice")]
    means = {}
    for picture in pictures:
        assert picture.sha256 == sha256_of(folder / picture.file)
        assert picture.slices_xyz[2] in (5, 6)
        assert set(picture.scores) == {f"{model}/random" for model in MODELS}
        own = rows[(rows["case"] == picture.case) & (rows["model"] == "uniseg") & (rows["status"] == "ok")]
        if len(own) == 2:  # both structures have a value of their own
            assert picture.scores["uniseg/random"] == pytest.approx(own["value"].mean(), abs=1e-6)
        means[picture.choice] = np.mean(list(picture.scores.values()))
    assert means["worst"] < means["median"] < means["best"]
    assert len(notices) == 1
    assert "no predicted label map is kept" in notices[0]
    assert case_pictures.draw_pictures(finished, run) == (pictures, notices)


def test_without_kept_label_maps_there_is_one_notice_and_no_picture(finished):
    for path in Path("results/toy/predictions").rglob("*.nii.gz"):
        path.unlink()
    pictures, notices = case_pictures.draw_pictures(finished, Run(Path("results/toy")))
    assert pictures == []
    assert len(notices) == 1
    assert "keep_predictions" in notices[0]
    assert not list(Path("results/toy").glob("pictures/*"))


def test_a_label_map_that_was_not_scored_is_not_drawn(finished):
    for path in Path("results/toy/predictions/upstream.dodnet.random.joint.f0.s0").rglob("*.nii.gz"):
        written_run.write_map(path, labels(0), (1.0, 1.0, 1.0))
    pictures, _ = case_pictures.draw_pictures(finished, Run(Path("results/toy")))
    assert pictures
    assert all(set(picture.scores) == {"uniseg/random"} for picture in pictures)
    assert all("1 other methods are not shown" in picture.text for picture in pictures)


def test_an_image_that_changed_gives_a_notice_without_folders_of_this_machine(finished, tmp_path):
    for path in (tmp_path / "raw" / DRAWN).glob("*_image.nii.gz"):
        written_run.write_map(path, np.zeros(SHAPE_XYZ, np.int16), (1.0, 1.0, 1.0))
    pictures, notices = case_pictures.draw_pictures(finished, Run(Path("results/toy")))
    assert pictures == []
    assert any("changed since ingest" in notice for notice in notices)
    assert not any(str(tmp_path) in notice for notice in notices)


def test_ignored_voxels_are_no_errors(finished, tmp_path):
    """The plane with most voxels that differ is ignored in the reference, so another one is drawn."""
    case = raw_case(tmp_path / "raw", DRAWN, 0)
    stored_XYZ = labels(0)
    stored_XYZ[:, :, 10] = 9
    label = written_run.write_map(Path(case.label_path), stored_XYZ, (1.0, 1.0, 1.0))
    case = Case(**{**vars(case), "label_sha256": sha256_of(label)})
    predicted_XYZ = labels(0, wrong_plane=10)
    predicted_XYZ[0:3, 0:3, 2] = 1
    path = written_run.write_map(tmp_path / "predicted.nii.gz", predicted_XYZ, (1.0, 1.0, 1.0))
    assert IGNORED not in finished.dataset_cards[DRAWN]["ignore_labels"]
    _, planes = case_pictures._drawn(finished, scored_task(DRAWN), case, {"one": path}, ["#0072B2"])
    assert planes[2] == 2


def test_no_case_is_called_most_disagreement_where_methods_agree(finished):
    run = Run(Path("results/toy"))
    run.rows = run.rows[run.rows["model"] == "uniseg"]
    task = next(task for task in run.tasks("upstream") if task.name == DRAWN)
    trained = [method for method in run.methods_of("upstream") if method.trained]
    chosen = case_pictures._chosen(run, "upstream", task, trained)
    assert [item.choice for item in chosen] == ["worst", "median", "best"]


def test_the_card_of_the_hardest_case_links_to_its_picture(results, tmp_path):
    run = Run(results)
    hardest = case_table(run, build_table(run, "upstream", "dice")).rows[0]
    change(results, task=hardest.task.name, case=hardest.case)
    render(results, tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    name = f"picture/upstream/{hardest.task.name}/worst"
    cards = page[: page.index("<table")]
    assert f'<a href="#{name}">Picture</a>' in cards
    assert f'<figure id="{name}">' in page
    change(results, task=hardest.task.name, case=hardest.case, may_be_shown=False)
    render(results, tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "#picture/" not in page
