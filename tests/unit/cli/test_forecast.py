"""The forecast: windows and time by hand, jobs of equal cost together, a small run measured for real, comparison."""

import json

import pytest

from segbench.cli import _forecast_against as against
from segbench.cli import _forecast_costs as costs
from segbench.cli import _forecast_jobs as jobs
from segbench.cli import forecast, main
from segbench.cli._forecast_jobs import ForecastJob
from segbench.core.case import Case
from segbench.core.files import write_json, write_text
from segbench.core.paths import RunPaths
from segbench.experiment.jobs import all_jobs
from tests.paths import ROOT
from tests.unit import written_run as small

NETWORK = {
    "step_seconds": 0.5,
    "save_seconds": 0.0,
    "tasks": {
        small.SPLEEN: {"predict_seconds": 2.0, "windows": 8, "map_mb": 0.1},
        small.LIVER: {"predict_seconds": 4.0, "windows": 8, "map_mb": 0.1},
    },
    "peak_memory_mib": 300.0,
    "weights_mb": 2.0,
    "states_mb": 8.0,
    "start_seconds": 3.0,
}
TASK = {
    "there": True,
    "count": 10,
    "ingest_seconds": 1.0,
    "audit_seconds": 2.0,
    "preprocess_seconds": 3.0,
    "score_seconds": 0.5,
    "stored_mb": 1.0,
}
DATA = {
    "phantom_seconds": 0.0,
    "starts": {"ingest": 0.5, "preprocess": 1.0, "audit": 2.0},
    "tasks": dict.fromkeys((small.SPLEEN, small.LIVER, small.SCHWANNOMA), TASK),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the config of the small run."""
    monkeypatch.chdir(tmp_path)
    write_json(RunPaths("small").config, small.config().model_dump(mode="json"))
    return tmp_path


def case(shape_xyz, spacing_mm_xyz):
    return Case("t", "a", "a", ("a.nii",), "a.nii", "0", "0", shape_xyz, spacing_mm_xyz, "RAS")


def group_of(settings, model):
    return next(group for group in jobs.distinct_networks(settings) if group[0].model == model)


@pytest.mark.parametrize(
    ("shape_xyz", "spacing", "step", "windows"),
    [
        ((16, 16, 16), None, 0.5, 1),
        ((4, 8, 2), None, 0.5, 1),
        ((17, 16, 16), None, 0.5, 2),
        ((24, 32, 16), None, 0.5, 2 * 3 * 1),
        ((32, 16, 16), None, 1.0, 2),
        ((16, 16, 16), (1.0, 1.0, 0.5), 1.0, 2),  # 32 voxels along x
    ],
)
def test_windows_by_hand(shape_xyz, spacing, step, windows):
    found = costs.windows_of_case(case(shape_xyz, (1.0, 1.0, 1.0)), spacing, patch_zyx=(16, 16, 16), step=step)
    assert found == windows


def test_jobs_of_equal_cost_are_measured_once():
    groups = jobs.distinct_networks(small.config(seeds=[0, 1]))
    names = [sorted({(job.experiment, job.model) for job in group}) for group in groups]
    assert all(len(kinds) == 1 for kinds in names)
    sizes = {(kinds[0], len(group)) for kinds, group in zip(names, groups, strict=True)}
    assert (("upstream", "uniseg"), 2) in sizes, "two seeds"
    assert (("downstream", "single_task"), 4) in sizes, "two seeds, from scratch and from UniSeg"


def test_a_training_and_an_evaluation_by_hand(folder):
    settings = small.config(seeds=[0, 1])
    found = list(jobs.network_jobs(settings, group_of(settings, "uniseg"), NETWORK, DATA, 5.0))
    train, evaluate = found[:2]
    assert [len(found), train.name, evaluate.after] == [4, f"train {small.UNISEG}", (train.name,)]
    assert train.seconds == 3.0 + 2 * 4 * 0.5, "start, and four steps of two tasks"
    assert evaluate.seconds == 5.0 + 2 * (2.0 + 0.5) + 2 * (4.0 + 0.5), "two of ten cases of two tasks"


def test_a_tuned_training_is_forecast_with_its_trials(folder):
    grid = {"learning_rates": [0.1, 0.01, 0.001], "iterations_per_task": 3, "validation_fraction": 0.25}
    models = [{"name": "uniseg", "recipe": "tuned"}]
    inference = {"mirror_axes": [0]}
    settings = small.config(
        training={"tuning": grid}, upstream={"models": models}, inference=inference, downstream=None
    )
    train = next(jobs.network_jobs(settings, group_of(settings, "uniseg"), NETWORK, DATA, 5.0))
    steps, scores = 2 * (4 + 3 * 3) * 0.5, 3 * 2 * (2.0 + 4.0) / 2 * 8
    assert (train.name, train.row) == (f"train {small.UNISEG}.tuned", "upstream uniseg (tuned)")
    assert train.seconds == 3.0 + steps + scores, "2 of 8 training cases of each task score 3 trials"


def test_the_small_run_that_is_measured_has_no_trials():
    grid = {"learning_rates": [0.1, 0.01], "iterations_per_task": 2}
    settings = small.config(
        training={"tuning": grid, "validation_fraction": 0.2},
        upstream={"models": ["single_task", {"name": "single_task", "recipe": "tuned"}]},
        downstream={"training": {"tuning": grid, "batch_size": 3}, "initialisations": ["scratch"]},
    )
    mini = forecast._small_run(settings)
    entry = mini.entry_of("upstream", "single_task", "tuned")
    assert (mini.training_of("upstream", entry).tuning, mini.training.validation_fraction) == (None, 0.0)
    assert mini.downstream.training == {"batch_size": 3}


def test_held_out_cases_are_predicted_at_every_point_without_mirroring(folder):
    mirrored = {"inference": {"step": 0.5, "mirror_axes": [0, 1]}}
    plain = small.config(**mirrored)
    held_out = small.config(training={"validation_fraction": 0.25, "validation_points": 3}, **mirrored)
    without, found = (
        next(jobs.network_jobs(settings, group_of(settings, "uniseg"), NETWORK, DATA, 5.0)).seconds
        for settings in (plain, held_out)
    )
    points, cases = 3 + 1, 2  # a quarter of the eight training cases of each of two tasks, at the end as many others
    assert found - without == pytest.approx(points * cases * (2.0 + 4.0) / 4)
    denser = small.config(training={"validation_fraction": 0.25, "validation_points": 3}, inference={"step": 1.0})
    train = next(jobs.network_jobs(denser, group_of(denser, "uniseg"), NETWORK, DATA, 5.0))
    assert train.seconds - without == pytest.approx(points * cases * (2.0 + 4.0) * 8)


def test_the_small_run_trains_on_all_its_cases():
    training = {"validation_fraction": 0.1}
    settings = forecast._small_run(small.config(training=training, downstream={"training": training}))
    assert {settings.training_of(name).validation_fraction for name in ("upstream", "downstream")} == {0.0}


def test_states_are_counted_where_a_training_lasts_long_enough(folder):
    settings = small.config(training={"save_every_seconds": 1.5})
    slow = NETWORK | {"save_seconds": 10.0}
    train = next(jobs.network_jobs(settings, group_of(settings, "uniseg"), slow, DATA, 5.0))
    assert train.seconds == 3.0 + 4.0 + 2 * 10.0, "two saves in 4 s"


def test_known_cases_count_by_their_windows(folder):
    settings = small.config()
    small.write_run(settings)
    group = group_of(settings, "uniseg")
    evaluate = list(jobs.network_jobs(settings, group, NETWORK, DATA, 0.0))[1]
    cases = jobs.counts_of(settings, small.SPLEEN, 0, 0).cases
    assert cases is not None
    windows = costs.job_windows(settings, group[0], small.SPLEEN, cases)
    assert evaluate.seconds == pytest.approx(windows / 8 * (2.0 + 4.0) + 2 * 2 * 0.5)


def test_data_jobs_by_hand(folder):
    found = {job.name: job for job in jobs.data_jobs(small.config(), DATA)}
    assert found[f"ingest {small.SPLEEN}"].seconds == 0.5 + 10 * 1.0
    assert found["audit findings"].seconds == 2.0 + 30 * 2.0
    assert found[f"preprocess {small.LIVER}"].after == ("audit findings",)


def test_folds_with_their_own_intensities_are_preprocessed_each(folder):
    settings = small.config(data={"protocol": "kfold", "fold_count": 5, "folds": [0]})
    found = {job.name: job.seconds for job in jobs.data_jobs(settings, DATA)}
    assert found[f"preprocess {small.SCHWANNOMA}"] == 1.0 + 5 * 10 * 3.0, "MR: cropped to what is not zero"
    assert found[f"preprocess {small.SPLEEN}"] == 1.0 + 10 * 3.0


@pytest.mark.parametrize(
    ("processes", "seconds"),
    [
        (1, 10.0),
        (2, 7.0),  # a and b together, c after a from 2 to 6, d after c and b from 6 to 7
        (9, 7.0),
    ],
)
def test_time_of_a_graph_by_hand(processes, seconds):
    graph = [
        ForecastJob("a", "x", 2.0),
        ForecastJob("b", "x", 3.0),
        ForecastJob("c", "x", 4.0, ("a",)),
        ForecastJob("d", "x", 1.0, ("b", "c", "not of this run")),
    ]
    assert jobs.makespan(graph, processes) == seconds


def write_taken(root, name, seconds, **facts):
    rule, key = name.split(" ")
    write_json(root / rule / key / "outcome.json", {"status": "ok", "started": 0.0, "finished": seconds} | facts)


def test_a_forecast_is_compared_with_its_run(folder, capsys):
    root = RunPaths("small").root
    graph = [
        ForecastJob("ingest a", "data", 36.0),
        ForecastJob("train a", "uniseg", 90.0),
        ForecastJob("evaluate a", "uniseg", 10.0, ("train a",)),
        ForecastJob("train b", "uniseg", 10.0),
        ForecastJob("train c", "uniseg", 10.0),
    ]
    write_json(root / against.FORECAST, {"jobs": [job.to_dict() for job in graph]})
    write_text(root / "benchmarks/ingest/a.tsv", "s\th:m:s\n30.0\t0:00:30\n")
    write_taken(root, "train a", 50.0, train_seconds=80.0)  # went on after an interruption
    write_taken(root, "evaluate a", 9.0)
    write_text(root / "benchmarks/evaluate/a.tsv", "s\th:m:s\n12.0\t0:00:12\n")
    write_taken(root, "train c", 10.0, status="failed")
    assert main(["forecast", "--config", str(RunPaths("small").config), "--against", str(root)]) == 0
    said = capsys.readouterr().out
    assert "without a time: train b, train c" in said
    assert f"result: forecast_ratio {136 / 122:.3f} 0.85..1.15 ok" in said
    write_taken(root, "train a", 50.0, train_seconds=200.0)
    assert main(["forecast", "--config", "absent.json", "--against", str(root)]) == 1
    assert "short" in capsys.readouterr().out


def test_no_forecast_is_refused(folder, capsys):
    assert main(["forecast", "--config", str(RunPaths("small").config), "--against", "results/small"]) == 2
    assert "results/small/forecast.json: found no forecast" in capsys.readouterr().err


def test_options_out_of_range_are_refused(folder, capsys):
    assert main(["forecast", "--config", str(RunPaths("small").config), "--seconds", "0", "--processes", "0"]) == 2
    said = capsys.readouterr().err
    assert "--seconds: found 0; expected at least 1" in said
    assert "--processes: found 0; expected at least 1" in said


def test_the_whole_command_on_data_that_are_not_there(folder, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    settings = small.config(upstream={"models": ["uniseg"], "controls": ["threshold"]}, downstream=None)
    write_json(RunPaths("small").config, settings.model_dump(mode="json"))
    options = ["--seconds", "2", "--processes", "2", "--cases", "2"]
    assert main(["forecast", "--config", str(RunPaths("small").config), *options]) == 0
    said = capsys.readouterr().out
    assert "| upstream uniseg | " in said
    assert "with 2 at a time" in said
    assert f"measured on noise, without data jobs and evaluation: {small.SPLEEN}, {small.LIVER}" in said
    kept = json.loads((RunPaths("small").root / against.FORECAST).read_text())
    names = {job["name"] for job in kept["jobs"]}
    assert {f"{job.id}" for job in all_jobs(settings)} <= {name.partition(" ")[2] for name in names}
    assert [path.name for path in RunPaths("small").root.parent.iterdir()] == ["small"], "the small run is removed"


def test_a_row_sums_over_the_groups_of_a_model(folder):
    """Two groups of single-task networks: two jobs of 0.5 s a step, one of 2 s."""
    settings = small.config()
    group = group_of(settings, "single_task")
    measured = forecast._Measured(DATA)
    slow = NETWORK | {"step_seconds": 2.0, "peak_memory_mib": 400.0, "weights_mb": 3.0}
    measured.networks = [(group[:1] * 2, NETWORK), (group[:1], slow)]
    row = forecast._table(measured, {jobs.row_of(group[0]): {"jobs": 6, "train": 3.0, "evaluate": 1.0, "data": 0.0}})[0]
    assert (row["jobs"], row["hours"], row["s a step"]) == (6, 4.0, 1.0)
    assert (row["memory MiB"], row["weights MB"], row["states MB"]) == (400.0, 7.0, 8.0)


def test_data_that_are_there_are_measured(folder):
    settings = small.config()
    small.write_run(settings)
    found = costs._sample(settings, settings.task(small.SPLEEN), 2)
    assert found[1] is None, "raw files in another layout than the card's are not there"


def test_the_synthetic_world_is_counted_whole(folder):
    settings = small.config(
        data={"root": "raw", "phantom": {"seed": 1, "train_cases": 6, "test_cases": 4}},
        upstream={"tasks": [small.SPLEEN], "models": ["single_task"], "controls": []},
        downstream=None,
    )
    mini = forecast._small_run(settings)
    found = costs.measured_data(mini, cases=2)
    facts = found["tasks"][small.SPLEEN]
    assert (facts["there"], facts["count"]) == (True, 10)
    assert min(facts[f"{name}_seconds"] for name in ("ingest", "audit", "preprocess", "score")) > 0
    network = costs.measured_network(mini, small.SINGLE, seconds=1.0, threads=1)
    assert 0 < network["step_seconds"] < 60
    assert network["tasks"][small.SPLEEN]["predict_seconds"] > 0
    assert network["states_mb"] > 2 * network["weights_mb"], "weights and momentum"
    assert not (folder / "raw").exists(), "the run's own data are left alone"
