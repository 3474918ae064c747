"""Spellings of one case meet, different cases do not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.core.names import matched, normal_name, spelled_alike


@pytest.mark.parametrize(
    "other",
    [
        "case_1.nii.gz",
        "case_1.seg.nrrd",
        "case_1_0000",
        "case_1_0000.nii.gz",
        "imagesTr/case_1.nii",
        "./case_1",
        "Case_1",
        " case 1 ",
        "case-1",
        "case01",
        "CASE 001",
        "CASE_001_0001.nii.gz",
        "a/b/case_1",
        "/data/labelsTr/Case-01.nii.gz",
    ],
)
def test_two_spellings_are_one_case(other):
    assert spelled_alike(["case_1", other]) == [sorted(["case_1", other])]


@pytest.mark.parametrize(
    "names",
    [
        ["la_0003", "la_0004"],
        ["case_1", "case_10"],
        ["case_1_2", "case_12"],
        ["1_12", "11_2"],
        ["case_0", "case_00_1"],
        ["s0/liver", "s1/liver"],
        ["a", "ä"],
    ],
)
def test_different_cases_stay_different(names):
    assert spelled_alike(names) == []


@settings(max_examples=200, deadline=None, derandomize=True)
@given(name=st.text(min_size=1), suffix=st.sampled_from(["", ".nii.gz", ".nii", ".nrrd", ".mha"]))
def test_a_normal_name_is_its_own_normal_name(name, suffix):
    once = normal_name(normal_name(name + suffix))
    assert normal_name(once) == once


def test_a_name_with_two_counterparts_has_none():
    assert matched(["A"], ["a", "a.nii"]) == {}
    assert matched(["A", "b"], ["a", "b", "B"]) == {"A": "a", "b": "b"}
