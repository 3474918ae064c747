"""A downstream model with preprocessing of its own trains and predicts on such images, and is scored as all others."""

import nibabel as nib
import numpy as np
import pytest

from segbench.cli import main
from segbench.core.files import write_json
from segbench.data.store import open_case
from segbench.evaluation.evaluate import evaluate
from segbench.evaluation.predict import preprocessed_images
from segbench.evaluation.record import _methods, _phases
from segbench.evaluation.rows import read_rows
from segbench.experiment.result_record import ResultRecord
from segbench.training import loop
from tests.unit import written_run as small
from tests.unit.written_run import SCHWANNOMA

OWN = f"downstream.unetr.scratch.{SCHWANNOMA}.f0.s0"
SPACING = (6.0, 6.0, 6.0)
CHANGES = {
    "preprocessing_recipes": {"mine": {"spacing_mm_zyx": SPACING}},
    "training": {"iterations_per_task": 2},
    "downstream": {
        "models": ["single_task", {"name": "unetr", "initialisations": ["scratch"], "preprocessing": "mine"}],
    },
}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """A run whose downstream task was preprocessed twice, the second time by the command."""
    monkeypatch.chdir(tmp_path)
    settings = small.config(**CHANGES)
    small.write_run(settings)
    write_json(tmp_path / "config.json", settings.model_dump(mode="json"))
    assert main(["preprocess", "--config", "config.json", "--task", SCHWANNOMA, "--recipe", "mine"]) == 0
    return settings


def shapes(context):
    return {case: open_case(context.folder(SCHWANNOMA, case)).images.shape for case in "abcd"}


def test_the_entry_reads_cases_of_its_recipe(settings):
    own, other = small.job(settings, OWN), small.job(settings, small.SCRATCH)
    assert own.preprocessed[SCHWANNOMA].recipe == "mine"
    assert other.preprocessed[SCHWANNOMA].recipe == "phantom_mr"
    assert own.folder(SCHWANNOMA, "a").parent.name == "mine"
    assert all(shape[1] < shapes(other)[case][1] for case, shape in shapes(own).items())
    plain = small.config(**{**CHANGES, "downstream": {"models": ["single_task", {"name": "unetr"}]}})
    unchanged = small.job(plain, OWN)
    assert unchanged.identity.differences(own.identity) == ["training cases"]


def test_it_trains_and_its_predictions_and_scores_are_those_of_the_native_grid(settings, monkeypatch):
    context = small.job(settings, OWN)
    loop.train(context, device=loop.torch.device("cpu"), workers=0)
    ResultRecord.of(context.train_folder, context.identity, {}, ["weights.pt"]).write(context.train_folder)
    evaluate(context)
    rows = read_rows(context.evaluate_folder / "scores.csv")
    assert {(row["case"], row["status"] in ("ok", "prediction_empty")) for row in rows} == {("c", True), ("d", True)}
    kept = nib.load(context.paths.prediction(OWN, SCHWANNOMA, "c"))
    raw = nib.load(context.case(SCHWANNOMA, "c").image_paths[0])
    assert kept.shape == raw.shape
    np.testing.assert_allclose(kept.affine, raw.affine)


def test_images_of_the_user_are_preprocessed_in_the_same_way(settings):
    context = small.job(settings, OWN)
    (image,) = preprocessed_images(context, context.case(SCHWANNOMA, "d").image_paths, list(context.tasks))
    np.testing.assert_allclose(image.images_CZYX, open_case(context.folder(SCHWANNOMA, "d")).images[:], atol=1e-5)


def test_titles_and_records_name_the_recipe(settings):
    found = {method.key: method for method in _methods(settings) if method.experiment == "downstream"}
    own = found["unetr", "scratch"]
    assert own.title.endswith("(preprocessing mine)")
    assert own.preprocessing.endswith("mine, 6x6x6 mm, MR z-score per case")
    others = [method for key, method in found.items() if key[0] == "single_task"]
    assert others
    assert not any(method.preprocessing or "preprocessing" in method.title for method in others)


def test_the_time_of_the_second_preprocessing_counts(settings):
    paths = small.job(settings, OWN).paths
    for name, seconds in ((SCHWANNOMA, 3), (f"{SCHWANNOMA}.mine", 4)):
        path = paths.benchmark("preprocess", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\n{seconds}\n")
    assert _phases(settings, paths, [])["preprocess"] == 7
