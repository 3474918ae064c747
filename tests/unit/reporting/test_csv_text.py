"""CSV for people and programs: names first, plain numbers, yes and no; file names of any text."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest

from segbench.reporting.csv_text import LONGEST_STEM, file_stem, short_name, table_text


def test_names_stand_first_and_no_type_is_printed():
    frame = pd.DataFrame(
        {
            "value": [1.0, 0.123456789012],
            "n": pd.Series([3, None], dtype=float),
            "significant": [True, False],
            "mixed": [np.float64(2.0), True],
            "seed_means": [{0: 1.0}, {}],
            "task": ["T", "U"],
            "experiment": ["upstream", "upstream"],
        }
    )
    text = table_text(frame)
    assert text.splitlines() == [
        "experiment,task,value,n,significant,mixed",
        "upstream,T,1,3,yes,2",
        "upstream,U,0.123456789,,no,yes",
    ]
    assert len(pd.read_csv(io.StringIO(text))) == 2


@pytest.mark.parametrize("text", ["upstream_dice", "a-b.c_1"])
def test_a_plain_name_is_its_own_file_name(text):
    assert file_stem(text) == text


def test_other_names_are_bounded_and_stay_apart():
    names = ["a" * 260, "a" * 261, "Surface distance", "Surface/distance", "..", "\u00dc"]
    stems = [file_stem(name) for name in names]
    assert len(set(stems)) == len(stems)
    assert max(map(len, stems)) <= LONGEST_STEM + 9
    assert all(set(stem) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") for stem in stems)
    assert short_name("liver") == "liver"
    assert len({short_name(name) for name in names[:2]}) == 2
    assert len(short_name("a" * 260)) < 62
