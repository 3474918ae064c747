"""Seeds depend on their axes and on nothing else."""

import hashlib

import pytest

from segbench.core.seeds import seed_for


def test_seed_is_the_head_of_the_hash_of_the_joined_axes():
    digest = hashlib.sha256(b"2023/train/liver").hexdigest()
    assert seed_for(2023, "train", "liver") == int(digest[:16], 16) // 2
    assert 0 <= seed_for("a") < 2**63


def test_axes_and_their_order_matter():
    seeds = {seed_for(0, "a", "b"), seed_for(0, "b", "a"), seed_for(1, "a", "b"), seed_for(0, "a")}
    assert len(seeds) == 4


def test_a_seed_without_an_axis_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        seed_for()
