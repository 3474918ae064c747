"""`pip install .`: a reviewer's commands need the base packages of pyproject.toml alone; others say what is absent."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.unit.reporting.finished_run import write_finished_run

IMPORTED_AS = {
    "connected-components-3d": "cc3d",
    "scikit-learn": "sklearn",
    "simpleitk": "SimpleITK",
    "pyyaml": "yaml",
    "scikit-posthocs": "scikit_posthocs",
}
WITHOUT = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from segbench.cli import main
sys.exit(main({arguments!r}))
"""


def names_of(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", item)[0].lower() for item in requirements}


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def absent(project) -> set[str]:
    """Names of modules that only the whole installation has."""
    names = names_of(project["optional-dependencies"]["run"])
    return {IMPORTED_AS.get(name, name) for name in names}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("light")
    write_finished_run(root, "toy")
    return root


def run(world: Path, absent: set[str], *arguments: str) -> subprocess.CompletedProcess:
    code = WITHOUT.format(absent=absent, arguments=list(arguments))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], cwd=world, env=environment, capture_output=True, text=True)


def test_a_reviewer_can_pack_verify_report_and_compare(world, absent):
    commands = (
        ("bundle", "toy", "--out", "toy.zip"),
        ("verify", "toy.zip"),
        ("report", "--results", "results/toy", "--out", "results/toy/report"),
        ("compare", "results/toy/scores.csv", "--out", "comparison"),
        ("checklist", "results/toy", "--out", "checklists.md"),
        ("list", "models"),
    )
    for arguments in commands:
        done = run(world, absent, *arguments)
        assert done.returncode == 0, (arguments, done.stderr[-2000:])
    assert (world / "comparison" / "index.html").exists()


def test_a_command_that_needs_more_says_what_to_install(world, absent):
    done = run(world, absent, "predict", "--config", "none.json", "--job", "a", "--images", "b", "--output", "c")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert re.search(r"segbench predict: \w+ is not installed; .*pip install \.\[run\]", done.stderr)


def test_every_package_of_the_project_is_pinned_in_the_lock_alone(project):
    lock = (ROOT / "envs" / "lock.txt").read_text() + (ROOT / "envs" / "lock-no-deps.txt").read_text()
    pinned = {line.partition("==")[0].lower() for line in lock.splitlines() if "==" in line}
    asked = names_of(project["dependencies"]) | names_of(project["optional-dependencies"]["run"])
    assert asked <= pinned
    assert not [item for item in project["dependencies"] if "==" in item]
