"""What is stated of pre-trained weights: the data that they were trained on, and what they expect images to be.

The card of the format states it; an initialisation may state what its format leaves unknown, or what its own file saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segbench.core.cards import OWN_AXES, patient_of
from segbench.experiment.config import Config
from segbench.experiment.config.downstream import Initialisation

UNKNOWN = "unknown"
ALL = "all"


def trained_on(config: Config, item: Initialisation) -> Mapping[str, Any] | str:
    """Return data set -> its cases, `all` or `unknown`, of the weights of a file; `unknown` where nothing is known."""
    return config.format_cards[item.format]["trained_on"] if item.trained_on is None else item.trained_on


def axes(config: Config, item: Initialisation) -> str:
    """Return the order of axes that the weights expect; that of this benchmark where it is not known."""
    if item.file is None:
        return OWN_AXES
    stated = config.format_cards[item.format]["axes"]
    return (item.axes or OWN_AXES) if stated == UNKNOWN else stated


def unknown_data(config: Config, item: Initialisation) -> bool:
    """Tell whether the weights of a file may have seen test cases of the downstream tasks, as far as is stated."""
    if item.file is None:
        return False
    stated = trained_on(config, item)
    if isinstance(stated, str):
        return True
    cards = config.dataset_cards
    spaces = {cards[task]["patient_namespace"] for task in config.downstream.tasks} if config.downstream else set()
    return any(cases == UNKNOWN and cards[name]["patient_namespace"] in spaces for name, cases in stated.items())


def seen_patients(config: Config, item: Initialisation) -> tuple[set[str], set[tuple[str, str]]]:
    """Return what the weights of a file have seen: namespaces of which they saw all, and (namespace, patient) pairs."""
    stated = trained_on(config, item)
    if item.file is None or isinstance(stated, str):
        return set(), set()
    whole, patients = set(), set()
    for name, cases in stated.items():
        card = config.dataset_cards[name]
        if cases == ALL:
            whole.add(card["patient_namespace"])
        elif cases != UNKNOWN:
            patients |= {(card["patient_namespace"], patient_of(card, case)) for case in cases}
    return whole, patients


def files_of(config: Config) -> dict[str, Initialisation]:
    """Return name -> initialisation from a file, each once."""
    if config.downstream is None:
        return {}
    return {item.name: item for _, _, items in config.downstream.lists() for item in items if item.file is not None}


def weights_part(config: Config) -> list[Any]:
    """Return what the leak audit looks at beside the split: the statements on the data of every file."""
    return [[name, trained_on(config, item)] for name, item in sorted(files_of(config).items())]
