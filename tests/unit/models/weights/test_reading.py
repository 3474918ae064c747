"""Files that cannot be trusted are refused; a wrapped checkpoint is unwrapped; loading is all or nothing."""

import argparse
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from models.weights.reading import load_strictly, read_state_dict
from segbench.core.errors import InputError


class Trap:
    """Pickles as a call, which an unsafe loader would make."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_malicious_file_is_refused_and_not_run(tmp_path):
    for number, save in enumerate((torch.save, lambda content, path: path.write_bytes(pickle.dumps(content)))):
        path, victim = tmp_path / f"trap{number}.pt", tmp_path / f"victim{number}"
        save({"weight": Trap(victim)}, path)
        with pytest.raises(InputError, match="does not load safely"):
            read_state_dict(path)
        assert not victim.exists()


def test_truncated_absent_and_foreign_files_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:1500])
    (tmp_path / "text.pt").write_text("not weights")
    for name in ("half.pt", "text.pt", "absent.pt"):
        with pytest.raises(InputError, match="does not load safely"):
            read_state_dict(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "found list"),
        ({}, "empty"),
        ({"a": 3}, "a: int"),
        ({"a": torch.tensor([1.0, float("inf")])}, "finite numbers"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match=message):
        read_state_dict(tmp_path / "a.pt")


def test_checkpoints_of_other_trainers_are_unwrapped(tmp_path):
    """nnU-Net v1 stores numpy numbers beside the weights; data-parallel training adds a prefix."""
    weight = torch.arange(3.0)
    content = {"epoch": 2, "plot_stuff": [np.float64(0.5), np.float32(0.1)], "state_dict": {"module.a": weight}}
    torch.save(content, tmp_path / "a.pt")
    assert torch.equal(read_state_dict(tmp_path / "a.pt")["a"], weight)


def test_self_distillation_keeps_the_teacher_beside_its_settings(tmp_path):
    """DINO and what is built on it, DeSD among them, store the parsed arguments in the checkpoint."""
    content = {"student": {"a": torch.zeros(3)}, "teacher": {"a": torch.ones(3)}, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "a.pt")
    assert torch.equal(read_state_dict(tmp_path / "a.pt")["a"], torch.ones(3))


def test_every_problem_is_named_and_nothing_is_loaded():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = [parameter.clone() for parameter in model.parameters()]
    state = {
        "0.weight": torch.zeros(3, 2),
        "0.bias": torch.zeros(4),
        "1.bias": torch.zeros(1),
        "2.bias": torch.zeros(1),
    }
    with pytest.raises(InputError) as caught:
        load_strictly(model, state, "a.pt")
    found = [problem.found for problem in caught.value.problems]
    assert found == ["tensor 0.bias of shape (4,)", "no tensor 1.weight", "unexpected tensor 2.bias"]
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_names_of_another_layout():
    model = nn.Linear(1, 1)
    load_strictly(model, {"w": torch.ones(1, 1), "b": torch.ones(1)}, "a.pt", names={"weight": "w", "bias": "b"})
    assert model.weight.item() == model.bias.item() == 1
    with pytest.raises(InputError, match="no tensor w"):
        load_strictly(model, {"b": torch.ones(1)}, "a.pt", names={"weight": "w", "bias": "b"})
