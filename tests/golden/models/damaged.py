"""State dicts with one damaged tensor: `from_official` of a network has to refuse each and name the tensor."""

import pytest
import torch

from segbench.core.errors import InputError

KINDS = ("missing", "reshaped", "unexpected", "not a number")
over_kinds = pytest.mark.parametrize("kind", KINDS)


def refuses_each_damaged_tensor(from_official, whole, kind, *, names=None, undecided=(), **arch):
    """Damage every tensor of `whole` in turn, or those with `names`, and check that problems name it as the file does.

    undecided: layers whose size only their own weight and bias tell; when these contradict, either may be named.
    """
    for name in sorted(whole if names is None else names):
        state, named = dict(whole), name
        if kind == "missing":
            del state[name]
        elif kind == "reshaped":
            state[name] = torch.cat([state[name], state[name]])
        elif kind == "unexpected":
            named = f"{name}_"
            state[named] = state[name]
        else:
            state[name] = state[name] * float("nan")
        with pytest.raises(InputError) as caught:
            from_official(state, **arch)
        if kind == "reshaped" and name.rpartition(".")[0] in undecided:
            named = name.rpartition(".")[0]
        assert any(named in problem.line() for problem in caught.value.problems), (kind, name)
