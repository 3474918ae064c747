"""Notices of windows that saturate a class, of classes that are absent from cases, of sides."""

from pathlib import Path

import numpy as np
import pytest

from segbench.core.cards import dataset_cards
from segbench.core.case import CaseFiles
from segbench.data.notices import Seen, card_notices, label_quartiles, notices_of, window_notices

CARD = {"classes": {"1": "mandible", "2": "cord"}, "merge": {7: 1}}


def seen(name, image, labels):
    case = CaseFiles(name, name, (Path("a"),), Path("b"))
    quartiles = label_quartiles([image], labels, ["CT"])
    values = frozenset(int(value) for value in np.unique(labels))
    return Seen(case, ((float(image.min()), float(image.max())),), values, 0, quartiles=quartiles)


def cases():
    """Two cases; class 1 is stored as 7 in the second, and has 100 to 199 where class 2 has 0 to 99."""
    for name, value in (("a", 1), ("b", 7)):
        labels = np.repeat([2, value], 100)
        yield seen(name, np.arange(200.0), labels)


@pytest.mark.parametrize(
    ("window", "names"),
    [
        ((0, 200), []),
        ((0, 175), []),  # a quarter of class 1 is above 174.25
        ((0, 170), ["mandible"]),
        ((30, 200), ["cord"]),
        ((30, 120), ["cord", "mandible"]),
        (None, []),
    ],
)
def test_a_window_that_cuts_a_quarter_of_a_class_is_named(window, names):
    found = window_notices(list(cases()), CARD, window)
    assert [
        name for name in ("cord", "mandible") if any(f"voxels of {name} in 2 of 2" in item for item in found)
    ] == names
    assert len(found) == len(names)


def test_quartiles_are_of_ct_alone():
    labels = np.ones(9)
    assert label_quartiles([np.arange(9.0)], labels, ["MR"]) == {}
    assert label_quartiles([np.arange(9.0), np.arange(9.0) * 2], labels, ["PET", "CT"]) == {(1, 1): (4.0, 12.0)}


def test_classes_absent_from_some_cases_are_counted():
    found = [seen("a", np.arange(9.0), np.repeat([0, 1, 2], 3)), seen("b", np.arange(9.0), np.repeat([0, 1, 1], 3))]
    notices = notices_of(found, {0, 1, 2}, ["CT"], cases=[item.case for item in found])
    assert "label values absent from some of 2 labelled cases: 2 from 1" in notices


def test_sides_are_a_notice_of_the_card():
    cards = dataset_cards()
    assert any("right kidney and left kidney" in item for item in card_notices("btcv", cards, 30))
    assert not any("mirrored" in item for item in card_notices("msd_spleen", cards, 41))
