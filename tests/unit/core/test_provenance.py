"""A fingerprint of the training code leaves out nothing that changes training; messages name no machine."""

import ast
from pathlib import Path

import pytest

from segbench.core.cards import code_of, model_cards, objective_cards
from segbench.core.provenance import ROOT, TRAINING_CODE, portable

PACKAGES = ("models", "segbench.data", "segbench.training")
METHODS = [(name, False) for name, card in model_cards().items() if card["kind"] != "control"]
METHODS += [(name, True) for name in objective_cards()]


def imported(path: Path) -> set[Path]:
    """Files of the packages that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = {ROOT / f"{name.replace('.', '/')}.py" for name in names if name.startswith(PACKAGES)}
    return {file for file in files if file.exists()}


def reached(start: set[Path]) -> set[str]:
    """Files that are reached from some by imports, themselves included."""
    found, waiting = set(), set(start)
    while waiting:
        path = waiting.pop()
        found.add(path)
        waiting |= imported(path) - found
    return {str(path.relative_to(ROOT)) for path in found}


def own_files(name: str, *, objective: bool) -> set[Path]:
    path = ROOT / code_of(name, objective=objective)
    return set(path.glob("*.py")) if path.is_dir() else {path}


def test_every_listed_file_exists():
    assert not [name for name in TRAINING_CODE if not (ROOT / name).is_file()]


@pytest.mark.parametrize(("name", "objective"), METHODS)
def test_every_file_that_trains_a_method_is_in_its_fingerprints(name, objective):
    own = own_files(name, objective=objective)
    assert all(path.is_file() for path in own)
    own_names = {str(path.relative_to(ROOT)) for path in own}
    files = reached(own | {ROOT / "segbench/training/loop.py"})
    assert files <= set(TRAINING_CODE) | own_names
    assert "models/backbone.py" in files, "imports are followed"


def test_folders_of_the_machine_are_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = f"no {tmp_path}/data/a.nii.gz, {tmp_path}/results/x, {ROOT}/models/m.py line 3"
    assert portable(text, tmp_path / "data") == "no <data>/a.nii.gz, <run>/results/x, <code>/models/m.py line 3"
    assert portable(text, Path("data")) == "no <data>/a.nii.gz, <run>/results/x, <code>/models/m.py line 3"
