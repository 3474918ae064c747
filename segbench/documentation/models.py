"""Pages generated from cards: `python -m segbench.documentation.models` writes docs/models.md, formats and recipes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from segbench.core.cards import format_cards, model_cards, objective_cards, target_names
from segbench.core.code import ROOT
from segbench.core.files import write_text
from segbench.documentation.recipes import PAGE as RECIPES_PAGE
from segbench.documentation.recipes import recipes_page

PAGE = ROOT / "docs" / "models.md"
WEIGHTS_PAGE = ROOT / "docs" / "pretrained_weights.md"
FORMATS_HEADING = "## Formats"
MEASURED = [
    PAGE.with_name("parity.md"),
    PAGE.with_name("cost.md"),
]  # by tests.golden.models.parity and segbench.documentation.cost
KINDS = {
    "universal": "Universal models: one network for all tasks",
    "single_task": "Per-task models: one network per task",
    "control": "Controls: predictors that bound the scale",
}
FIDELITY = {
    "numerical": "agrees with the outputs of the original network, shown by the tests in tests/golden",
    "description": "built as the paper or its released configuration describes it, or by the library that the original "
    "authors keep; outputs are not compared with the original's",
    "concept": "the concept of the paper, re-implemented on our own network",
}


OBJECTIVES = """\
## Self-supervised objectives: pre-trained weights for downstream tasks

Listed in `upstream.self_supervised` and named in `downstream.initialisations`, an objective (one file below
`segbench/training/self_supervised/`) is trained on the images of the training cases of all upstream tasks, one job per
fold and seed, with the budget and the recipe of `training`, or a recipe of its own, as a universal model is.
Labels are never read: patches lie anywhere in a volume (`foreground_fraction` needs labels and is not used). It
trains the shared backbone with one input stem per channel count of the upstream tasks; a downstream network takes the
tensors that the card names, the stem of its own channel count among them, and prints and stores what matched.
Objectives are not scored and so have no row of their own; the tables show the downstream runs that use their weights,
the cost table what they cost. All are re-implemented concepts of their paper on our network: read for that are
abstracts, released settings and public descriptions."""


def models_page(cards: dict[str, dict[str, Any]] | None = None) -> str:
    """Return docs/models.md as text: what fidelity means, one table per kind, a section per model, the citations."""
    cards = model_cards() if cards is None else cards
    parts = [
        "# Models",
        "Generated from the cards of the model files by `python -m segbench.documentation.models`; do not edit.",
        "**Fidelity** says what a row of a table stands for:",
        "\n".join(f"- `{name}`: {meaning}." for name, meaning in FIDELITY.items()),
        "This page has the fidelity of each network. In a report `numerical` is an upstream row whose options, size, "
        "recipe and budget are those of the original too, as its card states them; another row of such a network is "
        "`network`, with a note below the table that says what differs.",
    ]
    for kind, heading in KINDS.items():
        members = {name: card for name, card in sorted(cards.items()) if card["kind"] == kind}
        if members:
            parts += [f"## {heading}", *_members(kind, members)]
    objectives = objective_cards()
    parts += [OBJECTIVES, *(_section(name, card) for name, card in objectives.items())]
    parts += [path.read_text(encoding="utf-8").strip() for path in MEASURED if path.exists()]
    parts += ["## Citations", "\n".join(f"- {line}" for line in citations([*cards.values(), *objectives.values()]))]
    return "\n\n".join(parts) + "\n"


def citations(cards: Iterable[dict[str, Any]]) -> list[str]:
    """Return 'title: citation, url' of each network's card, sorted and without repetition."""
    cited = (card for card in cards if card.get("kind") != "control")
    return sorted({f"{card['title']}: {card['citation']}. {card['url']}".strip() for card in cited})


def _members(kind: str, cards: dict[str, dict[str, Any]]) -> list[str]:
    if kind != "control":
        return [_table(cards), *(_section(name, card) for name, card in cards.items())]
    rows = [f"| `{name}` | {card['title']} | {card['predicts']} |" for name, card in cards.items()]
    return ["\n".join(["| control | shown as | what it predicts |", "|---|---|---|", *rows])]


def _table(cards: dict[str, dict[str, Any]]) -> str:
    rows = [
        "| model | shown as | fidelity | network | channels | sizes are multiples of (z, y, x) |",
        "|---|---|---|---|---|---|",
    ]
    for name, card in cards.items():
        multiple = card["patch_multiple"]
        sizes = "the poolings' product" if multiple == "spec" else _joined(multiple)
        link = f"[`{name}`](#{name})"
        cells = (link, card["title"], card["fidelity"], card["backbone"], _joined(card["channels"]), sizes)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _section(name: str, card: dict[str, Any]) -> str:
    lines = [f"### {name}", ""]
    facts = {
        "Shown as": card["title"],
        "Cites": card["citation"],
        "Original": card.get("url"),
        "Licence of the original": card.get("original_licence"),
        "Encoder's tensors": ", ".join(f"`{key}`" for key in card.get("encoder_keys", ())),
    }
    lines += [f"- {title}: {value}" for title, value in facts.items() if value]
    if "does" in card:
        lines += ["- What is trained:", *(f"  - {text}" for text in card["does"])]
    lines += ["- Deviations:", *(f"  - {text}" for text in card["deviations"] or ["none known"])]
    if card["options"]:
        lines += ["- Options:"]
        lines += [
            f"  - `{key}` (default `{item['default']!r}`): {item['help']}" for key, item in card["options"].items()
        ]
    return "\n".join(lines)


def _joined(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(str(part) for part in value)


def weights_page() -> str:
    """Return docs/pretrained_weights.md: its written part as it stands, then what the cards of the formats say."""
    written = WEIGHTS_PAGE.read_text(encoding="utf-8").partition(f"{FORMATS_HEADING}\n")[0].rstrip()
    cards = format_cards()
    rows = ["| format | from | fits | loaded | stays new or is left out | licence |", "|---|---|---|---|---|---|"]
    for name, card in cards.items():
        cells = (f"`{name}`", card["title"], ", ".join(target_names(card)), card["loaded"], card["left_out"])
        rows.append(f"| {' | '.join([*cells, card['licence']])} |")
    seen = ["| format | trained on | axes of its images | CT intensities of its images |", "|---|---|---|---|"]
    seen += [f"| `{name}` | {_data_of(card)} | {card['axes']} | {_intensities(card)} |" for name, card in cards.items()]
    sources = [
        f"- `{name}`: {card['citation']}. {card['url']}\n  - where to get it: {card['obtain']}\n"
        f"  - source of the layout's facts: {card['layout']}\n"
        f"  - source of what its images were: {card['images_source']}"
        for name, card in cards.items()
        if card["url"]
    ]
    note = (
        "Generated from the cards in models/weights/formats by `python -m segbench.documentation.models`; "
        "do not edit below this line."
    )
    return "\n\n".join([written, FORMATS_HEADING, note, "\n".join(rows), "\n".join(seen), "\n".join(sources)]) + "\n"


def _data_of(card: dict[str, Any]) -> str:
    """Return what weights were trained on: our data sets with their cases, then others in words."""
    stated = card["trained_on"]
    if isinstance(stated, str):
        words = [stated]
    else:
        listed = {name: cases if isinstance(cases, str) else " ".join(cases) for name, cases in stated.items()}
        words = [f"`{name}` (cases: {cases})" for name, cases in listed.items()]
    return "; ".join([*words, *([card["other_data"]] if card["other_data"] else [])])


def _intensities(card: dict[str, Any]) -> str:
    stated = card["intensities"]
    if isinstance(stated, str):
        return stated
    (low_hu, high_hu), (low, high) = stated["window_hu"], stated["scaled_to"]
    return f"{low_hu:g} to {high_hu:g} HU as {low:g} to {high:g}"


def main() -> int:
    """Write the three pages."""
    write_text(PAGE, models_page())
    write_text(WEIGHTS_PAGE, weights_page())
    write_text(RECIPES_PAGE, recipes_page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
