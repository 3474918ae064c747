"""Patients that are held out for learning curves: the same ones for every method, and of every task of a namespace."""

import json

import pytest

from segbench.core.errors import InputError
from segbench.core.files import write_json
from segbench.core.paths import RunPaths
from segbench.evaluation.external_commands import write_job_file
from segbench.evaluation.predictors.control import ControlPredictor
from segbench.evaluation.trained import evaluation_identity
from segbench.experiment.held_out import choose, tuning_cases
from segbench.experiment.jobs import all_jobs
from tests.unit import written_run as small

TEN = {f"case {number}": f"patient {number}" for number in range(10)}


def chosen(patients, *, fraction=0.1, fold=0, namespaces=None):
    spaces = namespaces or dict.fromkeys(patients, "space")
    return choose(patients, spaces, fraction=fraction, fold=fold)


@pytest.mark.parametrize(("fraction", "count"), [(0.01, 1), (0.1, 1), (0.29, 2), (0.3, 3), (0.5, 5)])
def test_a_fraction_of_the_patients_is_held_out_and_at_least_one(fraction, count):
    assert len(chosen({"one": TEN}, fraction=fraction)["one"]) == count


def test_all_cases_of_a_patient_are_held_out_in_the_order_of_the_split():
    visits = {f"{visit} of {number}": f"patient {number}" for visit in ("first", "second") for number in (1, 2)}
    (found,) = chosen({"one": visits}).values()
    assert found in (("first of 1", "second of 1"), ("first of 2", "second of 2"))


def test_the_order_of_cases_changes_nothing_and_the_fold_does():
    (found,) = chosen({"one": TEN}).values()
    assert chosen({"one": dict(reversed(TEN.items()))})["one"] == found
    assert len({chosen({"one": TEN}, fold=fold)["one"] for fold in range(8)}) > 1


def test_a_patient_is_held_out_of_every_task_of_the_namespace():
    (case,) = chosen({"few": TEN})["few"]
    others = {f"other {number}": f"patient {number}" for number in range(30)}
    found = chosen({"few": TEN, "many": others})
    assert set(found["few"]) >= {case}
    assert {TEN[name] for name in found["few"]} == {others[name] for name in found["many"]} & set(TEN.values())
    apart = chosen({"few": TEN, "many": others}, namespaces={"few": "x", "many": "y"})
    assert apart["few"] == chosen({"few": TEN}, namespaces={"few": "x"})["few"], "another namespace changes nothing"


def test_a_task_with_one_training_patient_is_refused():
    with pytest.raises(InputError) as raised:
        chosen({"whole": TEN, "single": {"a": "p", "b": "p"}}, fold=3)
    (problem,) = raised.value.problems
    assert problem.line() == (
        "training patients of single, fold 3: found 1; expected at least 2, one of them held out; add patients, leave "
        "the task out, or set training.validation_fraction to 0"
    )


def test_a_task_all_of_whose_patients_are_held_out_of_others_is_refused():
    held = [TEN[case] for case in chosen({"whole": TEN}, fraction=0.5)["whole"]]
    with pytest.raises(InputError, match="training patients of part, fold 0: found every one is held out"):
        chosen({"whole": TEN, "part": {name: name for name in held[:2]}}, fraction=0.5)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with raw files, splits and preprocessed cases; each case is a patient."""
    monkeypatch.chdir(tmp_path)
    small.write_run(small.config())
    return tmp_path


EXTERNAL = [{"name": "outside", "title": "Outside", "train": "true", "predict": "true {output}"}]


def with_validation(**keys):
    return small.config(training={"validation_fraction": 0.1} | keys)


def test_every_job_of_an_experiment_has_the_same_training_cases(run):
    config = small.config(training={"validation_fraction": 0.1}, upstream={"external": EXTERNAL})
    found: dict[tuple[str, str], set] = {}
    for item in all_jobs(config):
        context = small.job(config, item.id)
        for task in context.tasks:
            kept, out = context.training_cases(task.name), context.validation_cases(task.name)
            assert sorted(kept + out) == ["a", "b"]
            assert len(out) == 1
            found.setdefault((item.experiment, task.name), set()).add(kept)
    assert {len(seen) for seen in found.values()} == {1}
    assert {experiment for experiment, _ in found} == {"upstream", "downstream"}


def test_an_external_model_is_told_the_training_cases_alone(run):
    config = small.config(training={"validation_fraction": 0.1}, upstream={"external": EXTERNAL})
    context = small.job(config, next(item.id for item in all_jobs(config) if item.external))
    for task in json.loads(write_job_file(context).read_text())["tasks"]:
        assert [item["case"] for item in task["training"]] == list(context.training_cases(task["name"]))
        assert not {item["case"] for item in task["test"]} & set(context.validation_cases(task["name"]))
    plain = small.job(small.config(upstream={"external": EXTERNAL}), context.job.id)
    assert plain.identity.differences(context.identity) == ["training cases"]


def test_a_control_is_fitted_on_the_training_cases(run, monkeypatch):
    context = small.job(with_validation(), small.THRESHOLD)
    predictor, seen = ControlPredictor(context), []
    monkeypatch.setattr(predictor._control, "fit", lambda cases, task: seen.extend(cases))
    monkeypatch.setattr(predictor._control, "predict", lambda fitted, case, task: case.labels[:])
    task = context.tasks[small.SPLEEN]
    case = context.test_cases(task.name)[0]
    predictor.predict(task, case, predictor.read(task, case))
    assert [item.case_id for item in seen] == list(context.training_cases(task.name))
    assert len(seen) == 1


def test_identities_hold_what_is_held_out_and_nothing_without(run):
    plain, held = small.config(), with_validation()
    for name in (small.UNISEG, small.SINGLE, small.SCRATCH):
        before, now = (small.job(config, name).identity for config in (plain, held))
        assert before.differences(now) == ["training", "training cases", "validation cases"]
        other_points = small.job(small.config(training={"validation_points": 3}), name).identity
        assert other_points == before, "points without a fraction act on nothing"
        more = small.job(with_validation(validation_points=3), name).identity
        assert now.differences(more) == ["training"]
    controls = [evaluation_identity(small.job(config, small.THRESHOLD), None) for config in (plain, held)]
    assert controls[0].differences(controls[1]) == ["preprocessed cases"]


def test_without_a_fraction_no_manifest_is_read(run):
    for task in (small.SPLEEN, small.LIVER, small.SCHWANNOMA):
        RunPaths("small").manifest(task).unlink()
    context = small.job(small.config(), small.UNISEG)
    assert context.training_cases(small.SPLEEN) == ("a", "b")
    assert context.validation_cases(small.SPLEEN) == ()
    with pytest.raises(InputError, match="expected a manifest"):
        small.job(with_validation(), small.UNISEG).training_cases(small.SPLEEN)


def test_a_case_that_the_manifest_lacks_is_a_problem_of_the_manifest(run):
    sides = {task.name: {"train": ["a", "b", "x"], "test": ["c"]} for task in small.config().tasks}
    write_json(RunPaths("small").splits, small.splits_content({"0": sides}))
    with pytest.raises(InputError, match=r"phantom_spleen\.csv: found no case x; expected every case of the split"):
        small.job(with_validation(), small.UNISEG).training_cases(small.SPLEEN)


def test_downstream_may_hold_out_alone(run):
    config = small.config(downstream={"training": {"validation_fraction": 0.5}})
    assert small.job(config, small.SCRATCH).validation_cases(small.SCHWANNOMA)
    assert small.job(config, small.UNISEG).validation_cases(small.SPLEEN) == ()


TUNING = {"learning_rates": [0.1, 0.01], "iterations_per_task": 2, "validation_fraction": 0.5}
TUNED = {"name": "uniseg", "recipe": "tuned"}


def test_tuning_draws_its_own_patients_and_says_how_to_avoid_it():
    patients = {"one": {f"case {number}": f"patient {number}" for number in range(40)}}
    spaces = {"one": "space"}
    found = [choose(patients, spaces, fraction=0.3, fold=0, purpose=name)["one"] for name in ("validation", "tuning")]
    assert found[0] != found[1]
    assert len(found[0]) == len(found[1]) == 12
    with pytest.raises(InputError, match="or use another recipe than tuned"):
        choose({"one": {"a": "p"}}, spaces, fraction=0.3, fold=0, purpose="tuning")


def test_trials_are_scored_by_the_same_cases_in_every_tuned_job_and_never_by_validation_cases(run):
    models = ["uniseg", TUNED, {"name": "single_task", "recipe": "tuned"}]
    sides = {task.name: {"train": ["a", "b", "c"], "test": ["d"]} for task in small.config().tasks}
    write_json(RunPaths("small").splits, small.splits_content({"0": sides}))
    config = small.config(
        training={"tuning": TUNING, "validation_fraction": 0.1}, upstream={"models": models}, downstream=None
    )
    for task in (small.SPLEEN, small.LIVER):
        jobs = [item for item in all_jobs(config) if item.recipe == "tuned" and item.scope in ("joint", task)]
        assert len(jobs) == 2
        contexts = [small.job(config, item.id) for item in jobs]
        ((scoring,),) = {context.tuning_cases(task) for context in contexts}
        for context in contexts:
            ((validation,), training) = context.validation_cases(task), context.training_cases(task)
            assert scoring in training
            assert sorted((validation, *training)) == ["a", "b", "c"]


def test_two_training_patients_do_not_do_for_validation_and_tuning(run):
    config = small.config(
        training={"tuning": TUNING, "validation_fraction": 0.1}, upstream={"models": [TUNED]}, downstream=None
    )
    context = small.job(config, f"{small.UNISEG}.tuned")
    with pytest.raises(InputError) as raised:
        context.identity  # noqa: B018
    assert len(raised.value.problems) == 2
    assert "found 1; expected at least 2, one of them held out; add patients" in raised.value.problems[0].line()
    with pytest.raises(InputError):
        tuning_cases(config, context.splits, "upstream", 0)
