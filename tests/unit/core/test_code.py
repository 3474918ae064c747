"""Digests of code: an edit that cannot change a number changes none, any other one does."""

import subprocess
import sys
from pathlib import Path

import pytest

from segbench.core import code
from segbench.core.cards import code_of, model_cards, objective_cards
from segbench.experiment.identity import TRAINING
from tests.paths import ROOT

CODE = '''"""What it does."""
import models.helper
CARD = {"title": "Net"}
SIZE = 3
"""The size."""


class Net:
    """A network."""

    def run(self, x):
        """Run."""
        return x * SIZE  # grow
'''
HELPER = "def help():\n    from segbench.deep import deep\n    return deep\n"
DEEP = """
from segbench.core import facts
from segbench.core.seeds import seed
from segbench.experiment import jobs
from segbench import pack
deep = 1
"""
FILES = {
    "models/net.py": CODE,
    "models/helper.py": HELPER,
    "segbench/deep.py": DEEP,
    "segbench/core/facts.py": "fact = 1\n",
    "segbench/core/seeds.py": "seed = 1\n",
    "segbench/experiment/jobs.py": "job = 1\n",
    "segbench/pack/__init__.py": "from . import near\nfrom .near import thing\n",
    "segbench/pack/near.py": "thing = 1\n",
    "segbench/alone.py": "alone = 1\n",
}
REACHED = {
    "models/net.py",
    "models/helper.py",
    "segbench/deep.py",
    "segbench/core/seeds.py",
    "segbench/pack/__init__.py",
    "segbench/pack/near.py",
}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A small repository; the returned function writes files and gives the digest of models/net.py."""
    monkeypatch.setattr(code, "ROOT", tmp_path)

    def digest(changes=None, **options):
        for name, text in (FILES | (changes or {})).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        for cached in (code._digest_of, code.imports_of, code._parsed):
            cached.cache_clear()
        return code.code_digest("models/net.py", **options)

    yield digest
    for cached in (code._digest_of, code.imports_of, code._parsed):
        cached.cache_clear()


def test_imports_are_followed_into_functions_and_folders_but_not_into_settings(repository):
    repository()
    assert code.imported_files(["models/net.py"]) == REACHED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # grow", "  # another comment"),
        ('"""Run."""', '"""Another docstring."""'),
        ('        """Run."""\n', ""),
        ('"""What it does."""\n', ""),
        ('"""A network."""', '"""Another."""'),
        ('"""The size."""', '"""How large it is."""'),
        ('"Net"', '"A better title"'),
        ("CARD = {", "CARD: dict = {"),
        ("x * SIZE", "(x\n            * SIZE)"),
        ("SIZE = 3\n", "SIZE=3;\n\n"),
    ],
)
def test_comments_docstrings_formatting_and_cards_keep_the_digest(repository, old, new):
    before = repository()
    assert CODE.replace(old, new) != CODE
    assert repository({"models/net.py": CODE.replace(old, new)}) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("models/net.py", "SIZE = 3", "SIZE = 4"),
        ("models/net.py", "SIZE = 3", "SIZE = 3.0"),
        ("models/net.py", "x * SIZE", "x + SIZE"),
        ("models/net.py", "x * SIZE", "SIZE * x"),
        ("models/net.py", "run(self, x)", "run(self, x=None)"),
        ("models/net.py", "import models.helper\n", ""),
        ("models/helper.py", "return deep", "return -deep"),
        ("segbench/deep.py", "deep = 1", "deep = 2"),
        ("segbench/core/seeds.py", "seed = 1", "seed = 2"),
        ("segbench/pack/near.py", "thing = 1", "thing = 2"),
    ],
)
def test_code_that_does_something_else_has_another_digest(repository, name, old, new):
    before = repository()
    assert old in FILES[name]
    assert repository({name: FILES[name].replace(old, new)}) != before


@pytest.mark.parametrize("name", ["segbench/core/facts.py", "segbench/experiment/jobs.py", "segbench/alone.py"])
def test_settings_and_files_that_are_not_imported_change_nothing(repository, name):
    before = repository()
    assert repository({name: FILES[name] + "other = 2\n"}) == before


def test_the_search_stops_at_the_given_files(repository):
    before = repository(without=["models/helper.py"])
    assert repository({"segbench/deep.py": "deep = 9\n"}, without=["models/helper.py"]) == before
    assert code.imported_files(["models/net.py"], ["models/helper.py"]) == {"models/net.py"}


def test_an_entry_that_is_absent_is_named(repository):
    repository()
    with pytest.raises(FileNotFoundError, match=r"models/none\.py is no file"):
        code.code_digest("models/none.py")


def test_files_are_told_by_their_bytes_and_endings(repository, tmp_path):
    repository({"segbench/page.css": "a", "segbench/page.txt": "a"})
    before = code.files_digest("segbench", suffixes=(".css",))
    (tmp_path / "segbench/page.txt").write_text("b")
    assert code.files_digest("segbench", suffixes=(".css",)) == before
    (tmp_path / "segbench/page.css").write_text("b")
    assert code.files_digest("segbench", suffixes=(".css",)) != before


def test_only_code_that_reads_an_attribute_mentions_it(repository):
    repository({"models/net.py": "def f(task):\n    return task.structures\n"})
    assert code.mentions("models/net.py", "structures")
    assert not code.mentions("models/net.py", "channels")
    assert not code.mentions("models/helper.py", "structures")


def others() -> list[str]:
    """Other versions of Python on this machine that parse this code."""
    found = [*Path("/usr/bin").glob("python3.1[0-9]"), *Path.home().glob(".pyenv/versions/3.1[0-9]*/bin/python3")]
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    versions = {}
    for path in found:
        program = "import sys; print(*sys.version_info[:2], sep='.')"
        answer = subprocess.run([str(path), "-c", program], capture_output=True, check=False)
        version = answer.stdout.decode().strip()
        if version and version != own and int(version.split(".")[1]) >= 11:
            versions[version] = str(path)
    return list(versions.values())


@pytest.mark.skipif(not others(), reason="no other version of Python on this machine")
def test_another_python_gives_the_same_digests():
    entries = [TRAINING, "segbench/metrics", "segbench/stats", "models/baselines", "models/uniseg"]
    program = f"from segbench.core.code import code_digest\nfor name in {entries}: print(code_digest(name))"
    for python in others():
        answer = subprocess.run([python, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        assert answer.stdout.split() == [code.code_digest(name) for name in entries], python


def test_the_digest_of_training_reaches_what_shapes_a_batch_and_a_step():
    files = code.imported_files([TRAINING])
    for name in ("data/sampling", "data/transforms", "data/store", "training/losses", "training/data", "core/seeds"):
        assert f"segbench/{name}.py" in files, name
    above = ("segbench/cli", "segbench/evaluation", "segbench/reporting")
    assert not [name for name in files if name.startswith(above)]


NETWORKS = [(name, False) for name, card in model_cards().items() if card["kind"] != "control"]


@pytest.mark.parametrize(("name", "objective"), [*NETWORKS, *((name, True) for name in objective_cards())])
def test_no_code_of_another_model_is_part_of_a_model(name, objective):
    own = code_of(name, objective=objective)
    families = ("models/baselines/", "segbench/training/self_supervised/", "models/uniseg/")
    files = {file for file in code.imported_files([own]) if file.startswith(families)}
    assert files
    assert all(file == own or file.startswith(f"{own}/") for file in files)
