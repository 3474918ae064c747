"""Sections `training` and `inference`: ranges, and no number that is none."""

import pytest

from segbench.experiment.config import Inference, Training, parse_config
from tests.unit.experiment.configs import changed, lines, only


def test_an_impossible_value_names_key_and_rule():
    assert "training.momentum: found 1.5" in only(changed("training.momentum", 1.5))


@pytest.mark.parametrize("name", [name for name, field in Training.model_fields.items() if field.annotation is float])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), "nan"])
def test_numbers_of_training_are_finite(name, value):
    assert f"training.{name}" in only(changed(f"training.{name}", value))


@pytest.mark.parametrize("section", ["training", "inference"])
@pytest.mark.parametrize("axes", [[3], [-1], [0, 0]])
def test_mirrored_axes_are_those_of_a_volume(section, axes):
    assert f"{section}.mirror_axes" in only(changed(f"{section}.mirror_axes", axes))


@pytest.mark.parametrize("step", [0, 1.5, float("nan")])
def test_the_window_moves_by_a_part_of_the_patch(step):
    assert "inference.step" in only(changed("inference.step", step))
    assert Inference().step == 0.5


def test_downstream_training_changes_some_keys():
    config = parse_config(changed("downstream.training", {"momentum": 0.5}), where="x")
    assert config.training_of("downstream").momentum == 0.5
    assert config.training_of("upstream").momentum == 0.9
    assert config.training_of("downstream").augmentation == config.training.augmentation == "light"


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"momentun": 0.9}, "did you mean 'momentum'?"),
        ({"momentum": 2}, "downstream.training.momentum: found 2"),
        ({"gradient_clip": float("inf")}, "downstream.training.gradient_clip"),
    ],
)
def test_wrong_downstream_keys_are_refused(training, message):
    assert message in only(changed("downstream.training", training))


@pytest.mark.parametrize("value", [-0.1, 0.51, 1, "half"])
def test_at_most_half_of_the_training_patients_are_held_out(value):
    assert "training.validation_fraction: found" in only(changed("training.validation_fraction", value))


@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_dice_of_held_out_cases_is_measured_at_least_once(value):
    assert "training.validation_points: found" in only(changed("training.validation_points", value))


@pytest.mark.parametrize("name", ["validation_fraction", "validation_points"])
def test_what_is_held_out_is_no_part_of_a_recipe(name):
    models = [{"name": "uniseg", "recipe": {name: 0.2}}]
    found = [line for line in lines(changed("upstream.models", models)) if f"recipe.{name}" in line]
    assert len(found) == 1
    assert "the budget is the experiment's" in found[0]


def test_without_a_fraction_validation_acts_on_nothing():
    plain = Training().effective()
    assert Training(validation_points=3).effective() == plain
    assert not {"validation_fraction", "validation_points"} & plain.keys()
    held_out = Training(validation_fraction=0.2).effective()
    assert held_out == plain | {"validation_fraction": 0.2, "validation_points": 10}


@pytest.mark.parametrize(
    ("key", "cases", "folds", "enough"),
    [
        ("training", 2, 0, False),
        ("training", 3, 0, True),
        ("downstream.training", 2, 0, False),
        ("training", 3, 2, False),
        ("training", 4, 2, True),
        ("training", 3, 3, True),
    ],
)
def test_a_task_needs_two_training_patients_where_one_is_held_out(key, cases, folds, enough):
    content = changed(f"{key}.validation_fraction", 0.1)
    content["data"]["phantom"] |= {"train_cases": cases - 1, "test_cases": 1}
    content["data"] |= {"protocol": "kfold", "fold_count": folds, "folds": [0]} if folds else {}
    if enough:
        assert parse_config(content, where="x").data.phantom.cases == cases
    else:
        assert all("held out by training.validation_fraction" in line for line in lines(content))
