"""Each re-implemented network gives its original's numbers; damage to a state dict is refused; the command judges."""

import json
import random
import shutil

import numpy as np
import pytest
import torch

from segbench.core.errors import InputError
from tests.golden.models import parity
from tests.golden.models.official import (
    GOLDEN,
    TOLERANCE,
    TOLERANCES,
    compare,
    constructor_arguments,
    filled,
    golden_name,
    load,
    official_modules,
)

NAMES = sorted(official_modules())
DAMAGED = 6  # tensors per kind of damage, drawn from all


@pytest.mark.parametrize("name", NAMES)
def test_agreement_with_the_original(name):
    facts, arrays = load(name)
    network, rows = compare(GOLDEN / f"{name}.json")
    assert len(rows) == len(arrays)
    assert sum(parameter.numel() for parameter in network.parameters()) == facts["arch"]["parameters_total"]
    assert not network.training
    assert max(row.relative for row in rows) <= TOLERANCES.get(name, TOLERANCE)


@pytest.mark.parametrize("corrupt", ["missing", "reshaped", "unexpected", "not a number"])
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_state_dict_is_refused(name, corrupt):
    facts, _ = load(name)
    whole = filled(facts["parameters"])
    for chosen in random.Random(0).sample(sorted(whole), DAMAGED):
        state, named = dict(whole), chosen
        if corrupt == "missing":
            del state[chosen]
        elif corrupt == "reshaped":
            state[chosen] = state[chosen][:-1] if len(state[chosen]) > 1 else torch.cat([state[chosen]] * 2)
        elif corrupt == "unexpected":
            named = f"{chosen}_"
            state[named] = state[chosen]
        else:
            state[chosen] = state[chosen] * float("nan")
        with pytest.raises(InputError) as caught:
            official_modules()[name].from_official(state, **constructor_arguments(facts))
        assert any(named in problem.line() for problem in caught.value.problems)


def golden_copy(folder, name, stem):
    for suffix in (".json", ".npz"):
        if not (GOLDEN / f"{name}{suffix}").exists():
            pytest.skip("the expected outputs of the original networks are not beside this checkout")
        shutil.copyfile(GOLDEN / f"{name}{suffix}", folder / f"{stem}{suffix}")
    return folder / f"{stem}.json"


def test_the_command_agrees_with_a_file_of_another_name(tmp_path, capsys):
    path = golden_copy(tmp_path, "uxnet3d_official", "other")  # the source that the file states decides
    assert parity.main([str(path)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("uxnet3d_official (other.json): agrees, absolute ")


def test_the_command_sees_one_wrong_number(tmp_path, capsys):
    path = golden_copy(tmp_path, "uxnet3d_official", "uxnet3d_wrong")
    with np.load(path.with_suffix(".npz")) as stored:
        arrays = dict(stored)
    arrays["case1_output0"][1, 2, 3, 4, 5] += 1e-3 * np.abs(arrays["case1_output0"]).max()
    np.savez(path.with_suffix(".npz"), **arrays)
    assert parity.main([str(path)]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_the_command_refuses_what_it_cannot_judge(tmp_path, capsys):
    path = tmp_path / "stranger.json"
    assert parity.main([str(path)]) == 2
    path.write_text(json.dumps({"arch": {}, "parameters": {}, "cases": []}))
    np.savez(path.with_suffix(".npz"))
    assert parity.main([str(path)]) == 2
    assert "one of " in capsys.readouterr().err
    for content in ([], {"arch": {}, "cases": []}):
        path.write_text(json.dumps(content))
        assert parity.main([str(path)]) == 2
        assert "no mapping with arch, cases, parameters" in capsys.readouterr().err


def test_the_longest_name_in_a_file_s_name_counts(tmp_path):
    names = official_modules()
    for name in names:
        assert golden_name(tmp_path / f"{name}_2.json", {}) == name
