"""The fidelity of a row: numerical only when nothing differs from the training of the original."""

import pytest

from segbench.experiment.config import load_config, parse_config, read_config_file
from segbench.experiment.fidelity import fidelity
from tests.paths import ROOT

PAPER = ROOT / "config" / "paper.yaml"


@pytest.fixture(autouse=True)
def data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path))


def row(config, name="uniseg", recipe="published", experiment="upstream"):
    return fidelity(config, experiment, config.entry_of(experiment, name, recipe))


def test_the_published_training_differs_in_what_its_card_does_not_take():
    config = load_config(PAPER)
    not_taken = config.card("uniseg")["published_recipe"]["not_taken"]
    assert row(config) == ("network", "; ".join(not_taken))


@pytest.fixture
def all_taken(monkeypatch):
    """The config of the paper, with a card that takes all of UniSeg's recipe."""
    config = load_config(PAPER)
    monkeypatch.setitem(config.card("uniseg")["published_recipe"], "not_taken", [])
    return config


def test_a_row_without_a_difference_is_numerical(all_taken):
    assert row(all_taken) == ("numerical", "")


def test_a_card_without_a_published_recipe_says_so(all_taken, monkeypatch):
    monkeypatch.setitem(all_taken.card("uniseg"), "published_recipe", None)
    assert row(all_taken) == ("network", "no published recipe is stated in its card")


@pytest.mark.parametrize(
    ("section", "changes", "text"),
    [
        ("network", {"patch_size_zyx": [32, 192, 192]}, "patch 32x192x192 instead of 64x192x192"),
        ("network", {"base_features": 16}, "width 16 instead of 32"),
        ("network", {"max_features": 256}, "largest width 256 instead of 320"),
        ("network", {"pool_kernels_zyx": [*[[2, 2, 2]] * 4, [1, 2, 2]]}, "other poolings"),
        ("network", {"conv_kernels_zyx": [[3, 3, 3]] * 6}, "other kernels"),
        (
            "network",
            {"pool_kernels_zyx": [[2, 2, 2]] * 4, "conv_kernels_zyx": [[3, 3, 3]] * 5},
            "4 poolings instead of 5",
        ),
        ("training", {"iterations_per_task": 100}, "100 steps per task instead of 50,000"),
    ],
)
def test_each_difference_is_named(section, changes, text):
    content = read_config_file(PAPER)
    content[section] |= changes
    config = parse_config(content, where="changed")
    not_taken = config.card("uniseg")["published_recipe"]["not_taken"]
    assert row(config) == ("network", "; ".join([text, *not_taken]))


def test_options_and_another_recipe_are_differences():
    assert row(load_config(PAPER), "uniseg_no_prompt", "equal") == ("network", "prompt = none; recipe equal")


def test_without_a_stated_original_a_network_is_never_numerical():
    level, differs = row(load_config(PAPER), "ux_net", "equal")
    assert level == "network"
    assert "the size and the budget of the original are not stated in its card" in differs


def test_nothing_is_numerical_downstream():
    content = read_config_file(ROOT / "config" / "all_models.yaml")
    level, differs = row(parse_config(content, where="all_models"), "uniseg", "equal", "downstream")
    assert (level, differs) == ("network", "size and budget of the original are not compared downstream; recipe equal")


def test_other_levels_are_those_of_the_card():
    assert row(load_config(PAPER), "dodnet", "equal") == ("concept", "")
