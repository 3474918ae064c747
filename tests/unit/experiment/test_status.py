"""How a run stands, from small files alone: states, notes, rates, what SLURM's queue says."""

import argparse
import json
from pathlib import Path

import pytest
import yaml

from segbench.cli import status as command
from segbench.core.files import sha256_of, write_json, write_text
from segbench.core.paths import RunPaths
from segbench.core.provenance import content_hash
from segbench.experiment.config import load_config
from segbench.experiment.identity import Identity, evaluation_settings_identity, training_settings_identity
from segbench.experiment.jobs import evaluation_jobs, made_identities, training_jobs
from segbench.experiment.ownership import SLURM_VARIABLE
from segbench.experiment.result_record import read_result
from segbench.experiment.status import last_line, ledger, run_status
from tests.unit.experiment import processes
from tests.workflow.tiny import CONFIG

PATHS = RunPaths("tiny")
UNISEG = "upstream.uniseg.random.joint.f0.s0"
SPLEEN = "upstream.single_task.random.phantom_spleen.f0.s0"
PETCT = "upstream.single_task.random.phantom_petct.f0.s0"
IDENTITIES = {"train": training_settings_identity, "evaluate": evaluation_settings_identity}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A config with three trainings and two controls, in a working directory of its own, without SLURM."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin" if not Path("/usr/bin/squeue").exists() else str(tmp_path))
    monkeypatch.delenv(SLURM_VARIABLE, raising=False)
    content = json.loads(json.dumps(CONFIG))
    content["upstream"]["self_supervised"] = []
    del content["downstream"]
    Path("config.yaml").write_text(yaml.safe_dump(content))
    return load_config("config.yaml")


def write(config, rule: str, name: str, seconds: float = 10.0, **changes) -> None:
    """Write the outcome and the record of a job that went well, or the changed outcome."""
    folder = PATHS.train(name) if rule == "train" else PATHS.evaluate(name)
    job = next(job for job in (*training_jobs(config), *evaluation_jobs(config)) if job.id == name)
    outcome = {"status": "ok", "job": name, "command": rule, "reason": "", "started": 100.0, "finished": 100 + seconds}
    write_json(folder / "outcome.json", outcome | changes)
    parts = IDENTITIES[rule](config, job).parts
    if rule == "evaluate" and (trained := read_result(PATHS.train(name))) is not None:
        parts = parts | {"weights": trained.weights_digest}
    write_json(folder / "record.json", {"identity": Identity(parts).to_dict(), "outcome": outcome, "files": {}})


def render(config) -> None:
    """Write the record of a run of this config with the jobs as they are, and a report of it."""
    config_sha256 = content_hash(config.model_dump(mode="json"))
    write_json(PATHS.run_record, {"config_sha256": config_sha256, "identities": made_identities(config)})
    write_text(PATHS.scores, "")
    parts = {"scores.csv": sha256_of(PATHS.scores), "run.json": sha256_of(PATHS.run_record)}
    write_json(PATHS.rendered, {"files": {}, "identity": {"parts": parts}})


def states(config) -> dict[str, str]:
    return {item.name: item.state for item in run_status(config).jobs}


def said(config, capsys) -> tuple[int, list[str]]:
    code = command.run(argparse.Namespace(config=Path("config.yaml"), watch=None, ledger=None))
    return code, capsys.readouterr().out.splitlines()


def test_a_run_that_was_not_started_waits(config, capsys):
    assert set(states(config).values()) == {"waiting"}
    assert said(config, capsys) == (
        1,
        ["tiny: 0 jobs done, 0 running, 8 waiting, 0 failed, 0 outdated, 0 damaged", "report: not rendered"],
    )


def test_each_job_has_its_state_and_what_is_known_of_it(config, capsys):
    write(config, "train", UNISEG)
    write(config, "train", SPLEEN, status="failed", reason="ValueError: no")
    write(config, "evaluate", UNISEG)
    record = json.loads((PATHS.evaluate(UNISEG) / "record.json").read_text())
    other = Identity(record["identity"]["parts"] | {"structures": "0"}).to_dict()
    write_json(PATHS.evaluate(UNISEG) / "record.json", record | {"identity": other})
    with processes.living() as process:
        processes.write_job("tiny", processes.of(process, f"train.{PETCT}"))
        log = PATHS.log("train", PETCT)
        log.parent.mkdir(parents=True)
        log.write_text("first\nINFO segbench.progress: training: 7 of 90 steps\n\n")
        code, lines = said(config, capsys)
        assert code == 1
        assert lines[0] == "tiny: 1 jobs done, 1 running, 4 waiting, 1 failed, 1 outdated, 0 damaged"
        text = "\n".join(lines)
        assert f"running: train {PETCT}: process {process.pid} on" in text
        assert "training: 7 of 90 steps" in text
        assert f"failed, tried again by the next run: train {SPLEEN}: ValueError: no" in text
        assert f"outdated, made anew by the next run: evaluate {UNISEG}: made from other structures" in text
    assert states(config)[f"train {PETCT}"] == "waiting", "a dead process works on nothing"


def test_what_was_made_from_weights_that_were_trained_anew_is_outdated(tmp_path, monkeypatch):
    """A run that is killed between a training and what reads its weights."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(yaml.safe_dump(CONFIG))
    config = load_config("config.yaml")
    transfer = "downstream.single_task.uniseg.phantom_schwannoma.f0.s0"
    write(config, "train", UNISEG)
    write(config, "evaluate", UNISEG)
    write(config, "train", transfer)
    record = json.loads((PATHS.train(transfer) / "record.json").read_text())
    source = read_result(PATHS.train(UNISEG)).identity.digest
    parts = record["identity"]["parts"] | {"weights it starts from": source}
    write_json(PATHS.train(transfer) / "record.json", record | {"identity": Identity(parts).to_dict()})
    assert {states(config)[name] for name in (f"evaluate {UNISEG}", f"train {transfer}")} == {"done"}

    record = json.loads((PATHS.train(UNISEG) / "record.json").read_text())
    other = Identity(record["identity"]["parts"] | {"training cases": "other"}).to_dict()
    write_json(PATHS.train(UNISEG) / "record.json", record | {"identity": other})
    notes = {item.name: item.note for item in run_status(config).of("outdated")}
    assert notes == {
        f"evaluate {UNISEG}": "made from other weights",
        f"train {transfer}": "made from other weights it starts from",
    }


def test_a_slurm_job_of_another_host_is_running_while_slurm_says_so(config, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    processes.write_job("tiny", processes.elsewhere(f"train.{UNISEG}", slurm_job="17"))
    for state, expected in (("RUNNING", "running"), ("TIMEOUT", "waiting")):
        processes.write_command(tmp_path / "bin", "squeue", f"echo {state}")
        assert states(config)[f"train {UNISEG}"] == expected


def test_the_queue_is_counted_by_reason_and_other_jobs_are_no_part(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    comments = [f"rule_train_wildcards_{name}" for name in (UNISEG, SPLEEN, PETCT)]
    queue = "\n".join(
        (f"Priority|{comments[0]}", f"Resources|{comments[1]}", f"Priority|{comments[2]}", "Priority|rule_other")
    )
    processes.write_command(tmp_path / "bin", "squeue", f"cat <<'E'\n{queue}\nE")
    assert run_status(config).queued == {"Priority": 2, "Resources": 1}
    assert "in SLURM's queue: 2 (Priority), 1 (Resources)" in said(config, capsys)[1]


def test_the_remaining_time_follows_from_done_jobs_of_the_same_model(config):
    """30 s for each per-task training, 60 s for each evaluation, one job at a time; the running one has just begun."""
    write(config, "train", UNISEG, seconds=300.0)
    write(config, "train", SPLEEN, seconds=30.0)
    assert run_status(config).remaining_seconds is None, "nothing is running"
    write(config, "evaluate", UNISEG, seconds=60.0)
    with processes.living() as process:
        processes.write_job("tiny", processes.of(process, f"train.{PETCT}"))
        status = run_status(config)
        assert status.mean_seconds("train") == 165.0
        assert status.mean_seconds("train", "single_task") == 30.0
        assert status.remaining_seconds == pytest.approx(30 + 4 * 60, abs=5)


def test_the_remaining_time_follows_from_the_log_of_a_running_job(config, capsys):
    """Nothing is done yet; the training says 100 s, and evaluations are known from one that is done."""
    write(config, "evaluate", UNISEG, seconds=60.0)
    with processes.living() as process:
        processes.write_job("tiny", processes.of(process, f"train.{UNISEG}"))
        log = PATHS.log("train", UNISEG)
        write_text(log, "INFO x: train a: 3 of 8 steps loss 0.5, 0.05 a second, 0:01:40 left\n")
        status = run_status(config)
        running = status.of("running")[0]
        assert running.left == pytest.approx(100, abs=3)
        each = (running.seconds or 0) + 100
        assert status.expected_seconds("train", "single_task") == pytest.approx(each, abs=3), "as the running one"
        trainings, evaluations = len(training_jobs(config)), len(evaluation_jobs(config))
        expected = 100 + (trainings - 1) * each + (evaluations - 1) * 60
        assert status.remaining_seconds == pytest.approx(expected, abs=3 * trainings)
        text = "\n".join(said(config, capsys)[1])
        assert f"[{'#' * 5}{'-' * 35}] 1 of 8 jobs" in text
        assert "3 of 8 steps loss 0.5, 0.05 a second, 0:01:40 left" in text
        write_text(log, "a warning\n")
        assert run_status(config).remaining_seconds is None, "nothing tells how long a training takes"


def test_a_run_is_watched_until_it_is_done(config, monkeypatch, capsys):
    for job in training_jobs(config):
        write(config, "train", job.id)
    for job in evaluation_jobs(config):
        write(config, "evaluate", job.id)

    def end(seconds: float) -> None:
        assert seconds == 5
        render(config)

    monkeypatch.setattr(command.time, "sleep", end)
    assert command.run(argparse.Namespace(config=Path("config.yaml"), watch=5, ledger=None)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("tiny: 8 jobs done")]) == 2
    assert lines[-1] == "report: results/tiny/report/index.html"


def test_a_report_of_another_config_or_of_former_results_is_said(config, capsys):
    for job in training_jobs(config):
        write(config, "train", job.id, identity="1")
    for job in evaluation_jobs(config):
        write(config, "evaluate", job.id, identity="1")
    render(config)
    assert said(config, capsys)[0] == 0
    content = yaml.safe_load(Path("config.yaml").read_text())
    for name, value in (("models", ["uniseg"]), ("controls", [])):
        changed = content | {"upstream": content["upstream"] | {name: value}}
        Path("config.yaml").write_text(yaml.safe_dump(changed))
        code, lines = said(config, capsys)
        assert "0 waiting, 0 failed, 0 outdated" in lines[0]
        assert (code, lines[-1]) == (1, "report: rendered for another config")
    Path("config.yaml").write_text(yaml.safe_dump(content))
    write(config, "evaluate", UNISEG, identity="2")
    code, lines = said(config, capsys)
    assert (code, lines[-1]) == (1, "report: rendered from former results of jobs")


def test_the_last_line_of_a_log(tmp_path):
    assert last_line(tmp_path / "none.log") == ""
    (tmp_path / "a.log").write_bytes(b"x" * 9000 + b"\nbar\r 10 % \xff\n  \n")
    assert last_line(tmp_path / "a.log").startswith("10 %")


def test_a_missing_file_of_a_result_is_made_anew_and_a_damaged_one_is_left(config, capsys):
    for name in (UNISEG, SPLEEN, PETCT):
        write(config, "train", name)
        weights, record = (PATHS.train(name) / file for file in ("weights.pt", "record.json"))
        weights.write_text("weights")
        record.write_text(record.read_text().replace('"files": {}', '"files": {"weights.pt": [7, "0"]}'))
    assert {states(config)[f"train {name}"] for name in (UNISEG, SPLEEN, PETCT)} == {"done"}
    (PATHS.train(UNISEG) / "weights.pt").unlink()
    (PATHS.train(SPLEEN) / "weights.pt").write_text("weigh")
    (PATHS.train(PETCT) / "record.json").write_text("{")
    code, lines = said(config, capsys)
    assert code == 1
    assert lines[0] == "tiny: 0 jobs done, 0 running, 5 waiting, 0 failed, 1 outdated, 2 damaged"
    text = "\n".join(lines)
    assert f"outdated, made anew by the next run: train {UNISEG}: weights.pt is missing" in text
    assert f"damaged, left as it is by the next run: train {SPLEEN}: {PATHS.train(SPLEEN)}/weights.pt: found 5" in text
    assert f"damaged, left as it is by the next run: train {PETCT}: {PATHS.train(PETCT)}/record.json: found" in text


@pytest.mark.parametrize("text", ["{", "[]", '{"identity": []}', '{"identity": {"parts": {}}, "files": 3}'])
def test_a_damaged_list_of_rendered_files_is_no_report(config, text):
    write_text(PATHS.rendered, text)
    assert run_status(config).report == "not rendered"


def test_the_ledger_has_no_time_where_an_outcome_has_none(config):
    write(config, "train", UNISEG, started="yesterday")
    (row,) = ledger(config)
    assert row["wall_seconds"] == ""
