"""`recover` ends what belongs to a dead workflow of this host, and leaves alone whatever else there is."""

import argparse
import logging
import os
from pathlib import Path

import pytest
import yaml

from segbench.cli import recover
from segbench.core.errors import RunFailed
from segbench.experiment.ownership import OWNER_VARIABLE, OWNERS, SLURM_VARIABLE
from tests.unit.experiment import processes
from tests.workflow.tiny import CONFIG

LOCK = Path(".snakemake/locks/0.output.lock")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, caplog):
    """A working directory with the config of the run `tiny`, and what is logged."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(OWNER_VARIABLE, raising=False)
    monkeypatch.delenv(SLURM_VARIABLE, raising=False)
    Path("config.yaml").write_text(yaml.safe_dump(CONFIG))
    caplog.set_level(logging.INFO)
    return caplog


def run(config: str | None = "config.yaml") -> int:
    return recover.run(argparse.Namespace(config=config and Path(config)))


def lock(run: str = "tiny") -> None:
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    LOCK.write_text(f"results/{run}/scores.csv\n")


def test_nothing_to_do():
    assert run() == run(None) == 0


def test_an_orphan_of_a_dead_workflow_is_ended_with_its_children_and_the_folder_is_free(here):
    owner = processes.write_workflow(processes.dead("tiny"))
    lock()
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    with processes.living(code, owner=owner) as process:
        child = int(process.stdout.readline())
        record = processes.write_job("tiny", processes.of(process, "train.x", owner))
        assert run() == 0
        assert process.poll() is not None
        assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]
    assert not record.exists()
    assert not LOCK.exists()
    assert not list(OWNERS.iterdir())
    assert "ending the orphaned job train.x" in here.text


def test_a_record_of_a_dead_job_is_cleared():
    record = processes.write_job("tiny", processes.dead("train.x"))
    assert run() == 0
    assert not record.exists()


def untouched(process, record) -> bool:
    return process.poll() is None and record.exists()


def test_a_job_of_a_living_workflow_of_another_run_is_left_alone():
    with processes.living() as workflow, processes.living() as job:
        owner = processes.write_workflow(processes.of(workflow, "other"))
        lock("other")
        record = processes.write_job("other", processes.of(job, "train.x", owner))
        assert run() == 0
        assert untouched(job, record)
        assert LOCK.exists()
        assert workflow.poll() is None
        with pytest.raises(RunFailed, match="the workflow of run other is running here"):
            run(None)


def test_two_runs_in_one_folder_the_dead_one_is_cleared_and_the_living_one_stays():
    with processes.living() as workflow, processes.living() as mine, processes.living() as theirs:
        living = processes.write_workflow(processes.of(workflow, "other"))
        dead = processes.write_workflow(processes.dead("tiny"))
        lock()
        second = LOCK.with_name("1.output.lock")
        second.write_text("results/other/scores.csv\n")
        kept = processes.write_job("other", processes.of(theirs, "train.y", living))
        processes.write_job("tiny", processes.of(mine, "train.x", dead))
        assert run() == 0
        assert mine.poll() is not None
        assert untouched(theirs, kept)
        assert (LOCK.exists(), second.exists()) == (False, True)
        assert [path.stem for path in OWNERS.iterdir()] == [living]


@pytest.mark.parametrize("locked", [True, False])
def test_a_living_workflow_of_the_run_is_refused_and_nothing_is_touched(locked):
    """Snakemake removes all locks of a folder when another workflow there ends."""
    with processes.living() as workflow, processes.living() as job:
        owner = processes.write_workflow(processes.of(workflow, "tiny"))
        if locked:
            lock()
        record = processes.write_job("tiny", processes.of(job, "train.x", owner))
        with pytest.raises(RunFailed, match=rf"running here \(process {workflow.pid} on"):
            run()
        assert untouched(job, record)
        assert LOCK.exists() is locked


def test_a_workflow_of_another_host_is_refused_with_what_to_do():
    name = processes.write_workflow(processes.elsewhere("tiny"))
    lock()
    with pytest.raises(RunFailed, match=f"run recover on {processes.ELSEWHERE}, or, .* delete {OWNERS}/{name}.json"):
        run()
    assert LOCK.exists()
    assert (OWNERS / f"{name}.json").exists()


def test_a_job_of_another_host_is_left_alone_even_if_its_number_lives_here(here):
    processes.write_workflow(processes.dead("tiny"))
    record = processes.write_job("tiny", processes.elsewhere("train.x"))
    assert run() == 0
    assert record.exists()
    assert f"left alone: train.x of process {os.getpid()} on {processes.ELSEWHERE}" in here.text


@pytest.mark.parametrize("dead", [True, False])
def test_a_slurm_job_is_cancelled_wherever_it_runs_when_its_workflow_is_dead(here, tmp_path, monkeypatch, dead):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    processes.write_command(tmp_path / "bin", "squeue", "echo RUNNING")
    processes.write_command(tmp_path / "bin", "scancel", f"echo $* >{tmp_path}/cancelled")
    with processes.living() as workflow:
        owner = processes.dead("tiny") if dead else processes.of(workflow, "other")
        record = processes.write_job("tiny", processes.elsewhere("train.x", processes.write_workflow(owner), "17"))
        assert run() == 0
    cancelled = tmp_path / "cancelled"
    assert (cancelled.exists() and cancelled.read_text()) == ("17\n" if dead else False)
    assert record.exists() is not dead
    assert "SLURM job 17" in here.text


def test_a_record_of_another_user_ends_nothing(here, monkeypatch):
    owner = processes.write_workflow(processes.dead("tiny"))
    monkeypatch.setattr(recover.os, "getuid", lambda: os.geteuid() + 1)
    with processes.living() as job:
        record = processes.write_job("tiny", processes.of(job, "train.x", owner))
        assert run() == 0
        assert untouched(job, record)
    assert "belongs to another user" in here.text


@pytest.mark.parametrize("owner", [None, "another-host-17"])
def test_a_job_that_was_started_by_hand_or_whose_owner_is_not_known_is_left_alone(here, owner):
    processes.write_workflow(processes.dead("tiny"))
    with processes.living() as job:
        record = processes.write_job("tiny", processes.of(job, "train.x", owner))
        assert run() == 0
        assert untouched(job, record)
    assert "whose workflow is not known to be dead" in here.text


def test_a_lock_of_an_unknown_owner_stays_and_the_way_out_is_named():
    processes.write_workflow(processes.dead("other"))
    lock()
    with pytest.raises(RunFailed, match="owner is unknown; if none runs: snakemake --unlock"):
        run()
    assert LOCK.exists()


def test_half_written_files_of_dead_writers_are_removed():
    from segbench.core.files import PART

    record = processes.dead("x")
    half = [Path(folder) / f"{PART}{record.host}@{record.pid}-a" for folder in ("results/tiny", "data/preprocessed/ct")]
    for path in half:
        path.parent.mkdir(parents=True)
        path.write_text("half")
    assert run() == 0
    assert not any(path.exists() for path in half)
