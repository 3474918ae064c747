"""README.md and docs/ name what is there: commands with their options, files, links and counts."""

from __future__ import annotations

import re
import shlex

import pytest

from segbench.cli import build_parser
from segbench.core.cards import model_cards
from tests.paths import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
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
