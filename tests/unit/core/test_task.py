"""Sides: which axes a task may be mirrored along, and that every card names its pairs."""

import pytest

from segbench.core import cards
from segbench.core.errors import InputError
from segbench.core.task import mirror_axes_of

CARDS = cards.dataset_cards()
KIDNEYS, SPLEEN = (cards.task_from_card(name, CARDS[name]) for name in ("btcv", "msd_spleen"))


@pytest.mark.parametrize(
    ("tasks", "mirror_sides", "expected"),
    [
        ([SPLEEN], False, (0, 1, 2)),
        ([KIDNEYS], False, (0, 1)),
        ([SPLEEN, KIDNEYS], False, (0, 1)),
        ([KIDNEYS], True, (0, 1, 2)),
    ],
)
def test_left_and_right_are_mirrored_where_no_class_has_a_side(tasks, mirror_sides, expected):
    assert mirror_axes_of(tasks, (0, 1, 2), mirror_sides=mirror_sides) == expected
    assert mirror_axes_of(tasks, (1,), mirror_sides=mirror_sides) == (1,)


def test_sides_are_pairs_of_class_values():
    assert KIDNEYS.sides == ((2, 3), (12, 13))
    assert SPLEEN.sides == ()


@pytest.mark.parametrize("name", CARDS)
def test_every_card_names_its_sides(name):
    """The two ventricles are named by side and differ in form."""
    names = {item for item in CARDS[name]["classes"].values() if "ventricle" not in item}
    pairs = {(item, item.replace("right", "left")) for item in names if item.replace("right", "left") in names - {item}}
    assert {tuple(pair) for pair in CARDS[name]["sides"]} == pairs


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ([["right kidney", "left kidny"]], "did you mean 'left kidney'"),
        ([["right kidney", "left kidney"], ["left kidney", "spleen"]], "'left kidney' twice"),
    ],
)
def test_a_pair_of_other_classes_is_refused(sides, message):
    with pytest.raises(InputError, match=message):
        cards.task_from_card("x", CARDS["btcv"] | {"sides": sides})
