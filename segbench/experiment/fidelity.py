"""What a row of a table stands for: the fidelity of its network's card, and what this run does otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from segbench.core.vocabulary import PUBLISHED
from segbench.experiment.config import Config, ModelEntry
from segbench.experiment.config.network import Network

NUMERICAL, NETWORK = "numerical", "network"


def fidelity(config: Config, experiment: str, entry: ModelEntry) -> tuple[str, str]:
    """Return the fidelity of an entry's row and what differs from the training of the original.

    A network whose card says `numerical` gives the outputs of its original. A row is `numerical` only when options,
    size, recipe and budget are those of the original too; else it is `network`, and the text names each difference.
    What a card does not state cannot be compared: the text says so of size, budget and recipe, and settings that a
    published recipe leaves open are those of the experiment. Downstream, where the authors plan a size for each target,
    nothing is `numerical`. Other fidelities are those of the card, whose deviations docs/models.md lists; their text
    is ''.
    """
    card = config.card(entry.key)
    level: str = card["fidelity"]
    if level != NUMERICAL:
        return level, ""
    differs = "; ".join(_differences(config, experiment, entry, card))
    return (NETWORK, differs) if differs else (NUMERICAL, "")


def _differences(config: Config, experiment: str, entry: ModelEntry, card: dict[str, Any]) -> Iterator[str]:
    yield from (f"{name} = {value}" for name, value in config.changed_options(entry).items())
    original = card.get("original_training")
    if experiment == "downstream":
        yield "size and budget of the original are not compared downstream"
    elif original is None:
        yield "the size and the budget of the original are not stated in its card"
    else:
        yield from _sizes(config.network_of(experiment, entry, ""), Network(**original["network"]))
        steps, asked = config.training_of(experiment, entry).iterations_per_task, original["steps_per_task"]
        if steps != asked:
            yield f"{steps:,} steps per task instead of {asked:,}"
    if entry.recipe != PUBLISHED:
        yield f"recipe {entry.recipe_name}"
    elif card.get("published_recipe") is None:
        yield "no published recipe is stated in its card"
    else:
        yield from card["published_recipe"].get("not_taken") or ()


def _sizes(size: Network, original: Network) -> Iterator[str]:
    if size.patch_size_zyx != original.patch_size_zyx:
        yield f"patch {_text(size.patch_size_zyx)} instead of {_text(original.patch_size_zyx)}"
    if size.base_features != original.base_features:
        yield f"width {size.base_features} instead of {original.base_features}"
    if size.max_features != original.max_features:
        yield f"largest width {size.max_features} instead of {original.max_features}"
    if len(size.pool_kernels_zyx) != len(original.pool_kernels_zyx):
        yield f"{len(size.pool_kernels_zyx)} poolings instead of {len(original.pool_kernels_zyx)}"
    else:
        if size.pool_kernels_zyx != original.pool_kernels_zyx:
            yield "other poolings"
        if size.conv_kernels_zyx != original.conv_kernels_zyx:
            yield "other kernels"


def _text(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
