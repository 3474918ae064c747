"""The fidelity of a row: numerical only when nothing differs from the training of the original."""

import pytest

from segbench.experiment import fidelity as module
from segbench.experiment.config import load_config, parse_config, read_config_file
from segbench.experiment.fidelity import fidelity
from tests.paths import ROOT

PAPER = ROOT / "config" / "paper.yaml"


@pytest.fixture
def paper(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path))
    return load_config(PAPER)


def row(config, name, recipe="equal", experiment="upstream"):
    return fidelity(config, experiment, config.entry_of(experiment, name, recipe))


def test_the_published_training_differs_in_what_its_card_does_not_take(paper):
    (level, differs), card = row(paper, "uniseg", "published"), paper.card("uniseg")
    assert (level, differs) == ("network", "; ".join(card["published_recipe"]["not_taken"]))


def test_a_row_without_a_difference_is_numerical(paper, monkeypatch):
    card = paper.card("uniseg")
    monkeypatch.setitem(card["published_recipe"], "not_taken", [])
    assert row(paper, "uniseg", "published") == ("numerical", "")


def test_each_difference_is_named(paper, tmp_path):
    content = read_config_file(PAPER)
    content["network"] |= {"base_features": 16, "patch_size_zyx": [32, 192, 192]}
    content["training"]["iterations_per_task"] = 100
    config = parse_config(content, where="small")
    assert row(config, "uniseg_no_prompt") == (
        "network",
        "prompt = none; patch 32x192x192 instead of 64x192x192; width 16 instead of 32; "
        "100 steps per task instead of 50,000; recipe equal",
    )


def test_poolings_are_counted_or_named(paper):
    original = paper.card("uniseg")["original_training"]["network"]
    kernels = original["pool_kernels_zyx"]
    assert list(module._sizes(original | {"pool_kernels_zyx": kernels[:4]}, original)) == ["4 poolings instead of 5"]
    assert list(module._sizes(original | {"pool_kernels_zyx": kernels[::-1]}, original)) == ["other poolings"]
    assert list(module._sizes(original, original)) == []


def test_without_a_stated_original_a_network_is_never_numerical(paper):
    level, differs = row(paper, "ux_net")
    assert level == "network"
    assert differs.startswith("the size and the budget of the original are not stated in its card")


def test_other_levels_are_those_of_the_card(paper):
    assert row(paper, "dodnet") == ("concept", "")
