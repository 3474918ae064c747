"""Write config/schema.json and config/README.md: `python -m segbench.documentation.config`."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from segbench.core.code import ROOT
from segbench.core.files import write_text
from segbench.experiment.config import Config, schema, section_of

HEAD = """\
# Config keys

Generated from `segbench/experiment/config/` by `python -m segbench.documentation.config`; a test keeps it in
step.
Unknown keys are refused with a suggestion; `python -m segbench check --config FILE` names every problem in one line.

| key | meaning | default |
|---|---|---|
"""


def schema_text() -> str:
    """Return the JSON schema as the text of config/schema.json."""
    return json.dumps(schema(), indent=1, sort_keys=True) + "\n"


def keys_page() -> str:
    """Return the table of all keys as the text of config/README.md."""
    rows = (f"| `{key}` | {meaning} | {default} |\n" for key, meaning, default in _rows(Config, ""))
    return HEAD + "".join(rows)


def _rows(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        key = f"{prefix}{name}"
        if inner is None:
            yield key, field.description or "", _default(field)
            continue
        many = "[]" if "tuple" in str(field.annotation) else ""
        description = (field.description or inner.__doc__ or "").replace("\n", " ")
        yield key + many, description, "required" if field.is_required() else "see below"
        yield from _rows(inner, f"{key}{many}.")


def _default(field) -> str:
    if field.is_required():
        return "required"
    value = field.default if field.default is not PydanticUndefined else field.default_factory()
    return f"`{json.dumps(value)}`"


def main() -> None:
    """Write both files."""
    write_text(ROOT / "config" / "schema.json", schema_text())
    write_text(ROOT / "config" / "README.md", keys_page())


if __name__ == "__main__":
    main()
