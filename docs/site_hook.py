"""Hook of mkdocs: pages that are generated from the commands, the config and the cards of the data sets.

They are made while the site is built and never stored, so they cannot go stale.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segbench.cli import build_parser
from segbench.core.cards import dataset_cards
from segbench.documentation.config import keys_page

FENCE = re.compile(r"^ *```", re.MULTILINE)
NAMED_BY_FILE = re.compile(r"\[(\w+\.md)\](?=\(\1[#)])")
NESTED = re.compile(r"^  (?=[-*] )", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {"commands.md": commands_page(), "config_keys.md": keys_page(), "datasets.md": datasets_page()}
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Indent nested lists by four blanks, as Python-Markdown asks, and call pages by their titles, not their files.

    GitHub takes two blanks as well, and shows files.
    """
    parts = FENCE.split(markdown)
    parts[::2] = [NAMED_BY_FILE.sub(_title, NESTED.sub("    ", part)) for part in parts[::2]]
    fences = FENCE.findall(markdown)
    return "".join(part + fence for part, fence in zip(parts, [*fences, ""], strict=True))


def _title(link: re.Match) -> str:
    path = Path(__file__).with_name(link[1])
    first = path.read_text(encoding="utf-8").partition("\n")[0] if path.exists() else ""
    return f"[{first.removeprefix('# ')}]" if first.startswith("# ") else link[0]


def commands_page() -> str:
    """Return one section per command: what it does, its options and an example."""
    parser = build_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    parts = [
        "# Commands\n",
        "`python -m segbench COMMAND`; each has `--help`. Exit status: 0 success, 1 the run failed, 2 the",
    ]
    parts[-1] += " input is wrong, with one line per problem.\n"
    for name, command in commands.choices.items():
        parts += [f"## {name}\n", f"{command.description}\n", "".join(_options(command))]
        parts.append(f"```sh\n{(command.epilog or '').removeprefix('example: ')}\n```\n")
    return "\n".join(parts)


def _options(command: argparse.ArgumentParser) -> Iterator[str]:
    for action in command._actions:
        if action.dest == "help":
            continue
        name = ", ".join(action.option_strings) or action.metavar or action.dest
        choices = f" One of {', '.join(map(str, action.choices))}." if action.choices else ""
        needed = " Required." if action.required and action.option_strings else ""
        yield f"- `{name}`: {action.help}.{choices}{needed}\n"


def datasets_page() -> str:
    """Return a table of the cards: what each data set is, its licence and how to get it."""
    head = [
        "---\nhide: [toc]\n---\n\n# Data sets\n",
        "One card each, in `segbench/data/sources/`. How to add one: [Add a data set](add_a_dataset.md).\n",
    ]
    rows = [
        "| name | title | channels | classes | licence | images may be shown | how to get it |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, card in sorted(dataset_cards().items()):
        cells = [
            f"`{name}`",
            card["title"],
            ", ".join(channel["name"] for channel in card["channels"]),
            ", ".join(card["classes"].values()),
            card["licence"],
            "yes" if card["permits"]["show_images"] else "no",
            card["obtain"],
        ]
        rows.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*head, *rows]) + "\n"
