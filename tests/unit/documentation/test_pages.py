"""README.md and docs/ name what is there: commands with their options, files, links and counts; commands run as shown.

A block of commands is executed, or its title says what it needs (`NEEDS`), or another test executes it (`ELSEWHERE`).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segbench.cli import build_parser
from segbench.core.cards import model_cards
from segbench.reporting.bundle import write_bundle
from segbench.reporting.page import render
from tests.paths import ROOT
from tests.unit.reporting.finished_run import write_finished_run

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^( *)```(\w*)(?: title=\"[\w ]+\")?\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
TITLED = re.compile(r"^( *)```sh(?: title=\"([\w ]+)\")?\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
NEEDS = {
    "needs data",
    "needs a GPU",
    "needs a cluster",
    "needs a finished run",
    "needs a network connection",
    "needs Chromium",
    "takes minutes",
}
ELSEWHERE = {
    "python -m segbench new-baseline film --title FiLM": ("tests/unit/cli/test_new_baseline.py", '"new-baseline"'),
    "python -m pytest tests/contract -k film": ("tests/contract/subjects.py", "add_a_baseline.md"),
    "python -m segbench.documentation.models": ("tests/unit/documentation/test_models.py", "documentation"),
}
"""Command -> the test that executes it, and words of that test."""
COMMAND = re.compile(r"python -m segbench (?!--help)([^`;|#\n]*)")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
FILE = re.compile(r"`((?:segbench|models|tests|workflow|envs|benchmarks)/[a-z0-9_./]+)`")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(page) -> str:
    return page.read_text(encoding="utf-8")


def commands_of(text: str) -> list[list[str]]:
    """Return the arguments of every command of segbench that stands in a block or between backticks."""
    blocks = [content.replace("\\\n", " ") for _, language, content in BLOCK.findall(text) if language != "python"]
    inline = [found.replace("\n", " ") for found in re.findall(r"`(python -m segbench [^`]+)`", BLOCK.sub("", text))]
    found = [shlex.split(arguments) for part in [*blocks, *inline] for arguments in COMMAND.findall(part)]
    return [[argument for argument in arguments if argument != "..."] for arguments in found]


def test_commands_are_found_in_blocks_and_in_sentences():
    text = "Use `python -m segbench check\n--config a.yaml`.\n\n```sh\npython -m segbench list \\\n  models  # all\n```"
    assert commands_of(text) == [["list", "models"], ["check", "--config", "a.yaml"]]


@each_page
def test_every_command_has_these_options(page):
    for arguments in commands_of(text_of(page)):
        parser = build_parser(arguments[0])
        if len(arguments) > 1:  # a name alone stands for the command
            assert parser.parse_args(arguments).command == arguments[0]


@each_page
def test_python_blocks_compile(page):
    for _, language, content in BLOCK.findall(text_of(page)):
        if language == "python":
            compile(content, str(page), "exec")


@each_page
def test_links_lead_to_files(page):
    targets = {(page.parent / target).resolve() for target in LINK.findall(text_of(page))}
    assert not [target for target in targets if not target.exists()]


@each_page
def test_named_files_are_there(page):
    named = {name for name in FILE.findall(text_of(page)) if not name.startswith("models/baselines/film")}
    assert not [name for name in sorted(named) if not list(ROOT.glob(f"{name.rstrip('/')}*"))]


def test_the_counts_of_the_first_page_are_those_of_the_cards():
    kinds = [card["kind"] for card in model_cards().values()]
    universal, per_task = kinds.count("universal"), kinds.count("single_task")
    text = text_of(ROOT / "README.md")
    assert f"{universal} universal and {per_task} per-task networks" in text
    assert f"all {universal + per_task} networks" in text


def blocks_of(page: Path) -> list[tuple[str, list[str]]]:
    """Return what each block of shell commands needs, empty when it is executed, and its commands."""
    found = []
    for _, needs, content in TITLED.findall(text_of(page)):
        lines = (line.partition(" #")[0].strip() for line in content.replace("\\\n", " ").splitlines())
        found.append((needs, [line for line in lines if line and not line.startswith("#")]))
    return found


@each_page
def test_every_block_of_commands_is_executed_or_says_what_it_needs(page):
    assert {needs for needs, _ in blocks_of(page)} <= NEEDS | {""}
    for _, language, content in BLOCK.findall(text_of(page)):
        shown = re.search(r"^ *(python -m|make |snakemake |pip )", content, re.MULTILINE)
        assert language == "sh" or not shown, f"a block with {shown[0]!r} has no language"


def test_commands_that_other_tests_execute_are_there():
    for command, (test, words) in ELSEWHERE.items():
        assert words in (ROOT / test).read_text(), f"{test} no longer executes {command}"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory) -> Path:
    """A folder as a person has it: the checkout's files, a finished run, masks and tables of scores."""
    root = tmp_path_factory.mktemp("sandbox")
    for name in ("config", "envs", "docs"):
        (root / name).symlink_to(ROOT / name)
    write_finished_run(root, "demo")
    render(root / "results" / "demo", root / "results" / "demo" / "report")
    shutil.copytree(root / "results" / "demo" / "report", root / "reports" / "demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_bundle("demo", root / "demo.zip")
    generator = np.random.default_rng(0)
    for folder in ("labels", "masks"):
        (root / folder).mkdir()
        for case in range(4):
            labels = generator.integers(0, 3, (8, 8, 8)).astype(np.uint8)
            nib.save(nib.Nifti1Image(labels, np.eye(4)), root / folder / f"case_{case}.nii.gz")
    for model, shift in (("ours", 0.0), ("theirs", 0.05), ("scores", 0.1)):
        rows = [f"{model},liver,case_{case},liver,dice,{0.7 + case / 50 - shift:.3f}" for case in range(8)]
        (root / f"{model}.csv").write_text("model,task,case,structure,metric,value\n" + "\n".join(rows) + "\n")
    return root


EXECUTED = [page for page in PAGES if any(not needs for needs, _ in blocks_of(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.name)
def test_the_commands_of_a_page_run_as_shown(page, sandbox):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": path}
    for needs, commands in blocks_of(page):
        for command in [] if needs else [item for item in commands if item not in ELSEWHERE]:
            done = subprocess.run(["bash", "-c", command], cwd=sandbox, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, (command, done.stdout[-1000:], done.stderr[-2000:])
