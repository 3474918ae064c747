"""Write models/baselines/NAME.py from a template that passes the contract tests as it is."""

from __future__ import annotations

import argparse
import importlib.util
import keyword
import re
from pathlib import Path

EXAMPLE = "python -m segbench new-baseline my_network --title 'My network'"
TEMPLATE = Path(__file__).with_name("_baseline_template.py")
NAME = re.compile(r"[a-z][a-z0-9_]*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("name", help="file and model name: small letters, digits and underscores")
    parser.add_argument("--title", help="name shown in tables (default: the name with spaces)")
    parser.add_argument("--folder", type=Path, help="where to write it (default: models/baselines of this checkout)")


def run(args: argparse.Namespace) -> int:
    """Write the file and print what to do next; an existing model or a bad name raises `InputError`."""
    from segbench.core.files import write_text

    folder = args.folder or baselines_folder()
    path = folder / f"{args.name}.py"
    _check(args.name, path)
    write_text(path, baseline_source(args.title or args.name.replace("_", " ").capitalize()))
    print(f"wrote {path}")
    print(f"try it:     python -m pytest tests/contract -k {args.name}")
    print(f"compare it: add '- name: {args.name}' below upstream.models in your config")
    print("describe it: fill in the card, then python -m segbench.documentation.models")
    print("each step:   docs/add_a_baseline.md")
    return 0


def baseline_source(title: str) -> str:
    """Return the template with its title filled in."""
    source = TEMPLATE.read_text(encoding="utf-8")
    return source.replace('"title": "Template"', f'"title": {_quoted(title)}')


def baselines_folder() -> Path:
    """Return models/baselines of the installed package, found without importing a network library."""
    return Path(importlib.util.find_spec("models.baselines").submodule_search_locations[0])


def _check(name: str, path: Path) -> None:
    from segbench.core.cards import model_cards
    from segbench.core.errors import input_error

    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise input_error(
            "name of the baseline", found=repr(name), expected="small letters, digits, underscores", fix="rename it"
        )
    if path.exists() or name in model_cards():
        raise input_error(
            path, found="a model of that name", expected="a new name", fix="choose another, or edit that file"
        )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'
