"""Write config/schema.json and config/README.md: `python -m segbench.documentation.config`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from segbench.core.files import write_text
from segbench.core.provenance import ROOT
from segbench.experiment.config import schema

Node = Mapping[str, Any]
"""A part of the JSON schema."""

HEAD = """\
# Config keys

Generated from `segbench/experiment/config/` by `python -m segbench.documentation.config`; a test keeps it in step.

A config is one YAML or JSON file. Unknown keys, keys that come twice or are no text, empty names, numbers that are not
finite and truth values in place of numbers (YAML reads `no` and `off` as `false`) are refused.
`python -m segbench check --config FILE` names every problem, one line each. `config/schema.json` lets an editor
complete keys and values. A *name* has at most 60 letters, digits and underscores and begins with a letter or digit.
"""
TABLE = "| key | allowed values | default | meaning |\n|---|---|---|---|\n"
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true` or `false`",
    "null": "null",
}


def schema_text() -> str:
    """Return the JSON schema as the text of config/schema.json."""
    return json.dumps(schema(), indent=1, sort_keys=True) + "\n"


def keys_page() -> str:
    """Return the tables of all keys, one per section, as the text of config/README.md."""
    whole = schema()
    parts = [HEAD, "## The whole config\n", TABLE + "".join(_rows(whole, whole))]
    first: dict[str, str] = {}
    for name, section in _sections(whole, whole, ""):
        same = first.setdefault(section["title"], name)
        if same != name:
            parts += [f"## `{name}`\n", f"The keys of `{same}`.\n"]
            continue
        parts += [f"## `{name}`\n", _words(section) + "\n", TABLE + "".join(_rows(section, whole))]
    return "\n".join(parts)


def _words(node: Node) -> str:
    """Return a description on one line, in which no character has a meaning in a table or as HTML."""
    text = " ".join(node.get("description", "").split())
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def _sections(section: Node, whole: Node, prefix: str) -> Iterator[tuple[str, Node]]:
    """Yield (dotted name, schema) of every section inside a section, in order."""
    for key, node in section["properties"].items():
        inner, many = _section_in(node, whole)
        if inner is not None:
            name = f"{prefix}{key}{'[]' if many else ''}"
            yield name, inner
            yield from _sections(inner, whole, f"{name}.")


def _section_in(node: Node, whole: Node) -> tuple[Node | None, bool]:
    """Return the section that a key holds, if any, and whether it holds a list of them."""
    if "$ref" in node:
        return whole["$defs"][node["$ref"].rsplit("/", 1)[-1]], False
    for inner in node.get("anyOf", ()):
        found, many = _section_in(inner, whole)
        if found is not None:
            return found, many
    items = node.get("items", {})
    return (_section_in(items, whole)[0], True) if items else (None, False)


def _rows(section: Node, whole: Node) -> Iterator[str]:
    for key, node in section["properties"].items():
        default = "required" if key in section.get("required", ()) else f"`{json.dumps(node.get('default', {}))}`"
        inner, many = _section_in(node, whole)
        if inner is not None:
            allowed = "list, see below" if many else "section, see below"
            default = default if default in ("required", "`[]`", "`null`") else "see below"
        else:
            allowed = allowed_values(node)
        meaning = _words(node) or (_words(inner) if inner else "")
        yield f"| `{key}` | {allowed} | {default} | {meaning} |\n"


def allowed_values(node: Node) -> str:
    """Return the values that a JSON schema allows, in words: a type with its range, or the list of values."""
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(allowed_values(inner) for inner in node["anyOf"]))
    if "const" in node or "enum" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    kind = node.get("type")
    if kind == "array":
        return _list_words(node)
    if kind == "object":
        return _mapping_words(node)
    if node.get("pattern", "").startswith("^[A-Za-z0-9]["):
        return "name"
    if "0-9a-f" in node.get("pattern", ""):
        return "64 hexadecimal digits"
    if kind is None:
        return "any"
    bounds = " and ".join(f"{words} {node[key]:g}" for key, words in BOUNDS.items() if key in node)
    return f"{TYPES[kind]} {bounds}".strip()


def _list_words(node: Node) -> str:
    if "prefixItems" in node:
        return f"list of {len(node['prefixItems'])}: {allowed_values(node['prefixItems'][0])}"
    distinct = "distinct " if node.get("uniqueItems") else ""
    least = f", at least {node['minItems']}" if node.get("minItems") else ""
    return f"list of {distinct}values{least}: {allowed_values(node['items'])}"


def _mapping_words(node: Node) -> str:
    names, values = node.get("propertyNames", {}), node.get("additionalProperties", True)
    left = names.get("title") or (allowed_values(names) if "enum" in names else "text")
    return f"mapping, {left}: {allowed_values(values if isinstance(values, dict) else {})}"


def main() -> None:
    """Write both files."""
    write_text(ROOT / "config" / "schema.json", schema_text())
    write_text(ROOT / "config" / "README.md", keys_page())


if __name__ == "__main__":
    main()
