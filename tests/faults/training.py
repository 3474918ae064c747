"""A small training as the workflow starts it, in a process of its own that can be killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from segbench.core.files import write_json
from segbench.core.paths import RunPaths
from segbench.experiment.ownership import OWNER_VARIABLE
from tests.paths import ROOT
from tests.unit.training.small_run import config, write_data

JOB = "upstream.uniseg.random.joint.f0.s0"
PATHS = RunPaths("small")
STATE = PATHS.state("train", JOB) / "state.pt"
SETTINGS = {"iterations_per_task": 40, "augmentation": "light", "save_every_seconds": 0.1}


class TrainingFolder:
    """The folder of a run whose data are there."""

    def __init__(self, root: Path):
        self.root = root

    @classmethod
    def made(cls, root: Path) -> TrainingFolder:
        """Write data and config below `root`."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            write_data(root)
            write_json(PATHS.config, config(training=SETTINGS).model_dump(mode="json"))
        return cls(root)

    def start(self, limit: Callable[[], object] | None = None) -> subprocess.Popen[str]:
        """Start `segbench train`; `limit` is called in the new process first."""
        environment = {name: value for name, value in os.environ.items() if name != OWNER_VARIABLE}
        return subprocess.Popen(
            [sys.executable, "-m", "segbench", "train", "--config", str(PATHS.config), "--job", JOB, "--threads", "1"],
            cwd=self.root,
            env=environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=limit,
        )

    def finish(self, process: subprocess.Popen[str] | None = None, *, status: int = 0) -> str:
        """Wait until a process, or a new one, ends with this status; return what it said."""
        process = process or self.start()
        said, _ = process.communicate(timeout=120)
        assert process.returncode == status, said
        return said

    def outcome(self) -> dict:
        """Return the outcome of the job."""
        return json.loads((self.root / PATHS.train(JOB) / "outcome.json").read_text())

    def weights(self) -> bytes:
        """Return the trained weights, of a job that went well and left no state."""
        assert self.outcome()["status"] == "ok"
        assert not list((self.root / STATE).parent.iterdir())
        return (self.root / PATHS.train(JOB) / "weights.pt").read_bytes()

    def wait_for_state(self, process: subprocess.Popen[str], name: str = STATE.name) -> Path:
        """Return the path of a state once it is there."""
        path = (self.root / STATE).with_name(name)
        while not path.exists():
            assert process.poll() is None, "it ended before it saved"
            time.sleep(0.01)
        return path

    def forget(self) -> None:
        """Remove what was trained, so that the job can be done again."""
        for path in (PATHS.train(JOB), STATE.parent):
            shutil.rmtree(self.root / path, ignore_errors=True)
