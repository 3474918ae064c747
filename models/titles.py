"""What a model is called in tables: its card's title and the options that make it another model. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def title_for(card: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Return the title with each option that differs from its default, or whose card says `always_named`.

    A card's option may say how: `labels` maps values to words, `label` is a pattern with {value}; otherwise it reads
    'name = value'. Paths are shortened to the name of the file.
    """
    named = []
    for name, entry in card["options"].items():
        value = options.get(name, entry["default"])
        if value != entry["default"] or entry.get("always_named"):
            named.append(_named(name, value, entry))
    return f"{card['title']} ({', '.join(named)})" if named else card["title"]


def _named(name: str, value: Any, entry: Mapping[str, Any]) -> str:
    if value in entry.get("labels", ()):
        return entry["labels"][value]
    text = Path(value).name if isinstance(value, str) and "/" in value else value
    return entry.get("label", f"{name} = {{value}}").format(value=text)
