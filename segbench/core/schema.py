"""From pydantic's errors to problems that name the key, for the config and for cards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticCustomError

from segbench.core.errors import Problem, suggestion
from segbench.core.paths import NAME_PATTERN

SECTION, LIST = "a section of keys", "a list"
EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": LIST,
    "list_type": LIST,
    "dict_type": SECTION,
    "model_type": SECTION,
    "model_attributes_type": SECTION,
}
"""What a key expects, by the type of pydantic's error, where pydantic speaks of Python."""
PATTERNS = {
    r"\S": "text that is not blank",
    f"^{NAME_PATTERN}$": "letters, digits and underscores, of which the first is no underscore",
    r"^[0-9a-f]{64}$": "64 hexadecimal digits, in lower case",
}
"""What a text expects, by its pattern."""

CONFIG_PAGE = "config/README.md"


def section_of(annotation: Any) -> Any:
    """Return the section, a model of pydantic, inside a type annotation, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = section_of(inner)
        if found is not None:
            return found
    return None


def problem_of_value(found: str, expected: str, fix: str) -> PydanticCustomError:
    """Return an error for a validator to raise, which becomes a problem of its key with these words."""
    return PydanticCustomError("segbench", "{expected}", {"found": found, "expected": expected, "fix": fix})


def as_problem(where: str, item: Mapping[str, Any], schema: Any = None, *, page: str = CONFIG_PAGE) -> Problem:
    """Return an error of pydantic as a problem; `schema` knows the keys of a suggestion, `page` explains the keys."""
    location = [str(part) for part in item["loc"]]
    key = ".".join([where, *location]) if where else ".".join(location)
    if item["type"] == "segbench":
        return Problem(key, **{name: item["ctx"][name] for name in ("found", "expected", "fix")})
    if item["type"] == "extra_forbidden":
        return Problem(
            key, "an unknown key", "a known key", suggestion(location[-1], _known_keys(schema, location[:-1]))
        )
    if item["type"] == "missing":
        return Problem(key, "nothing", "a value", f"see {page}")
    return Problem(key, repr(item["input"])[:120], _expected(item), _fix(item, page))


def _expected(item: Mapping[str, Any]) -> str:
    context = item.get("ctx", {})
    if item["type"] == "string_pattern_mismatch":
        return PATTERNS.get(context["pattern"], f"text that matches {context['pattern']}")
    if item["type"] == "too_short":
        return f"at least {context['min_length']}"
    return EXPECTED.get(item["type"], item["msg"].removeprefix("Input should be "))


def _fix(item: Mapping[str, Any], page: str) -> str:
    if item["type"] == "string_type" and not isinstance(item["input"], (list, dict, type(None))):
        return "put it in quotes; YAML reads no, on, 2024 and 2024-01-01 as other values than text"
    if item["type"] in ("int_parsing", "float_parsing") and item["input"] in ("true", "false"):
        return "write a number; YAML reads yes and on as true, no and off as false"
    return f"see {page}"


def _known_keys(section: Any, location: list[str]) -> list[str]:
    for part in location:
        field = getattr(section, "model_fields", {}).get(part)
        if field is None:
            continue  # an index of a list or the tag of a union
        section = section_of(field.annotation)
    return list(getattr(section, "model_fields", {}))
