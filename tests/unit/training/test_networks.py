"""A network that cannot be built, or does not answer its tasks, is found before a run."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest
import torch

from models.blocks.own_network import PerTaskModel
from segbench.cli import main
from segbench.core.files import write_json
from segbench.experiment.config import parse_config
from segbench.training.networks import network_problems

ONE = {
    "run": "one",
    "data": {"root": "data", "phantom": {"seed": 1, "train_cases": 2, "test_cases": 1}},
    "network": {
        "patch_size_zyx": [8, 8, 8],
        "base_features": 4,
        "max_features": 8,
        "pool_kernels_zyx": [[2, 2, 2]],
        "conv_kernels_zyx": [[3, 3, 3], [3, 3, 3]],
    },
    "upstream": {"tasks": ["phantom_liver", "phantom_petct"], "models": ["segresnet", "multi_head"]},
}


class Network(torch.nn.Module):
    """A convolution whose answer a test changes."""

    def __init__(self, task, answer):
        super().__init__()
        self.layer, self.answer = torch.nn.Conv3d(task.num_channels, task.num_classes, 1), answer

    def forward(self, images_BCZYX):
        return self.answer(self, self.layer(images_BCZYX))


def built(answer):
    def build(tasks, spec):
        network = Network(next(iter(tasks)), answer)
        return PerTaskModel(tasks, spec, network=network, multiple_zyx=(2, 2, 2))

    return SimpleNamespace(build=build)


def several_in_training(network, logits_BKZYX):
    """Answer as MONAI's DynUNet does with deep supervision."""
    return torch.stack([logits_BKZYX] * 2, 1) if network.training else logits_BKZYX


def looked_at(network, logits_BKZYX):
    return logits_BKZYX if logits_BKZYX.max().item() < 1e9 else -logits_BKZYX


def leaves(tasks, spec):
    raise SystemExit


BUILDS = {
    "an import": (None, "models/baselines/segresnet.py: found ModuleNotFoundError: "),
    "an exit": (SimpleNamespace(build=leaves), "found SystemExit: "),
    "no build": (SimpleNamespace(), "found AttributeError: .* python -m pytest tests/contract -k segresnet"),
    "a dict": (built(lambda _, logits_BKZYX: {"logits": logits_BKZYX}), "what Network returns: found a dict"),
    "a class more": (built(lambda _, x_BKZYX: torch.cat([x_BKZYX, x_BKZYX[:, :1]], 1)), "with the shape"),
    "half the size": (built(lambda _, logits_BKZYX: logits_BKZYX[..., ::2]), "with the shape"),
    "several": (built(several_in_training), "what Network returns: found a tensor"),
}


@pytest.fixture
def segresnet(monkeypatch):
    """Return a function that puts a module in the place of one network's file."""
    return lambda module: monkeypatch.setitem(sys.modules, "models.baselines.segresnet", module)


@pytest.mark.parametrize("kind", BUILDS)
def test_what_is_wrong_with_a_network_is_one_problem(kind, segresnet):
    module, words = BUILDS[kind]
    segresnet(module)
    (problem,) = network_problems(parse_config(ONE, where="test"))
    assert re.search(words, problem.line()), problem.line()


def test_networks_that_answer_pass_also_those_that_look_at_values(segresnet):
    assert list(network_problems(parse_config(ONE, where="test"))) == []
    segresnet(built(looked_at))
    assert list(network_problems(parse_config(ONE, where="test"))) == []


def test_check_names_it_and_exits_with_2(segresnet, tmp_path, capsys):
    write_json(tmp_path / "config.json", ONE)
    segresnet(None)
    assert main(["check", "--config", str(tmp_path / "config.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
