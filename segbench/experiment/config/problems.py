"""From pydantic's errors to problems that name the key, and back to the sections of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from segbench.core.errors import Problem, suggestion


def section_of(annotation: Any) -> Any:
    """Return the config section inside a type annotation, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = section_of(inner)
        if found is not None:
            return found
    return None


def as_problem(where: str, item: Mapping[str, Any], schema: Any = None) -> Problem:
    """Return an error of pydantic as a problem; `schema` is the section that knows the keys of a suggestion."""
    location = [str(part) for part in item["loc"]]
    key = ".".join([where, *location]) if where else ".".join(location)
    if item["type"] == "segbench":
        return Problem(key, **{name: item["ctx"][name] for name in ("found", "expected", "fix")})
    if item["type"] == "extra_forbidden":
        return Problem(
            key, "an unknown key", "a known key", suggestion(location[-1], _known_keys(schema, location[:-1]))
        )
    if item["type"] == "missing":
        return Problem(key, "nothing", "a value", "see config/README.md")
    return Problem(key, repr(item["input"])[:120], item["msg"].removeprefix("Input should be "), "see config/README.md")


def _known_keys(section: Any, location: list[str]) -> list[str]:
    for part in location:
        field = getattr(section, "model_fields", {}).get(part)
        if field is None:
            continue  # an index of a list or the tag of a union
        section = section_of(field.annotation)
    return list(getattr(section, "model_fields", {}))
