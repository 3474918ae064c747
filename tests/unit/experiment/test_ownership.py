"""Records of processes tell the living from the dead, and this host from another one."""

import os
import platform
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from segbench.core.errors import RunFailed
from segbench.core.files import PART, atomic_path, part_prefix, remove_abandoned_parts, write_json
from segbench.experiment import ownership
from segbench.experiment.ownership import (
    OWNER_VARIABLE,
    OWNERS,
    SLURM_VARIABLE,
    ProcessRecord,
    owners,
    read_record,
    running,
)
from tests.unit.experiment import processes


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory of its own, with no workflow around."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(OWNER_VARIABLE, raising=False)
    monkeypatch.delenv(SLURM_VARIABLE, raising=False)
    return tmp_path


def test_a_living_process_is_alive_and_an_ended_one_is_not():
    with processes.living() as process:
        record = ProcessRecord.of(process.pid, "job")
        assert (record.here, record.alive) == (True, True)
    assert not record.alive


def test_another_process_of_the_same_number_is_not_the_recorded_one():
    record = ProcessRecord.of(os.getpid(), "job")
    assert record.alive
    assert replace(record, created=record.created - 2).alive, "a corrected clock"
    assert not replace(record, created=record.created - 3600).alive


def test_a_process_that_nobody_waits_for_is_dead():
    with processes.living("") as process:
        record = ProcessRecord.of(process.pid, "job")
        process.stdout.read()
        for _ in range(100):
            if not record.alive:
                break
            os.sched_yield()
        assert process.returncode is None, "it was not waited for"
        assert not record.alive


def test_of_another_host_nothing_is_known_so_it_counts_as_alive():
    record = processes.elsewhere("job")
    assert (record.here, record.alive) == (False, True)
    assert record.text() == f"process {os.getpid()} on {processes.ELSEWHERE}"


@pytest.mark.parametrize(
    ("script", "alive"),
    [
        ("echo RUNNING", True),
        ("echo COMPLETING", True),
        ("echo CANCELLED", False),
        ("echo PENDING", False),  # requeued after its node failed
        ("", False),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", False),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", True),
        (None, True),
    ],
)
def test_of_a_slurm_job_of_another_host_slurm_is_asked(here, monkeypatch, script, alive):
    monkeypatch.setenv("PATH", f"{here / 'bin'}:/usr/bin:/bin" if script is not None else str(here))
    if script is not None:
        processes.write_command(here / "bin", "squeue", f'[ "$3" = --jobs=17 ] || exit 3\n{script}')
    assert processes.elsewhere("train.x", slurm_job="17").alive is alive


def test_a_slurm_job_that_was_requeued_is_not_stopped_by_the_record_of_its_former_process(here, monkeypatch):
    monkeypatch.setenv(SLURM_VARIABLE, "17")
    write_json(here / "train.x.json", asdict(processes.elsewhere("train.x", slurm_job="17")))
    with running(here, "train.x"):
        assert read_record(here / "train.x.json").slurm_job == "17"


def test_a_record_behind_a_link_is_none(here):
    write_json(here / "a.json", asdict(processes.elsewhere("train.x")))
    (here / "b.json").symlink_to(here / "a.json")
    assert read_record(here / "a.json") is not None
    assert read_record(here / "b.json") is None


def test_jobs_learn_of_their_workflow_by_the_environment():
    ownership.write_owner("demo")
    try:
        ((name, record),) = owners().items()
        assert (record.about, record.pid, record.host, record.owner) == ("demo", os.getpid(), platform.node(), None)
        assert ProcessRecord.of(os.getpid(), "job").owner == name
        ownership.forget_owner()
        assert owners() == {}
    finally:
        del os.environ[OWNER_VARIABLE]


def test_a_workflow_that_ends_while_a_process_of_its_job_lives_stays_known(monkeypatch):
    monkeypatch.setenv(OWNER_VARIABLE, "")
    ownership.write_owner("demo")
    name = os.environ[OWNER_VARIABLE]
    with processes.living() as process:
        processes.write_job("demo", processes.of(process, "train.x", owner=name))
        ownership.forget_owner()
        assert list(owners()) == [name]
    ownership.forget_owner()
    assert owners() == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "x"}', '{"host": "x", "other": 1}'])
def test_a_damaged_record_is_none(here, content):
    OWNERS.mkdir(parents=True)
    (OWNERS / "x.json").write_text(content)
    assert read_record(OWNERS / "x.json") is None
    assert owners() == {}
    assert read_record(here / "none.json") is None


def test_a_job_is_recorded_while_it_runs_and_whatever_happens(here):
    with running(here, "train.x"):
        assert read_record(here / "train.x.json").pid == os.getpid()
    with pytest.raises(ValueError, match="oh"), running(here, "train.x"):
        raise ValueError("oh")
    assert not list(here.iterdir())


def begin(folder):
    with running(folder, "train.x"):
        raise AssertionError("it ran")


def test_two_processes_do_not_work_on_one_job(here):
    with processes.living() as process:
        path = here / "train.x.json"
        write_json(path, asdict(processes.of(process, "train.x")))
        with (
            pytest.raises(RunFailed, match=f"train.x is being run by process {process.pid} on"),
            running(here, "train.x"),
        ):
            raise AssertionError("it ran")
        assert read_record(path).pid == process.pid, "the other's record stays"
    with running(here, "train.x"):
        assert read_record(path).pid == os.getpid(), "the other is dead"


def test_a_job_of_another_host_is_left_alone_and_the_way_out_is_named(here):
    path = here / "train.x.json"
    write_json(path, asdict(processes.elsewhere("train.x")))
    with pytest.raises(RunFailed, match=f"on {processes.ELSEWHERE}; .*if that host is gone, delete {path}"):
        begin(here)


def test_parts_of_dead_writers_of_this_host_are_removed_and_no_others(here):
    host, pid = platform.node(), processes.dead_pid()
    gone = [here / f"{PART}{host}@{pid}-abc-scores.csv", here / "deep" / f"{PART}{host}@{pid}-case"]
    kept = [
        here / f"{part_prefix()}abc-scores.csv",
        here / f"{PART}{host}-9@{pid}-abc-scores.csv",
        here / f"{PART}{processes.ELSEWHERE}@{pid}-abc-scores.csv",
        here / f"{PART}{host}@x-abc",
        here / "scores.csv",
    ]
    for path in (gone[0], *kept):
        path.write_text("half")
    gone[1].mkdir(parents=True)
    (gone[1] / "images.b2nd").write_text("half")
    assert sorted(remove_abandoned_parts(here)) == sorted(gone)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)
    assert remove_abandoned_parts(here / "absent") == []


def test_of_a_link_with_the_name_of_a_part_only_the_link_is_removed(here):
    (here / "kept" / "deep").mkdir(parents=True)
    (here / "kept" / "deep" / "scores.csv").write_text("mine")
    part = f"{PART}{platform.node()}@{processes.dead_pid()}"
    targets = {"folder": here / "kept", "file": here / "kept" / "deep" / "scores.csv", "nothing": here / "none"}
    links = [here / "store" / f"{part}-{name}" for name in targets]
    (here / "store").mkdir()
    for link, target in zip(links, targets.values(), strict=True):
        link.symlink_to(target)
    (here / "store" / "other").symlink_to(here / "kept")
    (here / "kept" / f"{part}-behind-a-link").write_text("half")
    assert sorted(remove_abandoned_parts(here / "store")) == sorted(links)
    assert sorted(path.name for path in (here / "store").iterdir()) == ["other"]
    assert (here / "kept" / "deep" / "scores.csv").read_text() == "mine"
    assert (here / "kept" / f"{part}-behind-a-link").exists(), "links are not followed"


def test_parts_of_another_user_stay(here, monkeypatch):
    path = here / f"{PART}{platform.node()}@{processes.dead_pid()}-scores.csv"
    path.write_text("half")
    monkeypatch.setattr("segbench.core.files.os.getuid", lambda: os.geteuid() + 1)
    assert remove_abandoned_parts(here) == []
    assert path.exists()


def test_a_killed_writer_leaves_a_part_that_names_it(here):
    code = """
from segbench.core.files import atomic_path
import time
with atomic_path("a.csv"):
    print("!", flush=True)
    time.sleep(60)
"""
    with processes.living(code) as process:
        assert process.stdout.readline() == "!\n"
        (part,) = here.glob(f"{PART}*")
        assert remove_abandoned_parts(here) == []
    assert remove_abandoned_parts(Path()) == [Path(part.name)]
    with atomic_path(here / "a.csv") as path:
        assert path.name.startswith(part_prefix())
