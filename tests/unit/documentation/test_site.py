"""What the hook of the documentation site generates: every command, every data set, nested lists."""

from __future__ import annotations

import importlib.util

import pytest

from segbench.cli import commands
from segbench.core.cards import dataset_cards
from tests.paths import ROOT


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "docs" / "site_hook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_has_a_section_with_its_options_and_example(hook):
    sections = {part.partition("\n")[0]: part for part in hook.commands_page().split("\n## ")[1:]}
    assert set(sections) == set(commands())
    assert "`--pseudonymise`" in sections["bundle"]
    assert "Required." in sections["bundle"]
    assert "One of models, tasks, datasets." in sections["list"]
    assert all("```sh\npython -m segbench " in part for part in sections.values())


def test_every_data_set_has_a_row_of_seven_cells(hook):
    rows = [line for line in hook.datasets_page().splitlines() if line.startswith("| `")]
    assert len(rows) == len(dataset_cards())
    assert {line.replace("\\|", "").count("|") for line in rows} == {8}


def test_links_show_titles_instead_of_files(hook):
    text = "see [glossary.md](glossary.md), [reruns](reruns.md), [none.md](none.md)\n\n"
    text += "```md\n[glossary.md](glossary.md)\n```\n"
    found = hook.on_page_markdown(text)
    assert found.startswith("see [Glossary](glossary.md), [reruns](reruns.md), [none.md](none.md)\n")
    assert found.endswith("```md\n[glossary.md](glossary.md)\n```\n")


def test_nested_lists_are_indented_outside_blocks_of_code_only(hook):
    text = "- a\n  - b\n\n```yaml\n- c:\n  - d\n```\n\n- e\n  - f\n"
    assert hook.on_page_markdown(text) == "- a\n    - b\n\n```yaml\n- c:\n  - d\n```\n\n- e\n    - f\n"
