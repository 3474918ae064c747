"""A GPU that is asked for and is not there is refused; nothing is replaced in silence."""

import pytest

from segbench.cli import main
from segbench.core.devices import device_problems


@pytest.mark.parametrize("named", ["0", "0,1", "GPU-5f2c", "MIG-1"])
def test_a_gpu_that_is_named_must_be_there(named, tmp_path):
    (problem,) = device_problems({"CUDA_VISIBLE_DEVICES": named}, devices=tmp_path)
    assert named in problem.found
    for name in ("nvidia0", "dxg", "kfd"):
        (tmp_path / name).touch()
        assert not device_problems({"CUDA_VISIBLE_DEVICES": named}, devices=tmp_path)
        (tmp_path / name).unlink()


@pytest.mark.parametrize("environment", [{}, {"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "-1"}])
def test_the_processor_may_be_asked_for(environment, tmp_path):
    assert device_problems(environment, devices=tmp_path) == []


def test_every_setting_that_cannot_be_met_is_named_at_once(monkeypatch, capsys):
    monkeypatch.setattr("segbench.core.devices.DEVICE_FILES", ())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert main(["train", "--config", "none.json", "--job", "none", "--threads", "0", "--workers", "-1"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["--threads", "--workers", "CUDA_VISIBLE_DEVICES"]
