"""A YAML loader that notices a key which a mapping has twice, or which is no text; PyYAML would say nothing."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from segbench.core.errors import Problem


class UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that collects a problem for each key that is repeated or no text.

    With `numbers`, whole numbers are keys as well, such as the label values of a card.
    """

    def __init__(self, text: str, *, where: str, numbers: bool = False):
        super().__init__(text)
        self.where = where
        self.types = (str, int) if numbers else (str,)
        self.tags = {f"tag:yaml.org,2002:{kind.__name__}" for kind in self.types}
        self.problems: list[Problem] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping, and note wrong keys; those of a merge (`<<`) may be overridden."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if key.tag not in self.tags:
                found, fix = f"the key {key.value!r} in line {line}, which is no text in YAML", "put it in quotes"
                self.problems.append(Problem(self.where, found, "a key that is text", fix))
            if key.value in lines:
                found = f"the key {key.value!r} in lines {lines[key.value]} and {line}"
                self.problems.append(Problem(self.where, found, "each key once", "remove one of them"))
            lines[key.value] = line
        content = super().construct_mapping(node, deep=deep)
        return {key: value for key, value in content.items() if isinstance(key, self.types)}
