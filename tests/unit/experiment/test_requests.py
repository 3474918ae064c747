"""Requests are written when a setting or an attempt changes, and only then."""

import json
import os

import pytest

from segbench.core.files import write_json
from segbench.experiment.requests import ask, attempt_of, read


@pytest.fixture
def place(tmp_path):
    """Folder of a job; its request is request.json, its outcome outcome.json, its product weights.pt."""
    (tmp_path / "weights.pt").write_text("weights")
    return tmp_path


def asked(place, settings="a"):
    path = ask(place / "request.json", settings, outcome=place / "outcome.json", products=[place / "weights.pt"])
    return json.loads(path.read_text())


def end(place, **outcome):
    write_json(place / "outcome.json", {"status": "ok", "attempt": 1} | outcome)


def test_the_first_request_asks_for_the_first_attempt(place):
    assert asked(place) == {"settings": "a", "attempt": 1}
    assert attempt_of(place / "request.json") == 1
    assert attempt_of(place / "none.json") == 1


def test_an_unchanged_request_keeps_its_bytes_and_its_time(place):
    asked(place)
    end(place)
    path = place / "request.json"
    os.utime(path, ns=(1, 1))
    before = path.read_bytes()
    asked(place)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, 1)
    asked(place, "b")
    assert path.stat().st_mtime_ns != 1


def test_a_failed_job_is_asked_for_once_more_however_often_the_graph_is_built(place):
    asked(place)
    end(place, status="failed")
    assert [asked(place)["attempt"] for _ in range(3)] == [2, 2, 2]
    end(place, status="failed", attempt=2)
    assert asked(place)["attempt"] == 3


def test_what_failed_before_the_job_began_waits_for_its_training(place):
    asked(place)
    end(place, status="failed_upstream")
    assert asked(place)["attempt"] == 1
    (place / "weights.pt").unlink()
    assert asked(place)["attempt"] == 2, "its rows are needed none the less"


def test_a_deleted_product_asks_again(place):
    asked(place)
    end(place)
    (place / "weights.pt").unlink()
    assert [asked(place)["attempt"] for _ in range(2)] == [2, 2]
    (place / "weights.pt").write_text("again")
    end(place, attempt=2)
    assert asked(place)["attempt"] == 2


def test_a_running_job_whose_outcome_is_absent_is_left_alone(place):
    asked(place)
    end(place, status="failed")
    asked(place)
    (place / "outcome.json").unlink()
    (place / "weights.pt").unlink()
    os.utime(place / "request.json", ns=(1, 1))
    assert asked(place)["attempt"] == 2
    assert (place / "request.json").stat().st_mtime_ns == 1


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", '{"status": "ok"}', '{"attempt": "x", "status": "ok"}'])
def test_a_damaged_outcome_asks_again(place, content):
    asked(place)
    (place / "outcome.json").write_text(content)
    assert asked(place)["attempt"] == 2


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"attempt": "x"}'])
def test_a_damaged_request_is_written_again(place, content):
    (place / "request.json").write_text(content)
    assert attempt_of(place / "request.json") == 1
    assert asked(place) == {"settings": "a", "attempt": 1}


def test_a_request_without_an_outcome_to_watch_has_one_attempt(place):
    path = ask(place / "split.json", "a")
    assert read(path) == {"settings": "a", "attempt": 1}
    assert read(ask(path, "b")) == {"settings": "b", "attempt": 1}


def test_a_deleted_request_does_not_go_back_behind_the_outcome(place):
    asked(place)
    end(place, attempt=4)
    (place / "request.json").unlink()
    assert asked(place)["attempt"] == 4
