"""The ledger: one row per job with an outcome, with what the outcome says and nothing else."""

import csv

import pytest

from segbench.cli import main
from segbench.core.files import write_json
from segbench.core.paths import RunPaths
from segbench.experiment.status import LEDGER_COLUMNS, ledger
from tests.unit import written_run as small

TRAINED = {"job": small.UNISEG, "command": "train", "status": "ok", "started": 10.0, "finished": 14.5}
COSTS = {
    "device": "cpu",
    "precision": "bfloat16",
    "cpu_seconds": 4.0,
    "peak_memory_mib": 300.5,
    "waiting_fraction": 0.1,
    "device_seconds": 4.4,
    "energy_joules": 1200.5,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with two outcomes."""
    monkeypatch.chdir(tmp_path)
    paths = RunPaths("small")
    write_json(paths.config, small.config().model_dump(mode="json"))
    write_json(paths.train(small.UNISEG) / "outcome.json", TRAINED | COSTS | {"match": None})
    scored = {"job": small.THRESHOLD, "command": "evaluate", "status": "failed", "started": 20.0, "finished": 21.0}
    write_json(paths.evaluate(small.THRESHOLD) / "outcome.json", scored)
    return tmp_path


def test_each_outcome_is_a_row(folder):
    first, second = ledger(small.config())
    assert {name: first[name] for name in COSTS} == COSTS
    assert (first["job"], first["wall_seconds"], first["peak_device_memory_mib"]) == (small.UNISEG, 4.5, "")
    assert (second["job"], second["status"], second["wall_seconds"]) == (small.THRESHOLD, "failed", 1.0)
    assert set(first) == set(second) == set(LEDGER_COLUMNS)


def test_status_writes_it(folder):
    assert main(["status", "--config", str(RunPaths("small").config), "--ledger", "ledger.csv"]) == 1
    with open("ledger.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["job"] for row in rows] == [small.UNISEG, small.THRESHOLD]
    assert rows[0]["peak_memory_mib"] == "300.5"
