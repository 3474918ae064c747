"""docs/models.md follows the cards."""

from __future__ import annotations

from segbench.core.cards import model_cards, objective_cards
from segbench.documentation import models as pages
from segbench.documentation import recipes


def test_docs_are_in_step_with_the_cards():
    assert pages.PAGE.read_text(encoding="utf-8") == pages.models_page(), "run python -m segbench.documentation.models"


def test_the_table_of_formats_is_in_step_with_the_cards():
    assert pages.WEIGHTS_PAGE.read_text(encoding="utf-8") == pages.weights_page(), (
        "run python -m segbench.documentation.models"
    )


def test_the_page_of_recipes_is_in_step_with_the_cards():
    text = recipes.PAGE.read_text(encoding="utf-8")
    assert text == recipes.recipes_page(), "run python -m segbench.documentation.models"
    assert "| `unetr` | optimiser adamw, initial_learning_rate 0.0001," in text


def test_every_deviation_is_on_the_page():
    page = pages.models_page()
    for name, card in [*model_cards().items(), *objective_cards().items()]:
        if card.get("kind") == "control":
            assert f"| `{name}` | {card['title']} | {card['predicts']} |" in page
            continue
        assert f"### {name}\n" in page
        assert all(text in page for text in [*card["deviations"], *card.get("does", [])])


def test_citations_leave_out_controls_and_repetition():
    network = {"title": "A", "kind": "universal", "citation": "Doe, A network, 2020", "url": "https://example.org"}
    control = {"title": "C", "kind": "control", "citation": "segbench", "url": ""}
    assert pages.citations([network, control, network]) == ["A: Doe, A network, 2020. https://example.org"]
    assert pages.citations([]) == []
