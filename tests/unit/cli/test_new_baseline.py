"""`new-baseline` writes one file whose card and network are ready to use, and never overwrites."""

from __future__ import annotations

import ast

import pytest

from segbench.cli import main
from segbench.core.cards import ModelCard, checked, read_card


def test_writes_a_file_with_a_valid_card(tmp_path, capsys):
    assert main(["new-baseline", "my_network", "--title", 'My "net"', "--folder", str(tmp_path)]) == 0
    card = checked(read_card(tmp_path / "my_network.py"), ModelCard, "my_network.py")
    assert card["title"] == 'My "net"'
    assert "- name: my_network" in capsys.readouterr().out


def test_title_follows_the_name(tmp_path):
    main(["new-baseline", "my_network", "--folder", str(tmp_path)])
    assert read_card(tmp_path / "my_network.py")["title"] == "My network"


@pytest.mark.parametrize("name", ["My", "2fast", "a-b", "class", "../up"])
def test_bad_name_is_the_users_problem(name, tmp_path, capsys):
    assert main(["new-baseline", name, "--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_existing_names_are_kept(tmp_path, capsys):
    assert main(["new-baseline", "nnunet_plain", "--folder", str(tmp_path)]) == 2
    (tmp_path / "mine.py").write_text("x = 1\n")
    assert main(["new-baseline", "mine", "--folder", str(tmp_path)]) == 2
    assert (tmp_path / "mine.py").read_text() == "x = 1\n"
    assert "choose another" in capsys.readouterr().err


def test_file_imports_no_other_baseline(tmp_path):
    main(["new-baseline", "my_network", "--folder", str(tmp_path)])
    nodes = ast.walk(ast.parse((tmp_path / "my_network.py").read_text()))
    imported = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    assert imported
    assert not [name for name in imported if name.startswith("models.baselines")]
