"""A file of weights that saw test cases of the downstream tasks is a leak; one whose data are unknown is marked."""

import pytest

from segbench.data.audit.leaks import Member
from segbench.data.audit.weights import weights_findings
from segbench.experiment.config import parse_config
from segbench.experiment.weights import files_of, unknown_data
from tests.small_network import NETWORK


def config(**start):
    content = {
        "run": "small",
        "data": {"root": "data"},
        "network": NETWORK,
        "upstream": {"tasks": ["phantom_spleen"], "models": ["uniseg"]},
        "downstream": {
            "tasks": ["btcv"],
            "models": ["clip_driven_original"],
            "initialisations": [{"name": "brought", "file": "weights.pt", **start}],
        },
    }
    return parse_config(content, where="test")


def members():
    """The 21/9 protocol of BTCV: images 32 to 40 are tested."""
    names = [f"img{number:04d}" for number in (*range(1, 11), *range(21, 41))]
    sides = {name: "test" if int(name[3:]) > 31 else "train" for name in names}
    return [Member("btcv", name, name, "btcv", side, "downstream") for name, side in sides.items()]


def test_clip_driven_saw_eight_of_nine_test_cases():
    (found,) = weights_findings(config(format="clip_driven_official"), members())
    assert found.name == "weights:brought/btcv"
    assert found.test_cases == "img0032 img0033 img0034 img0035 img0037 img0038 img0039 img0040"


@pytest.mark.parametrize(
    ("start", "tested"),
    [
        ({"trained_on": {"btcv": "all"}}, 9),
        ({"trained_on": {"btcv_8_organs": ["img0040", "img0001"]}}, 1),
        ({"trained_on": {"btcv": ["img0001"], "msd_spleen": "all"}}, 0),
        ({"format": "models_genesis"}, 0),
    ],
)
def test_stated_cases_are_compared_by_patient(start, tested):
    found = weights_findings(config(**start), members())
    assert [len(item.test_cases.split()) for item in found] == [tested] * bool(tested)


@pytest.mark.parametrize(
    ("start", "unknown"),
    [
        ({"format": "suprem"}, True),
        ({}, True),
        ({"trained_on": {"btcv": "unknown"}}, True),
        ({"trained_on": {"msd_spleen": "unknown"}}, False),
        ({"format": "clip_driven_official"}, False),
        ({"format": "models_genesis"}, False),
    ],
)
def test_weights_whose_data_are_unknown_are_marked(start, unknown):
    found = config(**start)
    assert unknown_data(found, files_of(found)["brought"]) is unknown
