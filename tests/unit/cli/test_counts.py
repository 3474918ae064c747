"""Options that are a number of something, in every command that has them."""

import pytest

from segbench.__main__ import main

COMMANDS = {
    "audit": ["--data", "x"],
    "phantom": ["--out", "x"],
    "plan": ["--data", "x", "--out", "y.yaml"],
    "preprocess": ["--config", "x.json", "--task", "t"],
    "score": ["--reference", "x", "--prediction", "y", "--labels", "1=a", "--out", "scores.csv"],
    "train": ["--config", "x.json", "--job", "j", "--threads", "0"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_number_that_is_too_small_is_refused_before_any_work(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([command, *COMMANDS[command], "--workers", "-1"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "--workers" in line]
    assert "found -1" in line
    assert "expected at least" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--seed", "--train", "--test"])
def test_a_synthetic_world_has_a_seed_and_cases(option, tmp_path, capsys):
    assert main(["phantom", "--out", str(tmp_path / "x"), option, "-1"]) == 2
    assert f"{option}: found -1; expected at least" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seconds", ["-3", "nan"])
def test_status_waits_for_no_negative_time(seconds, capsys):
    assert main(["status", "--config", "x.json", f"--watch={seconds}"]) == 2
    assert f"--watch: found {seconds}; expected at least 0" in capsys.readouterr().err
