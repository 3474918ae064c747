"""Whatever ends a training, its weights are in the end the same bytes as without (mode `exact`)."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from segbench.training.checkpoint import read_state
from tests.faults.training import STATE, TrainingFolder

FEW, MANY = 3, 20
ADDRESS_OF_A_BIT = 5000


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> TrainingFolder:
    """A folder with data."""
    return TrainingFolder.made(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def straight(folder) -> tuple[bytes, float]:
    """The weights of a training that nothing ended, and the seconds that it took."""
    began = time.monotonic()
    folder.finish()
    found = folder.weights(), time.monotonic() - began
    assert folder.outcome()["mode"] == "exact"
    return found


@pytest.fixture
def run(folder, straight) -> TrainingFolder:
    """The folder, with nothing trained."""
    folder.forget()
    return folder


def moments(count: int, seconds: float) -> list[float]:
    """Return a random moment in each of `count` equal parts of the time."""
    rng = random.Random(13)
    return [seconds * (part + rng.random()) / count for part in range(count)]


@pytest.mark.parametrize("count", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)])
def test_killed_again_and_again_at_random_moments(run, straight, count):
    """Each attempt is killed later than the one before, so that every phase is met; the last one may end."""
    weights, seconds = straight
    killed = 0
    for moment in moments(count, seconds):
        process = run.start()
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed += 1
        else:
            assert process.returncode == 0
    assert killed >= count // 2
    run.finish()
    assert run.weights() == weights


@pytest.mark.slow
def test_killed_while_a_state_is_written(run, straight):
    """A half-written file is there; the next process removes it and continues from the state before."""
    process = run.start()
    run.wait_for_state(process)
    while not list((run.root / STATE).parent.glob(".part-*")):
        assert process.poll() is None
    process.kill()
    process.communicate()
    run.finish()
    assert run.weights() == straight[0]


def test_ended_by_sigterm_it_saves_first(run, straight):
    process = run.start()
    run.wait_for_state(process)
    process.send_signal(signal.SIGTERM)
    run.finish(process, status=128 + signal.SIGTERM)
    reached = read_state(run.root / STATE)["progression"]["step"]
    said = run.finish()
    assert f"continue at step {reached}" in said
    assert [item["first_step"] for item in run.outcome()["attempts"]] == [0, reached]
    assert run.weights() == straight[0]


@pytest.mark.slow
def test_sigusr1_saves_and_training_goes_on(run, straight):
    process = run.start()
    run.wait_for_state(process)
    process.send_signal(signal.SIGUSR1)
    run.finish(process)
    assert len(run.outcome()["attempts"]) == 1
    assert run.weights() == straight[0]


@pytest.mark.parametrize(
    "damage", ["one bit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cut", "empty", "absent"))]
)
def test_a_damaged_newest_state_costs_the_steps_since_the_one_before(run, straight, damage):
    process = run.start()
    run.wait_for_state(process, "state.previous.pt")
    run.wait_for_state(process)
    process.kill()
    process.communicate()
    path = run.root / STATE
    _damage(path, damage)
    said = run.finish()
    assert "state.previous.pt: continue from this older state" in said
    for left in path.parent.glob("state*.unreadable.pt"):
        left.unlink()  # kept for the user
    assert run.weights() == straight[0]


def _damage(path: Path, damage: str) -> None:
    if damage == "absent":
        path.unlink(missing_ok=True)
        return
    content = bytearray(path.read_bytes())
    content[ADDRESS_OF_A_BIT] ^= 1
    path.write_bytes({"one bit": bytes(content), "cut": bytes(content[: len(content) // 2]), "empty": b""}[damage])


def test_a_disk_without_room_for_states_ends_nothing(run, straight):
    """Files may be as long as the weights, not as long as a state."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(straight[0]) + 4096, resource.RLIM_INFINITY))

    said = run.finish(run.start(limit))
    assert "no room for a state" in said
    assert run.weights() == straight[0]


@pytest.mark.slow
def test_a_full_file_system_ends_nothing(run, straight):
    """The states lie on a file system that holds the first and not the next."""
    place = (run.root / STATE).parent
    place.mkdir(parents=True)
    size = 6 * len(straight[0])  # weights and momentum, now and at the last good step, are four times the weights
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        process = run.start()
        run.wait_for_state(process)
        assert "no room for a state" in run.finish(process)
        assert run.weights() == straight[0]
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
def test_two_processes_on_one_job(run, straight):
    first = run.start()
    run.wait_for_state(first)
    second = run.start()
    said = run.finish(second, status=1)
    assert "is being run by process" in said
    run.finish(first)
    assert run.weights() == straight[0]
