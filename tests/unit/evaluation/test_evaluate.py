"""Cases are predicted and scored once: what is kept is used by its identity, and what was edited is not."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segbench.cli import main
from segbench.core.case import write_manifest
from segbench.core.errors import InputError, RunFailed
from segbench.core.files import write_json
from segbench.evaluation.evaluate import evaluate, write_unscored
from segbench.evaluation.predictors.control import ControlPredictor
from segbench.evaluation.rows import read_rows
from segbench.experiment.result_record import ResultRecord
from segbench.training import checkpoint
from segbench.training.loop import new_model
from tests.unit import written_run as small
from tests.unit.written_run import LIVER, SPLEEN, THRESHOLD, UNISEG

COARSER = {SPLEEN: [{"name": "spleen", "labels": [1], "tolerance_mm": 9.0, "lesion": False}]}
ORACLE = "upstream.oracle.none.joint.f0.s0"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A run whose network has weights, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    small.write_run(small.config())
    return tmp_path


def network(**changes):
    """Return the context of a network, with weights of the identity that is asked for."""
    context = small.job(small.config(**changes), UNISEG)
    if not (context.train_folder / "weights.pt").exists():
        checkpoint.save(context.train_folder / "weights.pt", new_model(context).state_dict())
    ResultRecord.of(context.train_folder, context.identity, {}, ["weights.pt"]).write(context.train_folder)
    return context


def control(job_id=THRESHOLD, **changes):
    return small.job(small.config(**changes), job_id)


def done(context) -> dict:
    """Evaluate and remove the state, as `run_job` does when the outcome is written."""
    facts = evaluate(context)
    shutil.rmtree(context.paths.state("evaluate", context.job.id), ignore_errors=True)
    return facts


def counts(facts) -> tuple[int, int]:
    return facts["predicted"], facts["scored"]


def rows(context) -> dict[tuple, dict]:
    found = read_rows(context.evaluate_folder / "scores.csv")
    return {(row["task"], row["case"], row["structure"], row["metric"]): row for row in found}


LIVER_STRUCTURES = [structure.name for structure in small.config().task(LIVER).structures]
STRUCTURES = {SPLEEN: ["spleen"], LIVER: LIVER_STRUCTURES}
CELLS = {(task, case, structure, "dice") for task in STRUCTURES for case in "cd" for structure in STRUCTURES[task]}


KINDS = pytest.mark.parametrize("context_of", [network, control])


@KINDS
def test_every_case_is_predicted_scored_and_kept(context_of):
    context = context_of()
    facts = done(context)
    assert counts(facts) == (4, 4)
    assert "status" not in facts
    found = rows(context)
    assert set(found) == CELLS
    assert {row["status"] for row in found.values()} == {"ok"}
    kept = nib.load(context.paths.prediction(context.job.id, SPLEEN, "c"))
    assert kept.shape == small.SHAPE_XYZ


@KINDS
def test_another_metric_predicts_nothing_again(context_of):
    first = done(context_of())
    before = rows(context_of())
    context = context_of(metrics=["dice", "volume_error_ml"])
    facts = done(context)
    assert counts(facts) == (0, 4)
    assert facts["predict_seconds"] == first["predict_seconds"] > 0, (
        "what the label maps cost, not what reading them did"
    )
    found = rows(context)
    assert len(found) == 2 * len(CELLS)
    assert {key: found[key] for key in before} == before


@KINDS
def test_a_changed_tolerance_scores_again_without_predicting(context_of):
    done(context_of())
    assert counts(done(context_of(structures=COARSER))) == (0, 4)


def test_a_changed_tolerance_leaves_the_cases_of_other_tasks_of_a_killed_evaluation():
    evaluate(control())
    assert counts(evaluate(control(structures=COARSER))) == (0, 2)


@pytest.mark.parametrize("what", ["deleted", "edited", "truncated", "without identity", "damaged identity"])
@KINDS
def test_a_kept_label_map_that_is_not_what_was_predicted_is_predicted_again(context_of, what):
    done(context_of())
    context = context_of(metrics=["dice", "volume_error_ml"])
    path = context.paths.prediction(context.job.id, SPLEEN, "d")
    beside = context.paths.prediction_identity(context.job.id, SPLEEN, "d")
    good = np.asarray(nib.load(path).dataobj).copy()
    if what == "deleted":
        path.unlink()
    elif what == "edited":
        small.write_map(path, np.ones(small.SHAPE_XYZ, np.uint8), (1.0, 1.0, 1.0))
    elif what == "truncated":
        path.write_bytes(path.read_bytes()[:40])
    elif what == "without identity":
        beside.unlink()
    else:
        beside.write_text("{")
    facts = done(context)
    assert counts(facts) == (1, 4)
    assert "status" not in facts
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), good)


def test_other_weights_predict_again():
    done(network())
    context = network()
    state = {name: tensor * 2 for name, tensor in checkpoint.load_weights(context.train_folder / "weights.pt").items()}
    checkpoint.save(context.train_folder / "weights.pt", state)
    assert counts(done(network())) == (4, 4)


def test_other_windows_predict_again():
    done(network())
    assert counts(done(network(inference={"step": 0.5}))) == (4, 4)


@pytest.mark.parametrize("context", [lambda: control(ORACLE), lambda: control(inference={"keep_predictions": False})])
def test_what_is_not_kept_is_predicted_again_and_leaves_no_file(context):
    assert counts(done(context())) == (4, 4)
    assert not (context().paths.root / "predictions").exists()
    assert counts(done(context())) == (4, 4)


def fail_at(monkeypatch, case_id, error):
    predict = ControlPredictor.predict

    def fail(self, task, case, inputs):
        if (task.name, case.case_id) == (LIVER, case_id):
            raise error
        return predict(self, task, case, inputs)

    monkeypatch.setattr(ControlPredictor, "predict", fail)


def test_a_killed_evaluation_loses_one_case(monkeypatch):
    with monkeypatch.context() as patch:
        fail_at(patch, "d", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            evaluate(control())
    facts = evaluate(control())
    assert counts(facts) == (1, 1)
    assert set(rows(control())) == CELLS
    assert facts["predict_seconds"] > 0


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_state_of_a_case_is_made_anew(content):
    context = control()
    evaluate(context)
    path = context.paths.state("evaluate", THRESHOLD) / LIVER / "c.json"
    path.write_text(content)
    assert counts(evaluate(context)) == (0, 1)
    assert set(rows(context)) == CELLS


def test_a_failure_of_the_machine_is_no_failed_case(monkeypatch):
    fail_at(monkeypatch, "c", MemoryError())
    with pytest.raises(MemoryError):
        evaluate(control())
    assert not (control().evaluate_folder / "scores.csv").exists()


def command() -> dict:
    write_json("config.json", small.config().model_dump(mode="json"))
    assert main(["evaluate", "--config", "config.json", "--job", THRESHOLD]) == 0
    return json.loads((control().evaluate_folder / "outcome.json").read_text())


def test_a_partly_failed_evaluation_keeps_the_good_cases(monkeypatch):
    with monkeypatch.context() as patch:
        fail_at(patch, "d", ValueError("no\nlabel map"))
        outcome = command()
    assert outcome["status"] == "failed"
    assert outcome["reason"] == f"{LIVER}/d: ValueError: no label map"
    assert counts(outcome) == (3, 3)
    found = rows(control())
    failed = {key: row["reason"] for key, row in found.items() if row["status"] == "failed"}
    assert failed == {(LIVER, "d", name, "dice"): "ValueError: no label map" for name in LIVER_STRUCTURES}
    state = control().paths.state("evaluate", THRESHOLD)
    assert len(list(state.rglob("*.json"))) == 3
    outcome = command()
    assert (outcome["status"], counts(outcome)) == ("ok", (1, 1))
    assert {row["status"] for row in rows(control()).values()} == {"ok"}
    assert not state.exists()


def test_scores_of_before_lose_their_record_when_they_are_replaced(monkeypatch):
    good = command()
    record = control().evaluate_folder / "record.json"
    assert record.exists()
    (control().evaluate_folder / "scores.csv").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("segbench.evaluation.evaluate.score_pair", lambda *arguments, **options: 1 / 0)
        assert command()["status"] == "failed"
    assert not record.exists()
    assert command()["status"] == good["status"] == "ok"


@pytest.fixture
def given():
    """An external model with masks of its own."""

    def context(**changes):
        entry = {"name": "given", "title": "Given", "tasks": [SPLEEN], "predictions": "masks/{task}"}
        return small.job(small.config(upstream={"external": [entry]}, **changes), f"upstream.given.none.{SPLEEN}.f0.s0")

    for case in context().test_cases(SPLEEN):
        (Path("masks") / SPLEEN).mkdir(parents=True, exist_ok=True)
        shutil.copy(case.label_path, f"masks/{SPLEEN}/{case.case_id}.nii.gz")
    return context


def test_given_masks_are_scored_and_not_copied(given):
    facts = done(given())
    assert counts(facts) == (2, 2)
    assert {row["value"] for row in rows(given()).values()} == {"1"}
    assert not (given().paths.root / "predictions").exists()


def test_touched_masks_are_the_same_and_a_changed_one_is_scored_alone(given):
    from segbench.evaluation.trained import evaluation_identity
    from segbench.experiment.identity import evaluation_settings_identity

    def both():
        context = given()
        settings = evaluation_settings_identity(context.config, context.job)
        return settings.digest, evaluation_identity(context, None).digest

    evaluate(given())
    first = both()
    os.utime(f"masks/{SPLEEN}/c.nii.gz", ns=(1, 1))
    second = both()
    assert first[0] != second[0], "the workflow asks for the evaluation"
    assert first[1] == second[1], "which sees that nothing has changed"
    spacing = given().test_cases(SPLEEN)[0].spacing_mm_xyz
    small.write_map(
        given().paths.root.parents[1] / "masks" / SPLEEN / "c.nii.gz", np.zeros(small.SHAPE_XYZ, np.uint8), spacing
    )
    assert both()[1] != first[1]
    assert counts(evaluate(given())) == (1, 1)


def test_masks_of_another_training_are_another_evaluation():
    from segbench.evaluation.trained import evaluation_identity

    entry = {"name": "given", "title": "Given", "tasks": [SPLEEN], "train": "true", "predict": "true"}
    context = small.job(small.config(upstream={"external": [entry]}), f"upstream.given.none.{SPLEEN}.f0.s0")
    context.train_folder.mkdir(parents=True)

    def digest(**outcome):
        ResultRecord.of(context.train_folder, context.identity, outcome, []).write(context.train_folder)
        return evaluation_identity(context, {"status": "ok"}).digest

    first = digest(started=1.0)
    assert digest(started=1.0) == first
    assert digest(started=2.0) != first
    (context.train_folder / "record.json").unlink()
    with pytest.raises(InputError, match=r"found no record\.json"):
        evaluation_identity(context, {"status": "ok"})


def test_a_command_that_fails_leaves_a_failed_row_per_case(monkeypatch):
    entry = {"name": "given", "title": "Given", "tasks": [SPLEEN], "predict": "true"}
    context = small.job(small.config(upstream={"external": [entry]}), f"upstream.given.none.{SPLEEN}.f0.s0")

    def fail(context, step):
        raise RunFailed("no\nmemory")

    monkeypatch.setattr("segbench.evaluation.external_commands.run_command", fail)
    facts = evaluate(context)
    assert (facts["status"], facts["reason"], counts(facts)) == ("failed", "no memory", (0, 0))
    assert {row["reason"] for row in rows(context).values()} == {"no memory"}
    assert len(rows(context)) == 2


@pytest.mark.parametrize("job_id", [THRESHOLD, "upstream.mean_shape.none.joint.f0.s0", ORACLE])
def test_a_class_that_nobody_looked_for_is_not_defined_in_its_case_and_never_failed(job_id):
    """Case c says nothing of the last class of the liver task: neither a score of 1 for an empty mask nor a failure."""
    context = control(job_id, upstream={"controls": ["oracle", "threshold", "mean_shape"]})
    structures = context.config.task(LIVER).structures
    unknown = structures[-1].labels
    known = tuple(value for value in range(1, len(context.config.task(LIVER).classes) + 1) if value not in unknown)
    done(context)
    before = {key: row["value"] for key, row in rows(context).items() if key[1] != "c"}
    cases = small.write_cases(context.config, LIVER)
    write_manifest(
        context.paths.manifest(LIVER), [replace(c, annotated=known) if c.case_id == "c" else c for c in cases]
    )
    context = control(job_id, upstream={"controls": ["oracle", "threshold", "mean_shape"]})
    done(context)
    found = rows(context)
    assert {key: row["value"] for key, row in found.items() if key[1] != "c"} == before
    for structure in structures:
        row = found[LIVER, "c", structure.name, "dice"]
        assert (row["status"] == "not_defined") == (not set(structure.labels) <= set(known))
    assert "not annotated in this case" in found[LIVER, "c", structures[-1].name, "dice"]["reason"]
    write_unscored(context, "no weights")
    statuses = {row["status"] for key, row in rows(context).items() if key[:3] == (LIVER, "c", structures[-1].name)}
    assert statuses == {"not_defined"}
