"""What a row of a table stands for: the fidelity of its network's card, and what this run does otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from segbench.core.vocabulary import PUBLISHED
from segbench.experiment.config import Config, ModelEntry

NUMERICAL, NETWORK = "numerical", "network"
SIZES = {"patch_size_zyx": "patch", "base_features": "width", "max_features": "largest width", "pool_kernels_zyx": ""}
"""Key of the size of a network -> its word in a text; poolings are counted."""


def fidelity(config: Config, experiment: str, entry: ModelEntry) -> tuple[str, str]:
    """Return the fidelity of an entry's row and what differs from the training of the original.

    A network whose card says `numerical` gives the outputs of its original. A row is `numerical` only when options,
    size, recipe and budget are those of the original too; else it is `network`, and the text names each difference.
    Other fidelities are those of the card, whose deviations docs/models.md lists; their text is ''.
    """
    card = config.card(entry.key)
    level: str = card["fidelity"]
    if level != NUMERICAL:
        return level, ""
    differs = "; ".join(_differences(config, experiment, entry, card))
    return (NETWORK, differs) if differs else (NUMERICAL, "")


def _differences(config: Config, experiment: str, entry: ModelEntry, card: dict[str, Any]) -> Iterator[str]:
    for name, value in entry.options.items():
        if value != card["options"][name]["default"]:
            yield f"{name} = {value}"
    original = card.get("original_training")
    if original is None:
        yield "the size and the budget of the original are not stated in its card"
    else:
        if experiment == "upstream":  # downstream the original follows a plan for the target data
            yield from _sizes(config.network_of(experiment, entry, "").model_dump(), original["network"])
        steps, asked = config.training_of(experiment, entry).iterations_per_task, original["steps_per_task"]
        if steps != asked[experiment]:
            yield f"{steps:,} steps per task instead of {asked[experiment]:,}"
    if entry.recipe != PUBLISHED:
        yield f"recipe {entry.recipe_name}"
    else:
        yield from (card.get("published_recipe") or {}).get("not_taken", ["no published recipe is known"])


def _sizes(size: dict[str, Any], original: dict[str, Any]) -> Iterator[str]:
    for key, word in SIZES.items():
        own, other = size[key], original[key]
        if _listed(own) != _listed(other):
            if word:
                yield f"{word} {_text(own)} instead of {_text(other)}"
            else:
                yield f"{len(own)} poolings instead of {len(other)}" if len(own) != len(other) else "other poolings"


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value


def _text(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
