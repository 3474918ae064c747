"""A YAML loader that notices a key which a mapping has twice; PyYAML would keep the last one and say nothing."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from segbench.core.errors import Problem


class UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that collects a problem for each repeated key."""

    def __init__(self, text: str, *, where: str):
        super().__init__(text)
        self.where = where
        self.problems: list[Problem] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping, and note its repeated keys; those of a merge (`<<`) may be overridden."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                found = f"the key {key.value!r} in lines {lines[key.value]} and {line}"
                self.problems.append(Problem(self.where, found, "each key once", "remove one of them"))
            lines[key.value] = line
        return super().construct_mapping(node, deep=deep)
