"""Sections `training` and `inference`: ranges, and no number that is none."""

import pytest

from segbench.experiment.config import Inference, Training, parse_config
from tests.unit.experiment.configs import changed, only


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
