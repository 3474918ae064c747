"""The forecast: windows by hand, jobs of equal cost together, sums, and a real measurement of a small network."""

import pytest

from segbench.cli import forecast, main
from segbench.core.case import Case
from segbench.core.files import write_json
from segbench.core.paths import RunPaths
from segbench.experiment.config import Config
from tests.unit import written_run as small

COSTS = {
    "step_seconds": 0.5,
    "window_seconds": 0.25,
    "peak_memory_mib": 300.0,
    "weights_mb": 2.0,
    "state_mb": 8.0,
    "measured_seconds": 1.0,
    "start_seconds": 3.0,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the config of the small run."""
    monkeypatch.chdir(tmp_path)
    write_json(RunPaths("small").config, small.config().model_dump(mode="json"))
    return tmp_path


def case(shape_xyz, spacing_mm_xyz):
    return Case("t", "a", "a", ("a.nii",), "a.nii", "0", "0", shape_xyz, spacing_mm_xyz, "RAS")


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
    found = forecast.windows_of(case(shape_xyz, (1.0, 1.0, 1.0)), spacing, patch_zyx=(16, 16, 16), step=step)
    assert found == windows


def test_jobs_of_equal_cost_are_measured_once():
    groups = forecast.distinct_networks(small.config(seeds=[0, 1]))
    names = [sorted({(job.experiment, job.model) for job in jobs}) for jobs in groups]
    assert all(len(kinds) == 1 for kinds in names)
    sizes = {(kinds[0], len(jobs)) for kinds, jobs in zip(names, groups, strict=True)}
    assert (("upstream", "uniseg"), 2) in sizes, "two seeds"
    assert (("downstream", "single_task"), 4) in sizes, "two seeds, from scratch and from UniSeg"


def test_a_row_sums_over_its_jobs():
    settings = small.config(seeds=[0, 1])
    jobs = next(jobs for jobs in forecast.distinct_networks(settings) if jobs[0].model == "uniseg")
    row = forecast.forecast_row(settings, jobs, COSTS)
    steps = 2 * 2 * 4  # seeds, tasks, steps per task
    assert row["training h"] == pytest.approx(steps * 0.5 / 3600)
    assert row["start-up h"] == pytest.approx(2 * 2 * 3.0 / 3600), "training and evaluation of two seeds"
    assert (row["prediction h"], row["weights MB"], row["states MB"]) == (0.0, 4.0, 16.0)


def test_prediction_is_counted_once_the_cases_are_known(folder):
    settings = small.config()
    small.write_run(settings)
    jobs = next(jobs for jobs in forecast.distinct_networks(settings) if jobs[0].model == "uniseg")
    assert forecast.forecast_row(settings, jobs, COSTS)["prediction h"] > 0


def test_the_table_and_the_total(folder, monkeypatch, capsys):
    monkeypatch.setattr(forecast, "_in_own_process", lambda args, job, seconds: COSTS)
    assert main(["forecast", "--config", str(RunPaths("small").config), "--processes", "2"]) == 0
    said = capsys.readouterr().out
    assert "upstream uniseg joint" in said
    assert "with 2 at a time; 600 MiB of memory" in said
    assert "not ingested and split yet" in said


def test_options_out_of_range_are_refused(folder, capsys):
    assert main(["forecast", "--config", str(RunPaths("small").config), "--seconds", "0"]) == 2
    assert "--seconds: found 0; expected more than 0" in capsys.readouterr().err


def test_a_network_is_measured_for_real(folder):
    settings: Config = small.config()
    found = forecast.measured(settings, small.UNISEG, seconds=0.2, threads=1)
    assert 0 < found["step_seconds"] < 60
    assert 0 < found["window_seconds"] < found["step_seconds"]
    assert found["peak_memory_mib"] > 50
    assert found["state_mb"] == pytest.approx(4 * 2 * found["weights_mb"], rel=0.1), "weights and momentum, four times"
