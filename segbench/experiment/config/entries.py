"""Checks of entries against the cards that they name: models, objectives and controls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from segbench.core.cards import OPTION_LIMITS
from segbench.core.errors import Problem, suggestion
from segbench.experiment.config.section import ModelEntry, unknown_names

if TYPE_CHECKING:
    from segbench.experiment.config.experiment import Config


def entry_problems(key: str, entry: ModelEntry, cards: Mapping[str, dict], *, expected: str) -> Iterator[Problem]:
    """Yield the problems of an entry's name and options against the cards that it may name."""
    if entry.name not in cards:
        yield Problem(key, repr(entry.name), expected, suggestion(entry.name, cards))
        return
    options = cards[entry.name]["options"]
    for option, value in entry.options.items():
        where = f"{key}.{entry.key}.options.{option}"
        if option not in options:
            yield Problem(where, "an unknown option", "an option of its card", suggestion(option, options))
        elif not _of_kind(value, options[option]["default"]):
            kind = type(options[option]["default"]).__name__
            yield Problem(where, repr(value), f"a finite value of type {kind}", options[option]["help"])
        else:
            limits = {name: options[option][name] for name in OPTION_LIMITS if name in options[option]}
            if not all(OPTION_LIMITS[name](value, limit) for name, limit in limits.items()):
                words = " and ".join(f"{name.replace('_', ' ')} {limit}" for name, limit in limits.items())
                yield Problem(where, repr(value), f"a number {words}", options[option]["help"])


def _of_kind(value: Any, default: Any) -> bool:
    """Tell whether a value has the type of an option's default; a whole number may stand for any number."""
    if isinstance(value, float) and value - value != 0:  # infinite or not a number
        return False
    if isinstance(default, float) and not isinstance(value, bool):
        return isinstance(value, (int, float))
    return type(value) is type(default)


def control_problems(key: str, names: Iterable[str], config: Config) -> Iterator[Problem]:
    """Yield a problem for each name that is not a control's."""
    known = [name for name, card in config.model_cards.items() if card["kind"] == "control"]
    yield from unknown_names(key, names, known, "the name of a control")
