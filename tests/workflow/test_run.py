"""One case through the whole workflow: complete rows, nothing to do twice, failures as data, kills survived."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

from segbench.core.run_record import read_run_record
from segbench.core.vocabulary import KEY_COLUMNS, SCORE_COLUMNS
from segbench.experiment.config import load_config
from segbench.experiment.jobs import expected_keys
from segbench.experiment.splits import read_splits
from tests.workflow.tiny import CONFIG, ROOT, Workflow

UNISEG = "upstream.uniseg.random.joint.f0.s0"
SPLEEN = "upstream.single_task.random.phantom_spleen.f0.s0"
IMAGES = "images.b2nd"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Workflow:
    """A finished tiny run."""
    workflow = Workflow(tmp_path_factory.mktemp("tiny"))
    result = workflow.run()
    assert result.returncode == 0, result.stdout[-4000:]
    return workflow


def test_the_rows_are_exactly_those_expected(finished):
    table = pd.read_csv(finished.results / "scores.csv", dtype=str, keep_default_na=False)
    assert tuple(table.columns) == SCORE_COLUMNS
    splits = read_splits(finished.results / "splits.json")
    expected = set(expected_keys(load_config(finished.results / "config.json"), splits))
    assert set(map(tuple, table[list(KEY_COLUMNS)].to_numpy())) == expected
    assert len(table) == len(expected)


def test_the_oracle_is_near_one_and_the_empty_control_at_zero(finished):
    table = pd.read_csv(finished.results / "scores.csv")
    dice = table[(table.metric == "dice") & (table.task == "phantom_spleen")].groupby("model").value.mean()
    assert dice["oracle"] > 0.7
    assert dice["empty"] == 0


def test_a_second_run_has_nothing_to_do(finished):
    assert "Nothing to be done" in finished.run().stdout


def test_the_page_says_synthetic_and_needs_no_network(finished):
    page = (finished.results / "report" / "index.html").read_text()
    assert "synthetic" in page.lower()
    assert "<script src=" not in page
    assert "<link" not in page


def test_chosen_cases_of_every_task_are_drawn_and_on_the_page(finished):
    record = read_run_record(finished.results / "run.json")
    assert {(picture.experiment, picture.task) for picture in record.pictures} == {
        (task.experiment, task.name) for task in record.tasks
    }
    report = finished.results / "report"
    assert {path.name for path in (report / "pictures").iterdir()} == {picture.file for picture in record.pictures}
    page = (report / "index.html").read_text()
    assert all(f'href="pictures/{picture.file}"' in page for picture in record.pictures)


def test_a_run_writes_nothing_where_git_keeps_files(finished):
    assert {path.name for path in finished.folder.iterdir()} <= {"config.yaml", "data", "results", ".snakemake"}


def test_the_report_of_snakemake_shows_the_page_tables_and_figures(finished):
    result = finished.run("--report", "snakemake.zip")
    assert result.returncode == 0, result.stdout[-3000:]
    with zipfile.ZipFile(finished.folder / "snakemake.zip") as archive:
        names = {Path(name).name for name in archive.namelist()}
        (page,) = (name for name in archive.namelist() if name.endswith("report.html"))
        text = archive.read(page).decode()
    (finished.folder / "snakemake.zip").unlink()
    assert {"upstream_dice.csv", "upstream_dice_cases.svg"} <= names
    assert "The table" in text
    assert "one file that needs no network" in text


def test_the_report_carries_its_record_without_a_trace_of_the_machine(finished):
    report = finished.results / "report"
    record = (report / "run.json").read_text()
    assert record == (finished.results / "run.json").read_text()
    assert not [path for path in (ROOT, finished.folder, Path.home()) if str(path) in record]
    curves = [job["curve"] for job in json.loads(record)["jobs"] if job["iterations"]]
    assert curves
    assert all(curve["loss"] and len(curve["loss"]) == len(curve["iteration"]) for curve in curves)


def test_the_transfer_is_reported(finished):
    match = finished.outcome("train", "downstream.single_task.uniseg.phantom_schwannoma.f0.s0")["match"]
    assert match["fraction"] > 0.5
    assert match["resized"]
    assert match["source"] == UNISEG
    assert len(match["probe"]) == 4
    assert "Pre-trained weights" in (finished.results / "report" / "index.html").read_text()


def test_a_self_supervised_objective_starts_a_run_and_fills_no_row(finished):
    match = finished.outcome("train", "downstream.single_task.restoration.phantom_schwannoma.f0.s0")["match"]
    assert match["fraction"] > 0.9
    assert not (finished.results / "evaluate" / "upstream.restoration.random.joint.f0.s0").exists()
    record = json.loads((finished.results / "run.json").read_text())
    assert "upstream.restoration.random.joint.f0.s0" in {job["job"] for job in record["jobs"]}
    assert "Self-supervised: Restoration" in (finished.results / "report" / "index.html").read_text()


def test_an_unrelated_change_of_the_config_reruns_no_training(finished):
    changed = Workflow(finished.folder, CONFIG | {"description": "other words"})
    assert "rule train" not in changed.run("-n").stdout
    finished.configure(CONFIG)


def test_a_related_change_reruns_just_its_jobs(finished):
    downstream = CONFIG["downstream"] | {"training": {"iterations_per_task": 4}}
    text = Workflow(finished.folder, CONFIG | {"downstream": downstream}).run("-n").stdout
    finished.configure(CONFIG)
    trained = [line for line in text.splitlines() if line.strip().startswith("output: results/tiny/train/")]
    assert len(trained) == 3
    assert all("downstream" in line for line in trained)


def test_a_failure_is_data_and_only_it_is_retried(finished):
    """The preprocessed cases of one task are damaged while its single-task model must train again."""
    index = json.loads((finished.results / "preprocessed" / "phantom_spleen.json").read_text())
    whole = {
        path: path.read_bytes() for folder in index["cases"].values() for path in [finished.folder / folder / IMAGES]
    }
    for path, content in whole.items():
        path.write_bytes(content[:-1])
    shutil.rmtree(finished.results / "train" / SPLEEN)
    shutil.rmtree(finished.results / "evaluate" / SPLEEN)
    (finished.results / "scores.csv").unlink()
    broken = finished.run()
    assert broken.returncode != 0
    assert SPLEEN in broken.stdout
    assert finished.outcome("train", SPLEEN)["status"] == "failed"
    table = pd.read_csv(finished.results / "scores.csv")
    cell = table[(table.model == "single_task") & (table.scope == "phantom_spleen")]
    assert set(cell.status) == {"failed"}
    assert "a preprocessed case as segbench wrote it" in cell.reason.iloc[0]
    assert "failed" in (finished.results / "report" / "index.html").read_text()
    status = finished.segbench("status", "--config", str(finished.config_path))
    assert status.returncode == 1
    assert SPLEEN in status.stdout
    for path, content in whole.items():
        path.write_bytes(content)
    fixed = finished.run()
    assert fixed.returncode == 0, fixed.stdout[-3000:]
    trained = [line for line in fixed.stdout.splitlines() if line.strip().startswith("output: results/tiny/train/")]
    assert len(trained) == 1
    assert "Nothing to be done" in finished.run().stdout


def long_config() -> dict:
    config = json.loads(json.dumps(CONFIG))
    config["training"] |= {"iterations_per_task": 60}
    config["upstream"] |= {"models": ["uniseg"], "self_supervised": [], "controls": ["empty"]}
    config["downstream"] = {"tasks": ["phantom_schwannoma"], "initialisations": ["uniseg"]}
    return config


def wait_for(condition, seconds: float = 120.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def training_process(workflow: Workflow) -> psutil.Process | None:
    """The living process that trains, if any; a killed one leaves its record behind."""
    try:
        record = json.loads((workflow.results / "state" / "running" / f"train.{UNISEG}.json").read_text())
        return psutil.Process(record["pid"])
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None


def has_state(workflow: Workflow) -> bool:
    return (workflow.results / "state" / "train" / UNISEG / "state.pt").exists()


@pytest.mark.slow
def test_killing_training_or_snakemake_changes_no_byte(tmp_path):
    (tmp_path / "straight").mkdir()
    straight = Workflow(tmp_path / "straight", long_config())
    assert straight.run().returncode == 0

    (tmp_path / "killed").mkdir()
    killed = Workflow(tmp_path / "killed", long_config())
    process = killed.start()
    wait_for(lambda: has_state(killed) and training_process(killed))
    training_process(killed).send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    assert process.returncode != 0

    process = killed.start(start_new_session=True)
    wait_for(lambda: training_process(killed))
    orphan = training_process(killed)
    refused = killed.segbench("recover")
    assert refused.returncode == 1, "a living owner keeps its lock"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert list((killed.folder / ".snakemake" / "locks").iterdir())
    assert killed.segbench("recover").returncode == 0
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert not list((killed.folder / ".snakemake" / "locks").iterdir())
    again = killed.run()
    assert again.returncode == 0, again.stdout[-3000:]
    log = (killed.results / "logs" / "train" / f"{UNISEG}.log").read_text()
    assert "continue at step" in log
    assert killed.scores() == straight.scores()


def test_several_files_of_a_new_run_can_be_asked_for(tmp_path):
    workflow = Workflow(tmp_path)
    jobs = [f"upstream.{model}.none.joint.f0.s0" for model in ("oracle", "empty")]
    done = workflow.run("-n", "--", *(f"results/tiny/evaluate/{job}/outcome.json" for job in jobs))
    assert done.returncode == 0, done.stdout
    assert all(job in done.stdout for job in jobs)


def test_a_file_that_no_job_of_the_config_writes_is_refused_with_status_2(tmp_path):
    workflow = Workflow(tmp_path)
    result = workflow.run("-n", "--", f"results/tiny/train/{UNISEG}1/outcome.json")
    assert result.returncode == 2, result.stdout
    assert f"found the job {UNISEG}1; expected a job of the config; did you mean '{UNISEG}'?" in result.stdout
    assert "Traceback" not in result.stdout


def test_results_that_cannot_be_written_are_refused_with_status_2(tmp_path):
    (tmp_path / "results").write_text("")
    result = Workflow(tmp_path).run("-n")
    assert result.returncode == 2, result.stdout
    assert "expected a path that can be read or written" in result.stdout
    assert "Traceback" not in result.stdout


def test_a_problem_in_the_config_exits_with_status_2_before_the_graph(tmp_path):
    broken = CONFIG | {"trainnig": {}}
    workflow = Workflow(tmp_path, broken)
    result = workflow.run("-n")
    assert result.returncode == 2
    assert "did you mean 'training'?" in result.stdout
    assert "Traceback" not in result.stdout


def test_a_leak_stops_the_run_before_preprocessing(tmp_path):
    """One case is listed on both sides; naming the finding in the config lets the run go on."""
    config = copy.deepcopy(CONFIG)
    config["upstream"] = {"tasks": ["phantom_spleen"], "models": ["single_task"], "controls": []}
    config["data"] |= {"protocol": "listed", "split_files": ["mine.json"]}
    del config["downstream"]
    workflow = Workflow(tmp_path, config)
    folder = tmp_path / config["data"]["root"]
    arguments = ["--out", str(folder), "--seed", "5", "--train", "3", "--test", "2", "--tasks", "phantom_spleen"]
    assert workflow.segbench("phantom", *arguments).returncode == 0
    names = [path.name.removesuffix(".nii.gz") for path in sorted(folder.glob("*/labels*/*.nii.gz"))]
    (folder / "mine.json").write_text(json.dumps({"phantom_spleen": {"train": names[:3], "test": names[2:4]}}))

    result = workflow.run("--until", "preprocess")
    assert result.returncode != 0
    assert f"leak case:phantom_spleen/{names[2]}" in result.stdout
    assert not (workflow.results / "preprocessed").exists()

    config["data"]["accept_leaks"] = [f"case:phantom_spleen/{names[2]}"]
    workflow.configure(config)
    result = workflow.run("--until", "preprocess")
    assert result.returncode == 0, result.stdout[-3000:]
    assert "case:phantom_spleen" in (workflow.results / "audit.csv").read_text()
    assert (workflow.results / "preprocessed").exists()


def test_the_paper_config_says_which_data_are_missing(tmp_path):
    environment = os.environ | {"SEGBENCH_DATA": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-n",
        "--snakefile",
        str(ROOT / "workflow" / "Snakefile"),
        "--directory",
        str(tmp_path),
        "--configfile",
        str(ROOT / "config" / "paper.yaml"),
    ]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    text = result.stdout + result.stderr
    assert result.returncode == 0, text[-2000:]
    paper = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())
    for task in paper["upstream"]["tasks"] + paper["downstream"]["tasks"]:
        assert f"{task}: " in text
        assert "found no folder" in text
    command.remove("-n")
    refused = subprocess.run([*command, "--cores", "1"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert refused.returncode == 2, refused.stderr[-2000:]
    assert "Traceback" not in refused.stderr
    assert not list((tmp_path / ".snakemake").glob("locks/*"))
    assert "train" in text


def test_the_workflow_is_clean(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "snakemake", "--lint", "--snakefile", str(ROOT / "workflow" / "Snakefile")]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "good condition" in result.stdout + result.stderr, (result.stdout + result.stderr)[-2000:]
    assert Path(ROOT / "workflow" / "Snakefile").read_text().count("\n") < 70
