"""Several processes train one network as one process does: same losses, same weights, resumed too; what is refused."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from models.blocks.plain_unet import BatchStatisticsNorm
from models.weights.reading import read_state_dict
from segbench.cli import main
from segbench.core import devices
from segbench.core.files import write_json
from segbench.core.paths import RunPaths
from segbench.experiment import requests
from segbench.experiment.context import JobContext
from segbench.training.distributed import Ranks, batch_norm_problem
from segbench.training.loop import TrainingRun
from tests.paths import ROOT
from tests.unit.training.small_run import CONTENT, config, write_data, write_manifests

JOB = "upstream.uniseg.random.joint.f0.s0"
PATHS = RunPaths("small")
SETTINGS = {"iterations_per_task": 6, "augmentation": "light", "precision": "float32", "save_every_seconds": 1e-9}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def write_run(root: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    """Write data and config of a run below `root`."""
    monkeypatch.chdir(root)
    write_data(root)
    write_manifests()
    write_json(PATHS.config, config(training=SETTINGS | settings).model_dump(mode="json"))


def start(root: Path, launcher: tuple[str, ...], job: str = JOB) -> subprocess.Popen[str]:
    """Start a training with one process, or with the launcher of several."""
    command = ["-m", "segbench", "train", "--config", str(PATHS.config), "--job", job]
    return subprocess.Popen(
        [sys.executable, *launcher, *command],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def losses(root: Path) -> list[float]:
    with open(root / PATHS.train(JOB) / "log.csv", newline="") as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream)]


def weights(root: Path) -> dict[str, torch.Tensor]:
    return read_state_dict(root / PATHS.train(JOB) / "weights.pt")


def assert_same_training(one: Path, other: Path) -> None:
    """The losses of all steps and the weights are equal within the rounding of float32."""
    assert len(losses(one)) == 12
    assert losses(other) == pytest.approx(losses(one), rel=1e-4)
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(other)[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_two_processes_choose_the_learning_rate_that_one_chooses(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    grid = {"learning_rates": [0.02, 0.005], "iterations_per_task": 2}
    models = [*CONTENT["upstream"]["models"], "multi_head", {"name": "multi_head", "recipe": "tuned"}]
    settings = config(training=SETTINGS | {"tuning": grid}, upstream={"models": models})
    job, found = "upstream.multi_head.random.joint.f0.s0.tuned", []
    for root, launcher in ((one, ()), (two, TORCHRUN)):
        root.mkdir()
        monkeypatch.chdir(root)
        write_data(root)
        write_manifests()
        write_json(PATHS.config, settings.model_dump(mode="json"))
        finish(start(root, launcher, job))
        outcome = json.loads((PATHS.train(job) / "outcome.json").read_text())
        assert (outcome["status"], outcome["iterations"]) == ("ok", 2 * 4 + 12)
        assert not (PATHS.state("train", job) / "tuning").exists(), "trials go with the state"
        found.append((outcome["tuning"], read_state_dict(root / PATHS.train(job) / "weights.pt")))
    (alone, own), (together, other) = found
    assert [trial["learning_rate"] for trial in alone["trials"]] == grid["learning_rates"]
    assert together["learning_rate"] == alone["learning_rate"]
    for trial, same in zip(alone["trials"], together["trials"], strict=True):
        assert same["dice"] == pytest.approx(trial["dice"], abs=0.02)
    for name, value in own.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-5, msg=name)


HELD_OUT = {"batch_dice": True, "validation_fraction": 0.5, "validation_points": 3}


@pytest.mark.parametrize("settings", [{}, HELD_OUT], ids=["", "batch Dice, held-out cases"])
def test_two_processes_train_as_one_does(tmp_path, monkeypatch, settings):
    one, two = tmp_path / "one", tmp_path / "two"
    for root, launcher in ((one, ()), (two, TORCHRUN)):
        root.mkdir()
        write_run(root, monkeypatch, **settings)
        finish(start(root, launcher))
    assert_same_training(one, two)
    alone, outcome = (requests.read(root / PATHS.train(JOB) / "outcome.json") for root in (one, two))
    assert [outcome["status"], outcome["attempts"][0]["processes"]] == ["ok", 2]
    assert ("validation" in outcome) == (settings == HELD_OUT)
    if "validation" in outcome:
        assert outcome["validation"]["steps"] == [4, 8, 12]
        for expected, found in zip(alone["validation"]["dice"], outcome["validation"]["dice"], strict=True):
            assert found == pytest.approx(expected, abs=0.01), "but for voxels whose classes are nearly equal"


def test_two_processes_that_are_ended_continue_as_one_does(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    for root in (one, two):
        root.mkdir()
        write_run(root, monkeypatch)
    finish(start(one, ()))
    ended = start(two, TORCHRUN)
    state = two / PATHS.state("train", JOB) / "state.pt"
    while not state.exists() and ended.poll() is None:
        time.sleep(0.01)
    ended.send_signal(signal.SIGTERM)
    said, _ = ended.communicate(timeout=120)
    assert not (two / PATHS.train(JOB) / "outcome.json").exists(), said
    said = finish(start(two, TORCHRUN))
    assert "continue at step" in said
    assert_same_training(one, two)
    said = finish(start(two, TORCHRUN))
    assert "done before" in said, "a third call trains nothing"


def launch(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Make this process the first of several that `torchrun` started."""
    for name, value in {
        devices.LAUNCHED: "test",
        "RANK": "0",
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": str(size),
    }.items():
        monkeypatch.setenv(name, value)


def train(job: str) -> int:
    return main(["train", "--config", str(PATHS.config), "--job", job])


@pytest.mark.parametrize(
    ("job", "size", "expected"),
    [
        (JOB, 4, "as many as divide the batch: training.batch_size is 2"),
        ("upstream.restoration.random.joint.f0.s0", 2, "only networks take several"),
    ],
)
def test_what_several_processes_cannot_train_is_refused(tmp_path, monkeypatch, capsys, job, size, expected):
    write_run(tmp_path, monkeypatch)
    launch(monkeypatch, size)
    assert train(job) == 2
    assert expected in capsys.readouterr().err
    assert not PATHS.train(job).exists(), "nothing is recorded"


def test_more_processes_than_devices_are_refused(tmp_path, monkeypatch, capsys):
    write_run(tmp_path, monkeypatch)
    launch(monkeypatch, 2)
    monkeypatch.setenv(devices.FAKE, "GPU-a")
    assert train(JOB) == 2
    assert "found 2 processes on this machine; expected at most 1, a GPU for each" in capsys.readouterr().err


@pytest.mark.parametrize(("norm", "gpus"), [(torch.nn.BatchNorm3d, ""), (BatchStatisticsNorm, "GPU-a,GPU-b")])
def test_batch_norm_that_cannot_be_shared_is_refused(tmp_path, monkeypatch, capsys, norm, gpus):
    write_run(tmp_path, monkeypatch)
    launch(monkeypatch, 2)
    monkeypatch.setenv(devices.FAKE, gpus)
    monkeypatch.setattr("segbench.training.loop.new_model", lambda context: norm(1))
    assert train(JOB) == 2
    assert "one process for a network with batch norm" in capsys.readouterr().err


def test_pytorch_s_own_batch_norm_is_shared_between_gpus():
    assert batch_norm_problem(torch.nn.BatchNorm3d(1), 2, on_gpus=True) is None
    assert batch_norm_problem(torch.nn.InstanceNorm3d(1), 2, on_gpus=False) is None


def test_the_average_of_weights_is_copied_before_its_norms_are_shared(tmp_path, monkeypatch):
    """A process group, which shared norms hold, cannot be copied."""
    write_run(tmp_path, monkeypatch, ema_decay=0.9)

    def share(ranks, model, device):
        model.group = (item for item in ())

    monkeypatch.setattr(Ranks, "share_statistics", share)
    run = TrainingRun(JobContext.of(PATHS.config, JOB), torch.device("cpu"))
    assert run.optimisation.average is not None
