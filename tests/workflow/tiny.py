"""A tiny synthetic run through the real workflow, in a folder of its own."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.paths import ROOT
from tests.small_network import NETWORK

CONFIG = {
    "run": "tiny",
    "data": {
        "root": "data/raw/phantom",
        "phantom": {"seed": 5, "train_cases": 3, "test_cases": 2},
        "test_fraction": 0.4,
    },
    "network": NETWORK,
    "training": {"iterations_per_task": 3, "augmentation": "light", "save_every_seconds": 0.001},
    "inference": {"step": 1.0},
    "upstream": {
        "tasks": ["phantom_spleen", "phantom_petct"],
        "models": ["uniseg", "single_task"],
        "self_supervised": ["restoration"],
        "controls": ["oracle", "empty"],
    },
    "downstream": {"tasks": ["phantom_schwannoma"], "initialisations": ["scratch", "uniseg", "restoration"]},
    "metrics": ["dice", "hd95"],
}


class Workflow:
    """The workflow with a config in a folder."""

    def __init__(self, folder: Path, config: dict | None = None):
        self.folder = folder
        self.config_path = folder / "config.yaml"
        self.configure(config or CONFIG)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PATH": path}

    def configure(self, config: dict) -> None:
        """Write the config."""
        self.config = copy.deepcopy(config)
        self.config_path.write_text(yaml.safe_dump(self.config))

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of Snakemake."""
        return [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            str(ROOT / "workflow" / "Snakefile"),
            "--cores",
            "2",
            "--workflow-profile",
            str(ROOT / "workflow" / "profiles" / "default"),
            "--directory",
            str(self.folder),
            "--configfile",
            str(self.config_path),
            *arguments,
        ]

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        """Start the workflow and return at once."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **options,
        )

    def run(self, *arguments: str, limit_seconds: float = 600.0) -> subprocess.CompletedProcess:
        """Run the workflow to its end; `stdout` holds all output."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=limit_seconds)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def segbench(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run `python -m segbench` in the folder."""
        command = [sys.executable, "-m", "segbench", *arguments]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)

    @property
    def results(self) -> Path:
        """Folder of the run's results."""
        return self.folder / "results" / self.config["run"]

    def scores(self) -> bytes:
        """Bytes of the score table."""
        return (self.results / "scores.csv").read_bytes()

    def outcome(self, command: str, job: str) -> dict:
        """Return the outcome of a job."""
        return json.loads((self.results / command / job / "outcome.json").read_text())
