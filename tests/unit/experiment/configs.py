"""Configs for the tests of `segbench.experiment.config`."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from segbench.core.errors import InputError
from segbench.experiment.config import parse_config
from tests.paths import ROOT

SHIPPED = sorted((ROOT / "config").glob("*.yaml"))


def demo() -> dict[str, Any]:
    """Return the content of the default config, free to change."""
    return yaml.safe_load((ROOT / "config" / "config.yaml").read_text())


def changed(key: str, value: Any) -> dict[str, Any]:
    """Return the default config with one key, dotted, of another value."""
    content = demo()
    *parents, last = key.split(".")
    section = content
    for name in parents:
        section = section.setdefault(name, {})
    section[last] = value
    return content


def lines(content: Any) -> list[str]:
    """Return the problems of a config, one line each; a config without any fails the test."""
    with pytest.raises(InputError) as caught:
        parse_config(content, where="config.yaml")
    return [problem.line() for problem in caught.value.problems]


def only(content: Any) -> str:
    """Return the only problem of a config."""
    (line,) = lines(content)
    return line
