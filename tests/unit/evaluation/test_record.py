"""The record of a run: one version of the code, titles of pre-trained weights, curves, times of its own jobs."""

import json

import pytest

from segbench.core.errors import InputError, RunFailed
from segbench.core.paths import RunPaths
from segbench.core.run_record import Finding, JobRecord, PromptSimilarity, ValidationDice
from segbench.evaluation.record import (
    CURVE_POINTS,
    _audit,
    _curve,
    _job_record,
    _methods,
    _notices_of_data,
    _objective,
    _outcome,
    _phases,
    _refuse_mixed_code,
    _seconds,
    _tasks,
    _wall_seconds,
)
from segbench.experiment.jobs import all_jobs
from segbench.experiment.splits import Splits, read_splits
from tests.unit import written_run
from tests.unit.training.small_run import config


def record(**values) -> JobRecord:
    """A job record with the values that a test asks for."""
    plain = {
        "job": "upstream.uniseg.random.joint.f0.s0",
        "experiment": "upstream",
        "model": "uniseg",
        "initialisation": "random",
        "recipe": "equal",
        "batch_size": 2,
        "scope": "joint",
        "fold": 0,
        "seed": 0,
        "status": "ok",
        "reason": "",
        "train_seconds": 0.0,
        "predict_seconds": 0.0,
        "score_seconds": 0.0,
        "process_seconds": 0.0,
        "iterations": 0,
        "parameters": 0,
        "training_code": None,
        "model_code": None,
        "match": None,
        "device": "cpu",
        "started": 0.0,
        "finished": 0.0,
        "curve": None,
    }
    return JobRecord(**plain | values)


def records(*codes):
    return [record(model=model, training_code=shared, model_code=own) for model, shared, own in codes]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([("uniseg", "a", "x"), ("cond_decoder", "b", "y")], "2 versions of the training code"),
        ([("uniseg", "a", "x"), ("uniseg", "a", "y")], "two versions of uniseg"),
        ([("uniseg", "a", "x"), ("uniseg_late", "a", "y")], "two versions of uniseg"),
    ],
)
def test_cells_of_two_versions_are_refused(found, message):
    late = {"name": "uniseg", "id": "uniseg_late", "options": {"position": 1}}
    settings = config(upstream={"models": ["uniseg", late, "cond_decoder", "dodnet_original"]})
    with pytest.raises(RunFailed, match=message):
        _refuse_mixed_code(settings, records(*found))
    allowed = settings.model_copy(update={"allow_mixed_training_code": True})
    _refuse_mixed_code(allowed, records(*found))


def test_the_record_of_a_tuned_job_holds_the_chosen_rate_and_the_charged_cost(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = {"learning_rates": [0.1, 0.01], "iterations_per_task": 2}
    models = ["uniseg", {"name": "uniseg", "recipe": "tuned"}]
    settings = written_run.config(training={"tuning": grid}, upstream={"models": models}, downstream=None)
    paths = RunPaths(settings.run)
    own = [job for job in all_jobs(settings) if job.model == "uniseg"]
    plain = {"status": "ok", "reason": "", "started": 1.0, "finished": 2.0}
    for job, facts in zip(own, ({}, {"tuning": {"learning_rate": 0.01, "trials": []}}), strict=True):
        paths.train(job.id).mkdir(parents=True)
        paths.evaluate(job.id).mkdir(parents=True)
        trained = plain | {"iterations": 16, "train_seconds": 9.0} | facts
        (paths.train(job.id) / "outcome.json").write_text(json.dumps(trained))
        (paths.evaluate(job.id) / "outcome.json").write_text(json.dumps(plain))
    equal, tuned = (_job_record(settings, paths, job) for job in own)
    assert (equal.tuned_learning_rate, tuned.tuned_learning_rate) == (None, 0.01)
    assert (tuned.recipe, tuned.iterations, tuned.train_seconds) == ("tuned", 16, 9.0)
    method = next(method for method in _methods(settings) if method.recipe == "tuned")
    assert "tuned over 2 values (0.1, 0.01; trials of 2 steps per task" in method.recipe_text


def test_other_methods_and_untrained_jobs_are_not_mixed():
    _refuse_mixed_code(config(), records(("uniseg", "a", "x"), ("cond_decoder", "a", "y"), ("empty", None, None)))


def test_titles_say_where_weights_come_from():
    transfers = [method for method in _methods(config()) if method.kind == "transfer"]
    titles = {method.initialisation: method.title for method in transfers}
    assert titles["scratch"] == "From scratch"
    assert titles["cond_decoder"].startswith("Pre-trained: ")
    assert titles["volume_contrast"] == "Self-supervised: Volume contrast"
    entry = config().entry_of("upstream", "volume_contrast", "equal")
    objective = _objective(config(), entry)
    assert objective.kind == "self_supervised"
    assert "CVPR 2024" in objective.citation


def test_a_variant_names_the_entry_of_the_same_network_and_recipe_with_default_options():
    no_prompt = {"name": "uniseg", "options": {"prompt": "none"}}
    models = [
        {"name": "uniseg", "id": "spelled_out", "options": {"prompt": "universal"}},
        no_prompt | {"id": "no_prompt"},
        {"name": "uniseg", "id": "late", "options": {"position": 1}},
        no_prompt | {"id": "published_no_prompt", "recipe": "published"},
        "single_task",
    ]
    settings = written_run.config(upstream={"models": models}, downstream=None)
    found = {method.model: method.variant_of for method in _methods(settings)}
    assert found["no_prompt"] == found["late"] == "spelled_out"
    assert found["spelled_out"] == found["single_task"] == found["oracle"] == ""
    assert found["published_no_prompt"] == ""  # another recipe has no default entry here


def written(path, lines):
    path.write_text("iteration,task,loss\n" + "".join(f"{i},T,{loss}\n" for i, loss in lines))
    return path


def test_a_short_log_is_kept_line_by_line(tmp_path):
    assert _curve(written(tmp_path / "log.csv", [(5, 1.5), (10, 0.5)])).model_dump() == {
        "iteration": (5, 10),
        "loss": (1.5, 0.5),
    }


def test_a_long_log_becomes_means_of_equally_many_lines(tmp_path):
    lines = 5 * CURVE_POINTS
    curve = _curve(written(tmp_path / "log.csv", [(i, i / 10) for i in range(lines)]))
    assert len(curve.loss) == CURVE_POINTS
    assert curve.iteration[:2] == (2, 7)
    assert curve.loss == pytest.approx([i / 10 for i in curve.iteration])


def test_a_model_without_a_log_has_no_curve(tmp_path):
    assert _curve(tmp_path / "log.csv") is None


def test_wall_time_is_the_time_in_which_a_job_was_at_work():
    day = 86_400.0
    jobs = [
        record(started=0.0, finished=100.0, process_seconds=100.0),
        record(started=60.0, finished=160.0, process_seconds=100.0),  # beside the first
        record(started=70.0, finished=80.0, process_seconds=10.0),  # within both
        record(started=day, finished=day + 40.0, process_seconds=40.0),  # a seed that was added a day later
    ]
    assert _wall_seconds(jobs) == 200.0


def test_a_resumed_job_counts_all_its_attempts():
    outcome = {"started": 1000.0, "finished": 1030.0, "train_seconds": 90.0}
    assert _seconds(outcome, at_least=outcome["train_seconds"]) == 90.0
    assert _seconds({"started": 1000.0, "finished": 1030.0}, at_least=20.0) == 30.0
    assert _seconds({}) == 0.0
    assert _wall_seconds([record(started=1000.0, finished=1030.0, process_seconds=90.0)]) == 90.0


def benchmark(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\n{seconds}\t0:00:01\n")


def test_phases_count_the_jobs_and_tasks_of_this_run_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = config()
    paths, job = RunPaths(settings.run), next(iter(all_jobs(settings))).id
    resumed = record(job="resumed", train_seconds=500.0)
    own = record(job=job, train_seconds=50.0, predict_seconds=5.0, score_seconds=1.0)
    benchmark(paths.benchmark("train", job), 58.0)
    benchmark(paths.benchmark("train", "resumed"), 20.0)  # its last attempt, shorter than all its training
    benchmark(paths.benchmark("evaluate", job), 8.0)
    benchmark(paths.benchmark("train", "upstream.gone.random.joint.f0.s0"), 1000.0)
    benchmark(paths.benchmark("evaluate", "upstream.gone.random.joint.f0.s0"), 1000.0)
    benchmark(paths.benchmark("ingest", "a_task_that_was_taken_out"), 1000.0)
    benchmark(paths.benchmark("ingest", next(iter(settings.tasks)).name), 3.0)
    benchmark(paths.benchmark("audit", "findings"), 2.0)
    phases = _phases(settings, paths, [own, resumed])
    assert phases["training"] == 550.0
    assert phases["start-up of training and evaluation"] == 8.0 + 2.0
    assert phases["ingest"] == 3.0
    assert phases["audit"] == 2.0
    assert sum(phases.values()) == 550.0 + 5.0 + 1.0 + 10.0 + 3.0 + 2.0


@pytest.mark.parametrize("text", ["s\th:m:s\nx\t0:00:01\n", "h:m:s\n0:00:01\n", "h:m:s\ts\n0:00:01\n"])
def test_a_damaged_benchmark_file_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    path = RunPaths(config().run).benchmark("audit", "findings")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InputError, match=r"findings\.tsv.*expected a benchmark file of Snakemake"):
        _phases(config(), RunPaths(config().run), [])


WORDS = '{"status": "ok", "reason": "", "started": "x", "finished": 2.0}'


@pytest.mark.parametrize("text", ["", '{"status": "ok"', '{"status": "ok", "reason": ""}', "[]", WORDS])
def test_a_damaged_outcome_is_refused(tmp_path, text):
    (tmp_path / "outcome.json").write_text(text)
    with pytest.raises(InputError, match=r"outcome\.json.*expected the outcome of a job"):
        _outcome(tmp_path)


def test_an_absent_outcome_is_refused(tmp_path):
    with pytest.raises(InputError, match="found No such file or directory"):
        _outcome(tmp_path)


def test_a_whole_outcome_is_returned(tmp_path):
    outcome = {"status": "ok", "reason": "", "started": 1.0, "finished": 2.0}
    (tmp_path / "outcome.json").write_text(json.dumps(outcome))
    assert _outcome(tmp_path) == outcome


def outcomes(job_id, **trained):
    """Write the outcomes of the training and the evaluation of a job of the small run."""
    times = {"status": "ok", "reason": "", "started": 1.0, "finished": 2.0}
    paths = RunPaths("small")
    for folder, facts in ((paths.train(job_id), times | trained), (paths.evaluate(job_id), times)):
        folder.mkdir(parents=True)
        (folder / "outcome.json").write_text(json.dumps(facts))


def job_record(job_id) -> JobRecord:
    (job,) = (job for job in all_jobs(config()) if job.id == job_id)
    return _job_record(config(), RunPaths("small"), job)


@pytest.mark.parametrize("facts", [{"attempts": [{}]}, {"match": {"x": 1}}, {"train_seconds": "a"}, {"tuning": 1}])
def test_an_outcome_of_another_form_is_refused(tmp_path, monkeypatch, facts):
    monkeypatch.chdir(tmp_path)
    outcomes("upstream.uniseg.random.joint.f0.s0", **facts)
    with pytest.raises(InputError, match=r"outcome\.json: found .*expected outcomes as segbench wrote them"):
        job_record("upstream.uniseg.random.joint.f0.s0")


def test_the_prompt_similarity_of_a_training_reaches_the_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    similarity = {"tasks": ["a", "b"], "steps": [0, 8], "cosine": [[[1, 0.5], [0.5, 1]], [[1, 0], [0, 1]]]}
    outcomes("upstream.uniseg.random.joint.f0.s0", prompt_similarity=similarity)
    outcomes("upstream.cond_decoder.random.joint.f0.s0")
    found = job_record("upstream.uniseg.random.joint.f0.s0").model_dump(mode="json")["prompt_similarity"]
    assert found == similarity
    assert job_record("upstream.cond_decoder.random.joint.f0.s0").prompt_similarity is None
    with pytest.raises(ValueError, match="2 matrices of 2 x 2 numbers"):
        PromptSimilarity(tasks=("a", "b"), steps=(0, 8), cosine=(((1.0, 0.5), (0.5, 1.0)),))


def test_what_each_process_of_a_training_computed_with_reaches_the_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = {"device": "NVIDIA H200", "mode": "fast", "precision": "bfloat16", "compiled": True, "threads": 1}
    attempts = [{"first_step": step, "torch": "2.11.0", "processes": 1} | first for step in (0, 50)]
    outcomes("upstream.uniseg.random.joint.f0.s0", attempts=attempts)
    outcomes("upstream.cond_decoder.random.joint.f0.s0")
    assert job_record("upstream.uniseg.random.joint.f0.s0").model_dump(mode="json")["attempts"] == attempts
    assert job_record("upstream.cond_decoder.random.joint.f0.s0").attempts == ()


VALIDATION = {"tasks": ["a", "b"], "cases": [1, 2], "steps": [4, 8], "dice": [[0.1, None], [0.5, 0.25]]}
VALIDATION |= {"seen_dice": [0.75, None], "seconds": 3.0}


def test_the_dice_of_held_out_cases_reaches_the_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcomes("upstream.uniseg.random.joint.f0.s0", validation=VALIDATION)
    outcomes("upstream.cond_decoder.random.joint.f0.s0")
    found = job_record("upstream.uniseg.random.joint.f0.s0")
    assert found.model_dump(mode="json")["validation"] == VALIDATION
    assert job_record("upstream.cond_decoder.random.joint.f0.s0").validation is None
    with pytest.raises(ValueError, match="2 rows of 2 values, and 2 counts of cases"):
        ValidationDice(tasks=("a", "b"), cases=(1, 2), steps=(4, 8), dice=((0.1, 0.2), (0.5,)), seconds=3.0)


def test_validation_is_a_phase_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = config()
    paths, job = RunPaths(settings.run), next(iter(all_jobs(settings))).id
    validation = ValidationDice.model_validate_json(json.dumps(VALIDATION))
    own = record(job=job, train_seconds=50.0, validation=validation)
    benchmark(paths.benchmark("train", job), 58.0)
    phases = _phases(settings, paths, [own])
    assert (phases["validation"], phases["start-up of training and evaluation"]) == (3.0, 5.0)


def test_held_out_cases_are_no_training_cases_of_a_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = written_run.config(downstream={"training": {"validation_fraction": 0.5}})
    written_run.write_run(settings)
    counts = [
        (task.experiment, task.n_train, task.n_validation, task.n_test)
        for task in _tasks(settings, read_splits(RunPaths("small").splits))
    ]
    assert counts == [("upstream", 2, 0, 2)] * 2 + [("downstream", 1, 1, 2)]


@pytest.mark.parametrize(
    "text", ["iteration,task,loss\n1,T,0.5\n2", "iteration,task,loss\n1,T,high\n", "a,b\n1,2\n", ""]
)
def test_a_damaged_training_log_is_refused(tmp_path, text):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(InputError, match=r"log\.csv.*expected a training log"):
        _curve(tmp_path / "log.csv")


@pytest.mark.parametrize("text", ["", "name,kind\n", None])
def test_damaged_findings_of_the_leak_audit_are_no_absence_of_leaks(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    path = RunPaths("small").audit
    path.parent.mkdir(parents=True)
    header = ",".join(Finding.model_fields)
    path.write_text(f"{header}\nsame image,image,across the split\n" if text is None else text)
    with pytest.raises(InputError, match=r"audit\.csv.*expected the findings as the leak audit wrote them"):
        _audit(RunPaths("small"), Splits("seeded", {}, {}, (), ""))


@pytest.mark.parametrize("text", [None, "[", "3"])
def test_missing_or_damaged_notices_are_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (task,) = list(config().tasks)[:1]
    path = RunPaths("small").notices(task.name)
    path.parent.mkdir(parents=True)
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r"notices\.json.*expected the notices that ingest wrote"):
        _notices_of_data(RunPaths("small"), task)
    path.write_text('["two words"]')
    assert _notices_of_data(RunPaths("small"), task) == ["two words"]
