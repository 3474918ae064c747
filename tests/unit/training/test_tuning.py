"""Tuned trainings: which rate wins, trials on other cases than those that score them, resuming, and what is charged."""

import json
import shutil
import time

import numpy as np
import pytest
import torch

from segbench.core.case import Case, write_manifest
from segbench.core.errors import RunFailed
from segbench.core.files import write_json
from segbench.core.paths import RunPaths
from segbench.data.store import write_case
from segbench.experiment.preprocessed_index import PreprocessedIndex
from segbench.training import loop, tuning
from segbench.training.guards import Diverged
from segbench.training.step import Stepper
from segbench.training.tuning import AsTrial, Trial, best_rate, read_trial, train_tuned
from segbench.training.validation import Validation
from tests.unit.training.small_run import CHANNELS, CONTENT, config, killed
from tests.unit.written_run import job, splits_content

CPU = torch.device("cpu")
JOB = "upstream.cond_none.random.joint.f0.s0.tuned"
GRID = {"learning_rates": [0.02, 0.005], "iterations_per_task": 2, "validation_fraction": 0.5}
TASKS = ("phantom_spleen", "phantom_petct")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with four training cases, each of a patient of its own, and one test case."""
    monkeypatch.chdir(tmp_path)
    paths, names = RunPaths("small"), ("a", "b", "c", "d", "e")
    for task, channels in CHANNELS.items():
        places = {case: tmp_path / "preprocessed" / task / case for case in names}
        for number, (case, place) in enumerate(places.items()):
            rng = np.random.default_rng(number)
            labels_ZYX = np.zeros((18, 17, 16), dtype=np.uint8)
            labels_ZYX[4:9, 5:9, 3:8] = 1
            write_case(place, rng.normal(size=(channels, 18, 17, 16)) + labels_ZYX, labels_ZYX, {"case_id": case})
        PreprocessedIndex(task, "small", places).write(paths.preprocessed(task))
        rows = [Case(task, n, n, ("i",), "l", n, n, (16, 17, 18), (1.0, 1.0, 1.0), "RAS") for n in names]
        write_manifest(paths.manifest(task), rows)
    sides = {"train": list(names[:4]), "test": ["e"]}
    write_json(paths.splits, splits_content({"0": dict.fromkeys(CHANNELS, sides)}))
    return tmp_path


def context_of(grid=GRID, **training):
    models = [*CONTENT["upstream"]["models"], "cond_none", {"name": "cond_none", "recipe": "tuned"}]
    return job(config(training={"tuning": grid} | training, upstream={"models": models}), JOB)


def scores(monkeypatch, dice_of) -> None:
    """Let each trial have the Dice that a function of its settings gives, for both tasks."""
    made = Validation.__init__

    def noting(self, context, *arguments, **options):
        made(self, context, *arguments, **options)
        self.settings = context.training

    monkeypatch.setattr(Validation, "__init__", noting)
    monkeypatch.setattr(Validation, "measure", lambda self, model: [dice_of(self.settings)] * 2)


def train(context) -> dict:
    return train_tuned(context, device=CPU)


def weights(context) -> bytes:
    return (context.train_folder / "weights.pt").read_bytes()


def forget(context) -> None:
    """Remove what a training left: its products and its resumable state."""
    shutil.rmtree(context.train_folder)
    shutil.rmtree(context.train_state)


@pytest.mark.parametrize(
    ("trials", "rate"),
    [
        ([Trial(0.1, {"x": 0.2}), Trial(0.01, {"x": 0.3})], 0.01),
        ([Trial(0.1, {"x": 0.3}), Trial(0.01, {"x": 0.3}), Trial(0.03, {"x": 0.3})], 0.01),
        ([Trial(0.1, {"x": 0.0, "y": 0.9}), Trial(0.01, {"x": 0.4, "y": 0.4})], 0.1),
        ([Trial(0.1, {"x": None, "y": 0.3}), Trial(0.01, {"x": None, "y": 0.2})], 0.1),
        ([Trial(0.001, reason="the loss is nan"), Trial(0.01, {"x": 0.0})], 0.01),
    ],
)
def test_the_largest_mean_over_tasks_wins_and_of_equal_ones_the_smallest_rate(folder, trials, rate):
    assert best_rate(context_of(), trials) == rate


def test_a_job_whose_trials_all_diverge_fails():
    trials = [Trial(0.1, reason="the loss is nan"), Trial(0.2, reason="the loss is inf")]
    with pytest.raises(RunFailed, match=rf"{JOB}: every trial of training\.tuning diverged; the last one: the loss is"):
        best_rate(context_of(), trials)


def test_trials_learn_from_other_cases_than_those_that_score_them_and_the_training_from_all(folder, monkeypatch):
    context, seen, scored = context_of(), {}, []
    made, measure = loop.BatchStream.__init__, Validation.measure

    def noting(self, *arguments, **options):
        made(self, *arguments, **options)
        key = self.settings.initial_learning_rate, self.settings.iterations_per_task
        seen.setdefault(key, []).append([[case.case_id for case in sampler.cases] for sampler in self.samplers])

    def measured(self, model):
        scored.append([[case.case_id for case in cases] for cases in self.cases])
        return measure(self, model)

    monkeypatch.setattr(loop.BatchStream, "__init__", noting)
    monkeypatch.setattr(Validation, "measure", measured)
    facts = train(context)
    cases = facts["tuning"]["cases"]
    assert scored == [[cases[task] for task in TASKS]] * 2, "once for each rate, at the end"
    assert all(len(cases[task]) == 2 for task in TASKS)
    without = [[case for case in "abcd" if case not in cases[task]] for task in TASKS]
    rate = facts["tuning"]["learning_rate"]
    assert seen == {(0.02, 2): [without], (0.005, 2): [without], (rate, 4): [[list("abcd")] * 2]}
    assert "validation" not in facts, "the training itself holds nobody out"


def test_validation_cases_are_on_neither_side_of_a_trial(folder):
    context = context_of(validation_fraction=0.25, validation_points=2)
    facts = train(context)
    trial = AsTrial.of_job(context, 0.02)
    for task in TASKS:
        (validation,) = context.validation_cases(task)
        scoring = tuple(facts["tuning"]["cases"][task])
        assert scoring == trial.validation_cases(task) == context.tuning_cases(task)
        assert {*scoring, *trial.training_cases(task)} == set("abcd") - {validation}
        assert set(context.training_cases(task)) == set("abcd") - {validation}
    assert facts["validation"]["steps"] == [4, 8]
    assert all(set(trial["dice"]) == set(TASKS) for trial in facts["tuning"]["trials"])


def test_the_training_is_that_of_the_equal_recipe_at_the_chosen_rate(folder, monkeypatch):
    scores(monkeypatch, lambda settings: settings.initial_learning_rate)
    context = context_of()
    facts = train(context)
    assert facts["tuning"]["learning_rate"] == 0.02
    equal = job(context_of(initial_learning_rate=0.02).config, JOB.removesuffix(".tuned"))
    loop.train(equal, device=CPU)
    assert weights(context) == weights(equal)


def test_trials_are_charged(folder, monkeypatch):
    spent = []
    measure, real = Validation.measure, loop.TrainingRun.facts

    def slow(self, model):
        time.sleep(0.2)
        return measure(self, model)

    def noting(run):
        spent.append(real(run)["train_seconds"])
        return real(run)

    monkeypatch.setattr(Validation, "measure", slow)
    monkeypatch.setattr(loop.TrainingRun, "facts", noting)
    facts = train(context_of())
    trials = facts["tuning"]["trials"]
    assert [trial["learning_rate"] for trial in trials] == [0.02, 0.005]
    assert [trial["iterations"] for trial in trials] == [4, 4]
    assert facts["iterations"] == 8 + 4 + 4
    assert all(trial["seconds"] > 0.2 for trial in trials), "scores included"
    assert all(set(trial["dice"]) == set(TASKS) for trial in trials)
    assert facts["train_seconds"] == pytest.approx(spent[-1] + sum(trial["seconds"] for trial in trials), abs=2e-3)
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize("kill", [2, 4, 5, 8, 9, 11])
def test_a_killed_job_repeats_no_finished_trial_and_ends_with_the_same_bytes(folder, monkeypatch, kill):
    context = context_of()
    straight = train(context)
    expected = weights(context)
    forget(context)
    killed(monkeypatch, kill, lambda: train(context_of()))
    results = sorted(path.name for path in (context.train_state / "tuning").glob("*.json"))
    assert len(results) == min(2, (kill - 1) // 4), "a trial saves after each of its four steps"
    steps = []
    made = Stepper.step

    def counting(self, *arguments, **options):
        steps.append(1)
        return made(self, *arguments, **options)

    monkeypatch.setattr(Stepper, "step", counting)
    again = train(context_of())
    assert len(steps) == 4 + 4 + 8 - kill
    assert weights(context) == expected
    for facts in (again["tuning"], straight["tuning"]):
        for trial in facts["trials"]:
            del trial["seconds"]
    assert again["tuning"] == straight["tuning"]
    assert again["iterations"] == straight["iterations"]


def test_a_finished_trial_leaves_its_result_and_no_state(folder):
    context = context_of()
    facts = train(context)
    names = sorted(path.name for path in (context.train_state / "tuning").iterdir())
    assert names == ["rate_0.005.json", "rate_0.02.json"]
    kept = [read_trial(AsTrial.of_job(context, rate)) for rate in (0.02, 0.005)]
    assert [vars(trial) for trial in kept] == facts["tuning"]["trials"]


@pytest.mark.parametrize("damage", ["edited", "truncated", "other settings", "absent"])
def test_a_result_that_is_not_that_of_the_trial_is_not_used(folder, caplog, damage):
    context = context_of()
    train(context)
    trial = AsTrial.of_job(context, 0.02)
    text = trial.result.read_text()
    if damage == "edited":
        content = json.loads(text)
        content["trial"]["dice"]["phantom_petct"] = 1.0
        write_json(trial.result, content)
    elif damage == "truncated":
        trial.result.write_text(text[:40])
    elif damage == "absent":
        trial.result.unlink()
    else:
        trial = AsTrial.of_job(context_of(weight_decay=0.5), 0.02)
    assert read_trial(trial) is None
    assert ("not used" in caplog.text) == (damage != "absent")
    wider = AsTrial.of_job(context_of(GRID | {"learning_rates": [0.02, 0.005, 1.0]}), 0.005)
    assert read_trial(wider) is not None, "other rates of the grid do not matter"


def test_a_trial_that_diverges_loses_and_is_charged(folder, monkeypatch):
    made = Stepper.result

    def result(self, step):
        if self.optimisation.optimiser.defaults["lr"] == 0.02 and step.batch.number == 3:
            raise Diverged("loss", float("nan"))
        return made(self, step)

    monkeypatch.setattr(Stepper, "result", result)
    facts = train(context_of())
    first, second = facts["tuning"]["trials"]
    assert (first["dice"], first["iterations"], first["retries"]) == ({}, 3, 1)
    assert first["reason"].startswith("the loss is nan at step 3")
    assert (second["reason"], facts["tuning"]["learning_rate"]) == ("", 0.005)
    assert facts["iterations"] == 8 + 3 + 4


def test_the_time_limit_counts_the_trials(folder, monkeypatch):
    context = context_of(time_limit_hours=1.0)

    scores(monkeypatch, lambda settings: 0.5)
    finished = tuning.run_trials(context, device=CPU, workers=0, ranks=loop.ALONE)
    assert len(finished) == 2
    for trial in finished:
        place = AsTrial.of_job(context, trial.learning_rate)
        content = {"identity": place.identity.digest, "trial": vars(trial) | {"seconds": 1800.0}}
        write_json(place.result, content | {"sha256": tuning.content_hash(content)})
    with pytest.raises(RunFailed, match=r"has trained for 1\.00 hours, more than training\.time_limit_hours"):
        train(context)


def test_a_state_of_another_chosen_rate_is_not_continued(folder, monkeypatch, caplog):
    context = context_of()
    scores(monkeypatch, lambda settings: settings.initial_learning_rate)
    killed(monkeypatch, 10, lambda: train(context_of()))
    shutil.rmtree(context.train_state / "tuning")
    scores(monkeypatch, lambda settings: 1 - settings.initial_learning_rate)
    assert train(context_of())["tuning"]["learning_rate"] == 0.005
    assert "not used, made from other inputs (learning rate)" in caplog.text


def test_no_structure_to_score_is_a_failure(folder, monkeypatch):
    scores(monkeypatch, lambda settings: None)
    with pytest.raises(RunFailed, match="no case has a structure to choose the learning rate by"):
        train(context_of())


def test_the_identity_holds_which_cases_score_trials(folder):
    before = context_of().identity
    rows = [
        Case("phantom_spleen", n, patient, ("i",), "l", n, n, (16, 17, 18), (1.0, 1.0, 1.0), "RAS")
        for n, patient in zip("abcde", "xxyye", strict=True)
    ]
    write_manifest(RunPaths("small").manifest("phantom_spleen"), rows)
    after = context_of().identity
    assert before.differences(after) == ["tuning cases"]
    equal = job(context_of().config, JOB.removesuffix(".tuned")).identity
    assert before.differences(equal) == ["training", "tuning cases", "tuning code"]
