"""Read a config file and check it: all its problems are raised at once.

This module alone reads the environment (`SEGBENCH_DATA`). It needs pydantic and PyYAML only, so that the workflow's
graph builds in an environment that holds Snakemake and nothing else.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from segbench.core.errors import InputError, Problem, input_error, raise_problems
from segbench.core.schema import as_problem, section_of
from segbench.core.yaml_keys import UniqueKeyLoader
from segbench.experiment.config import (
    combinations,
    data,
    downstream,
    external,
    network,
    preprocessing,
    statistics,
    upstream,
)
from segbench.experiment.config.experiment import Config
from segbench.experiment.config.section import Check

CHECKS: tuple[Check, ...] = tuple(
    check
    for module in (data, preprocessing, network, upstream, external, downstream, statistics, combinations)
    for check in module.CHECKS
)
STAND_INS: dict[str, dict[str, Any]] = {
    "upstream": {"tasks": ["missing"], "models": []},
    "downstream": {"tasks": ["missing"], "initialisations": ["scratch"]},
}
"""Values of required keys that are wrong or missing, so that the other keys are checked all the same."""


def load_config(path: Path | str) -> Config:
    """Read and check a YAML or JSON config file.

    Raises:
        InputError: the file is missing or no YAML, has a key twice or one that is no text, or has any problem that
            `parse_config` finds.
    """
    content, problems = _read(path)
    try:
        config = parse_config(content, where=str(path))
    except InputError as error:
        problems += error.problems
    raise_problems(problems)
    return config


def read_config_file(path: Path | str) -> Any:
    """Return the content of a YAML or JSON config file, unchecked.

    Raises:
        InputError: the file is missing or no YAML, or a mapping in it has a key twice or one that is no text.
    """
    content, problems = _read(path)
    raise_problems(problems)
    return content


def _read(path: Path | str) -> tuple[Any, list[Problem]]:
    """Return the content of a file without the keys that are no text, and the problems of its keys."""
    try:
        loader = UniqueKeyLoader(Path(path).read_text(encoding="utf-8"), where=str(path))
        content = loader.get_single_data()
    except OSError as error:
        raise input_error(path, found=error.strerror, expected="a config file", fix="check --config") from error
    except UnicodeDecodeError as error:
        found = f"byte {error.start} that is no UTF-8"
        raise input_error(path, found=found, expected="a text file in UTF-8", fix="save it in UTF-8") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise input_error(path, found=f"not YAML ({error})", expected="YAML", fix="fix the syntax") from error
    return content, loader.problems


def parse_config(content: Any, *, where: str) -> Config:
    """Check a mapping that was read from `where` and return the config, defaults filled in.

    Raises:
        InputError: with every problem of the mapping; where a key is wrong by itself, checks that need it are left out.
    """
    if not isinstance(content, Mapping):
        raise input_error(where, found=type(content).__name__, expected="a mapping of keys", fix="see config/README.md")
    content = _with_data_root(content)
    problems: list[Problem] = []
    wrong: set[str] = set()
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        errors = [item for item in error.errors() if not _follows(item, error.errors())]
        problems = [as_problem("", item, Config) for item in errors]
        wrong = {_key(item["loc"]) for item in errors if item["type"] != "extra_forbidden"}
        config = Config.model_validate(_without(content, errors))
    problems += run_checks(config, CHECKS, wrong=wrong)
    raise_problems(Problem(f"{where}: {item.where}", item.found, item.expected, item.fix) for item in problems)
    return config


def run_checks(config: Config, checks: Iterable[Check], *, wrong: Iterable[str] = ()) -> list[Problem]:
    """Return the problems that checks find, each once; checks that read a key of `wrong` are left out."""
    found: dict[Problem, None] = {}
    for check in checks:
        subject = getattr(config, check.section) if check.section else config
        if subject is None or any(_touches(key, other) for key in check.reads for other in wrong):
            continue
        try:
            found |= dict.fromkeys(check.find(subject))
        except InputError as error:  # a card that cannot be read
            found |= dict.fromkeys(error.problems)
    return list(found)


def _with_data_root(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content with the folder of the data sets that the environment names, where it names none itself."""
    section = content.get("data")
    root = os.environ.get("SEGBENCH_DATA")
    if not root or not (section is None or isinstance(section, Mapping)) or (section or {}).get("root") is not None:
        return dict(content)
    return {**content, "data": {**(section or {}), "root": root}}


def _follows(item: Mapping[str, Any], errors: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether a list is too short only because one of its items is wrong, which has an error of its own."""
    size, location = len(item["loc"]), item["loc"]
    inside = (other["loc"] for other in errors if len(other["loc"]) > size)
    return item["type"] == "too_short" and any(other[:size] == location for other in inside)


def _touches(key: str, other: str) -> bool:
    """Tell whether a key is another one, or one of them holds the other."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _key(location: tuple[int | str, ...]) -> str:
    """Return the key that an error makes unusable: the key of a section, or a key that is no section."""
    first, *rest = map(str, location)
    field = Config.model_fields.get(first)
    section = section_of(field.annotation) if field else None
    return f"{first}.{rest[0]}" if rest and section and rest[0] in section.model_fields else first


def _without(content: Mapping[str, Any], errors: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the content with every wrong key removed; stand-ins take the place of those that are required."""
    usable = copy.deepcopy(dict(content))
    unknown = [item["loc"] for item in errors if item["type"] == "extra_forbidden"]
    wrong = {tuple(_key(item["loc"]).split(".")) for item in errors if item["type"] != "extra_forbidden"}
    for location in sorted((*unknown, *wrong), key=len, reverse=True):
        _remove(usable, location)
    usable.setdefault("run", "missing")
    usable.setdefault("upstream", {})
    for name, stand_ins in STAND_INS.items():
        if isinstance(usable.get(name), Mapping):
            usable[name] = {**stand_ins, **usable[name]}
    return usable


def _remove(content: Any, location: tuple[int | str, ...]) -> None:
    """Remove the value at a location; it may be gone already."""
    *parents, last = location
    for part in parents:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(content, dict):
        content.pop(last, None)


def schema() -> dict[str, Any]:
    """Return the JSON schema of the config, as written to config/schema.json."""
    return Config.model_json_schema()
