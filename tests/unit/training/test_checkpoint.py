"""States: used by their own identity, kept aside for another one, never read with code execution."""

import errno
import logging
import pickle
import resource
import signal

import pytest
import torch

from segbench.core.errors import is_machine_failure
from segbench.experiment.identity import Identity
from segbench.training import checkpoint
from segbench.training.checkpoint import STATE_KEYS, load_state, read_state, save, save_state

FIRST = Identity({"training": "80 steps", "model": "a"})
SECOND = Identity({"training": "60 steps", "model": "a"})


@pytest.fixture
def path(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    return tmp_path / "state.pt"


def write(path, identity, step=3):
    state = dict.fromkeys(STATE_KEYS, 0) | {"identity": identity.to_dict(), "step": step}
    assert save_state(path, state | {"trained": {"weight": torch.ones(2)}})


def names(path):
    return sorted(file.name for file in path.parent.iterdir())


def test_without_a_state_training_begins_anew(path):
    assert load_state(path, FIRST) is None


def test_a_state_is_used_by_its_own_identity(path, caplog):
    write(path, FIRST)
    state = load_state(path, FIRST)
    assert state["step"] == 3
    assert torch.equal(state["trained"]["weight"], torch.ones(2))
    assert names(path) == ["state.pt"]
    assert not caplog.text


def test_a_state_of_another_identity_is_kept_aside_and_used_when_settings_go_back(path, caplog):
    write(path, FIRST, step=30)
    assert load_state(path, SECOND) is None
    aside = f"state.{FIRST.digest}.pt"
    assert names(path) == [aside]
    assert f"not used, made from other inputs (training); kept as {aside}" in caplog.text
    assert load_state(path, FIRST)["step"] == 30
    assert names(path) == ["state.pt"]


def test_two_states_change_their_roles(path):
    write(path, FIRST, step=30)
    load_state(path, SECOND)
    write(path, SECOND, step=20)
    assert load_state(path, FIRST)["step"] == 30
    assert names(path) == [f"state.{SECOND.digest}.pt", "state.pt"]
    assert load_state(path, SECOND)["step"] == 20
    assert names(path) == [f"state.{FIRST.digest}.pt", "state.pt"]


def test_other_training_code_is_another_identity(path):
    write(path, Identity(FIRST.parts | {"training code": "x"}))
    assert load_state(path, Identity(FIRST.parts | {"training code": "y"})) is None


def truncated(path):
    write(path, FIRST)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Malicious:
    def __reduce__(self):
        return (open, ("executed", "w"))


DAMAGED = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("state"),
    "truncated": truncated,
    "executes code": lambda path: path.write_bytes(pickle.dumps(Malicious())),
    "no identity": lambda path: save_state(path, dict.fromkeys(STATE_KEYS, 0)),
    "an edited identity": lambda path: save_state(
        path, dict.fromkeys(STATE_KEYS, 0) | {"identity": FIRST.to_dict() | {"digest": "0"}}
    ),
    "no weights": lambda path: save_state(path, {"identity": FIRST.to_dict(), "good": {}, "progression": {}}),
    "a tensor": lambda path: torch.save(torch.ones(2), path),
    "one bit": lambda path: flip_a_bit(path),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_state_is_kept_aside_and_training_begins_anew(path, caplog, monkeypatch, kind):
    monkeypatch.chdir(path.parent)
    DAMAGED[kind](path)
    before = path.read_bytes()
    assert load_state(path, FIRST) is None
    assert names(path) == ["state.unreadable.pt"]
    assert (path.parent / "state.unreadable.pt").read_bytes() == before
    assert "not used, it cannot be read" in caplog.text
    write(path, FIRST)
    assert load_state(path, FIRST)["step"] == 3


def test_a_full_memory_is_no_damaged_state(path, monkeypatch):
    write(path, FIRST)

    def load(*args, **options):
        raise MemoryError

    monkeypatch.setattr(checkpoint.torch, "load", load)
    with pytest.raises(MemoryError):
        load_state(path, FIRST)
    assert names(path) == ["state.pt"]


def test_equal_content_gives_equal_bytes_under_any_name(tmp_path):
    for name in ("a.pt", "b.pt"):
        save(tmp_path / name, {"weight": torch.arange(3)})
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    assert torch.equal(checkpoint.load_weights(tmp_path / "a.pt")["weight"], torch.arange(3))


def flip_a_bit(path):
    write(path, FIRST)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_state_before_the_newest_is_kept(path):
    for step in (1, 2, 3):
        write(path, FIRST, step=step)
    assert names(path) == ["state.previous.pt", "state.pt"]
    assert read_state(path.parent / "state.previous.pt")["step"] == 2
    assert load_state(path, FIRST)["step"] == 3


@pytest.mark.parametrize("damage", ["one bit", "absent"])
def test_the_older_state_continues_when_the_newer_one_is_damaged(path, caplog, damage):
    write(path, FIRST, step=1)
    write(path, FIRST, step=2)
    if damage == "absent":  # killed between the two renames
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes(content)
    assert load_state(path, FIRST)["step"] == 1
    assert "state.previous.pt: continue from this older state" in caplog.text
    write(path, FIRST, step=2)
    assert load_state(path, FIRST)["step"] == 2
    assert read_state(path.parent / "state.previous.pt")["step"] == 1


def test_both_states_of_another_identity_leave_one_aside(path):
    write(path, FIRST, step=1)
    write(path, FIRST, step=2)
    assert load_state(path, SECOND) is None
    assert names(path) == [f"state.{FIRST.digest}.pt"]
    assert load_state(path, FIRST)["step"] == 2


@pytest.fixture
def full_disk():
    """A limit of the size of files, so that writing a state fails as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_states_before_it_and_a_warning(path, caplog, full_disk):
    write(path, FIRST, step=1)
    write(path, FIRST, step=2)
    content = dict.fromkeys(STATE_KEYS, 0) | {"trained": {"weight": torch.ones(5000)}, "identity": FIRST.to_dict()}
    full_disk()
    assert save_state(path, content) is False
    assert "no room for a state" in caplog.text
    assert names(path) == ["state.previous.pt", "state.pt"]
    assert load_state(path, FIRST)["step"] == 2


def test_weights_on_a_full_disk_are_a_failure_of_the_machine(tmp_path, full_disk):
    full_disk()
    with pytest.raises(OSError, match="too large") as found:
        save(tmp_path / "weights.pt", {"weight": torch.ones(5000)})
    assert is_machine_failure(found.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, "full"), (errno.EIO, "broken")])
def test_only_a_full_disk_is_borne(path, monkeypatch, number, kind):
    def fail(handle):
        raise OSError(number, kind)

    write(path, FIRST, step=1)
    monkeypatch.setattr(checkpoint.os, "fsync", fail)
    content = dict.fromkeys(STATE_KEYS, 0) | {"identity": FIRST.to_dict()}
    if kind == "full":
        assert save_state(path, content) is False
    else:
        with pytest.raises(OSError, match="broken"):
            save_state(path, content)
    monkeypatch.undo()
    assert names(path) == ["state.pt"]
    assert load_state(path, FIRST)["step"] == 1
