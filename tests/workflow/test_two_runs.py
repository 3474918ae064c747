"""Two runs in one folder: one ends while the other trains, and neither that nor `recover` ends the other's training."""

import copy
import json

import psutil
import pytest

from tests.workflow.test_run import wait_for
from tests.workflow.tiny import CONFIG, Workflow

JOB = "upstream.uniseg.random.joint.f0.s0"


def workflow_of(folder, name: str, model: str, iterations: int) -> Workflow:
    config = copy.deepcopy(CONFIG)
    config["run"] = name
    config["data"] = {"root": "raw", "test_fraction": 0.4}
    config["training"] |= {"iterations_per_task": iterations, "save_every_seconds": 0.5}
    config["upstream"] = {"tasks": ["phantom_spleen"], "models": [model], "controls": ["empty"]}
    del config["downstream"]
    found = Workflow(folder, config)
    found.config_path = folder / f"{name}.yaml"
    found.configure(config)
    return found


def saved_at(training: Workflow) -> int:
    """Return when the training saved its state last, 0 before the first time."""
    path = training.results / "state" / "train" / JOB / "state.pt"
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.mark.slow
def test_one_run_ends_while_the_other_trains_and_recover_ends_nothing(tmp_path):
    training, ending = workflow_of(tmp_path, "long", "uniseg", 10**6), workflow_of(tmp_path, "short", "single_task", 2)
    arguments = ["--out", "raw", "--seed", "5", "--train", "3", "--test", "2", "--tasks", "phantom_spleen"]
    assert training.segbench("phantom", *arguments).returncode == 0
    process = training.start()
    try:
        wait_for(lambda: saved_at(training))
        record = training.results / "state" / "running" / f"train.{JOB}.json"
        trainer = psutil.Process(json.loads(record.read_text())["pid"])
        ended = ending.run()
        assert ended.returncode == 0, ended.stdout[-3000:]
        assert ending.scores()
        recovered = ending.segbench("recover", "--config", str(ending.config_path))
        assert recovered.returncode == 0, recovered.stderr
        refused = training.segbench("recover", "--config", str(training.config_path))
        assert refused.returncode == 1
        assert "the workflow of run long is running here" in refused.stderr
        saved = saved_at(training)
        wait_for(lambda: saved_at(training) > saved)
        assert process.poll() is None
        assert psutil.Process(json.loads(record.read_text())["pid"]) == trainer, "the very same process trains on"
    finally:
        for member in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            member.kill()
        process.communicate()
