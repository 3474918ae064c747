"""External models: masks are checked one by one, commands end with all that they started."""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
import yaml

from segbench.cli import recover
from segbench.core.case import Case, read_manifest, write_manifest
from segbench.core.errors import InputError, RunFailed
from segbench.core.files import sha256_of, write_json
from segbench.core.paths import RunPaths
from segbench.evaluation.evaluate import evaluate
from segbench.evaluation.external_commands import find_masks, run_command, train, write_job_file
from segbench.experiment.config import parse_config
from segbench.experiment.context import JobContext
from segbench.experiment.identity import evaluation_settings_identity, training_settings_identity
from segbench.experiment.jobs import external_jobs
from segbench.experiment.ownership import OWNER_VARIABLE, OWNERS
from tests.paths import ROOT
from tests.unit.written_run import splits_content

TASK = "phantom_spleen"
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
SHAPE = (6, 7, 8)
MASKS = {"predictions": "masks/{task}"}


def content(**entry) -> dict:
    found = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    external = [{"name": "elsewhere", "title": "Elsewhere"} | entry]
    found["upstream"] |= {"tasks": [TASK], "models": ["uniseg"], "controls": ["empty"], "external": external}
    found["metrics"] = ["dice"]
    del found["downstream"]
    return found


def parsed(**entry) -> JobContext:
    config = parse_config(content(**entry), where="test")
    return JobContext(config, external_jobs(config)[0])


def write_map(path: Path, labels_XYZ: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels_XYZ.astype(np.uint8), affine), path)
    return path


def block(shape=SHAPE) -> np.ndarray:
    labels_XYZ = np.zeros(shape, np.uint8)
    labels_XYZ[1:4, 1:4, 1:4] = 1
    return labels_XYZ


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Three cases, a to train and b and c to test, in the folder of the run."""
    monkeypatch.chdir(tmp_path)
    cases = []
    for name in "abc":
        label = write_map(tmp_path / "labels" / f"{name}.nii.gz", block())
        image = write_map(tmp_path / "images" / f"{name}.nii.gz", 100 * block())
        hashes = sha256_of(image), sha256_of(label)
        cases.append(Case(TASK, name, name, (str(image),), str(label), *hashes, SHAPE, (2.0, 2.0, 3.0), "RAS"))
    paths = RunPaths(parsed(**MASKS).config.run)
    write_manifest(paths.manifest(TASK), cases)
    write_json(paths.splits, splits_content({"0": {TASK: {"train": ["a"], "test": ["b", "c"]}}}))
    return paths


def give(name: str, labels_XYZ: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> Path:
    return write_map(Path("masks") / TASK / f"{name}.nii.gz", block() if labels_XYZ is None else labels_XYZ, affine)


def scored(run, job) -> dict[str, dict]:
    lines = (run.evaluate(job.id) / "scores.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=False)) for line in lines[1:]]
    return {row["case"]: row for row in rows}


def test_masks_are_scored_and_a_missing_one_is_a_row(run):
    give("b")
    context = parsed(**MASKS)
    outcome = evaluate(context)
    rows = scored(run, context.job)
    assert (rows["b"]["status"], float(rows["b"]["value"])) == ("ok", 1.0)
    assert (rows["c"]["status"], rows["c"]["value"]) == ("prediction_missing", "")
    assert outcome["masks_missing"] == 1
    assert list(outcome["masks"][TASK]) == ["b"]
    assert outcome["predictions"] == MASKS["predictions"]


@pytest.mark.parametrize(
    ("labels_XYZ", "affine", "text"),
    [
        (block((6, 7, 9)), AFFINE, "shape"),
        (block(), AFFINE + np.array([[0, 0, 0, 1.0]] + [[0.0] * 4] * 3), "affine that differs"),
        (block(), np.diag([-2.0, 2.0, 3.0, 1.0]), "orientation"),
        (block() * 7, AFFINE, "labels [7]"),
    ],
)
def test_a_mask_on_another_grid_or_with_other_values_fails_its_case(run, labels_XYZ, affine, text):
    give("b", labels_XYZ, affine)
    give("c")
    context = parsed(**MASKS)
    outcome = evaluate(context)
    rows = scored(run, context.job)
    assert outcome["status"] == "failed"
    assert text in outcome["reason"]
    assert (rows["b"]["status"], rows["c"]["status"]) == ("failed", "ok")


def test_a_rounding_of_the_affine_is_no_problem(run):
    give("b", affine=AFFINE + 1e-5)
    give("c")
    assert "status" not in evaluate(parsed(**MASKS))


def test_a_mask_of_a_training_case_and_a_folder_that_is_not_there_are_refused(run):
    with pytest.raises(InputError, match="no such folder"):
        find_masks(parsed(**MASKS))
    give("a")
    with pytest.raises(InputError, match="a mask of no test case"):
        find_masks(parsed(**MASKS))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("c.npz", "a format that is not read"),
        ("sub/c.nii.gz", "in a folder of its own"),
        ("c/segmentation.nii.gz", "in a folder of its own"),
    ],
)
def test_a_mask_in_a_form_that_is_not_read_is_no_missing_one(run, name, words):
    give("b")
    path = Path("masks") / TASK / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mask")
    with pytest.raises(InputError, match=words):
        find_masks(parsed(**MASKS))


def test_a_link_to_nothing_and_a_folder_under_the_name_of_a_mask_are_named(run):
    give("b")
    path = Path("masks") / TASK / "c.nii.gz"
    path.symlink_to("nowhere.nii.gz")
    with pytest.raises(InputError, match=r"c\.nii\.gz: found a link to nothing"):
        find_masks(parsed(**MASKS))
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"c\.nii\.gz: found no regular file"):
        find_masks(parsed(**MASKS))


@pytest.mark.parametrize("command", ["true", "cp labels/b.nii.gz labels/c.nii.gz {output}"])
def test_a_command_that_leaves_no_mask_where_masks_go_has_failed(run, command):
    context = parsed(predict=command)
    outcome = evaluate(context)
    assert outcome["status"] == "failed"
    assert "no mask of any test case" in outcome["reason"]
    assert scored(run, context.job)["b"]["status"] == "failed"


def test_the_mend_of_another_value_is_none_of_another_command(run):
    give("b", block() * 255)
    give("c")
    reason = evaluate(parsed(**MASKS))["reason"]
    assert "found labels [255]; expected one of [0, 1]; write the class values of the task" in reason


def test_other_masks_have_another_hash(run):
    give("b")
    first = find_masks(parsed(**MASKS))
    give("b", np.zeros(SHAPE))
    second = find_masks(parsed(**MASKS))
    assert first.digest != second.digest
    assert first.sha256[TASK]["b"] != second.sha256[TASK]["b"]


def test_the_job_file_holds_no_label_of_a_test_case(run):
    path = write_job_file(parsed(predict="true"))
    (task,) = json.loads(path.read_text())["tasks"]
    assert [case["case"] for case in task["training"]] == ["a"]
    assert all(set(case) == {"case", "patient", "images"} for case in task["test"])
    assert "labels/b" not in path.read_text()


def test_a_copy_in_class_values_is_written_by_every_job_file(run):
    """The copy of an earlier label, or one that was cut off when its process was killed, is not handed out."""
    context = parsed(predict="true")
    context.config.dataset_cards[TASK] = context.config.dataset_cards[TASK] | {"merge": {2: 1}}

    def handed_out() -> Path:
        (task,) = json.loads(write_job_file(context).read_text())["tasks"]
        return Path(task["training"][0]["label"])

    path = handed_out()
    assert path.is_relative_to(RunPaths(context.config.run).external(context.job.id).resolve())
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    assert handed_out().read_bytes() == whole


TOLD = {"prompts": {TASK: {"spleen": "A spleen."}}, "support_cases": 1}


def test_the_job_file_holds_the_prompts_and_the_support_cases_that_were_asked_for(run):
    (plain,), (task,) = (
        json.loads(write_job_file(parsed(predict="true", **told)).read_text())["tasks"] for told in ({}, TOLD)
    )
    assert not {"prompts", "support"} & set(plain)
    assert task == plain | {"prompts": {"1": "A spleen."}, "support": ["a"]}


def test_support_cases_are_drawn_by_seed_among_cases_with_every_class_annotated(run):
    cases = [read_manifest(run.manifest(TASK))[0]] * 9
    cases = [replace(case, case_id=f"t{number}", patient_id=f"t{number}") for number, case in enumerate(cases)]
    cases[3], cases[4] = replace(cases[3], annotated=(1,)), replace(cases[4], annotated=(2,))
    train = [case.case_id for case in cases]
    write_manifest(run.manifest(TASK), [*cases, *read_manifest(run.manifest(TASK))])
    write_json(run.splits, splits_content({"0": {TASK: {"train": train, "test": ["b"]}}}))

    def support(count: int, seed: int) -> list[str]:
        config = parse_config(content(predict="true", support_cases=count) | {"seeds": [0, 1]}, where="test")
        context = JobContext(config, next(job for job in external_jobs(config) if job.seed == seed))
        return json.loads(write_job_file(context).read_text())["tasks"][0]["support"]

    assert support(8, 0) != support(8, 1)
    assert set(support(8, 0)) == set(support(8, 1)) == set(train) - {"t4"}
    assert support(3, 0) == support(8, 0)[:3]
    with pytest.raises(InputError, match=r"support_cases: found 9, and 8 training cases of phantom_spleen"):
        support(9, 0)


def test_a_command_is_recorded_and_its_failure_names_log_and_status(run):
    context = parsed(train="echo ready", predict="echo no memory; exit 9")
    assert train(context)["shell"] == "echo ready"
    assert (run.external(context.job.id) / "train.log").read_text() == "ready\n"
    with pytest.raises(RunFailed, match=r"predict\.log: the command exited with status 9: no memory"):
        find_masks(context)


def test_the_reason_of_a_failure_is_short_text_without_the_folders_of_the_machine(run):
    context = parsed(predict="head -c 1000000 /dev/zero | tr '\\0' a; printf 'b\\0c\\001d'; exit 4")
    reason = evaluate(context)["reason"]
    assert reason.startswith("<run>/results/")
    assert reason.endswith("ab c d")
    assert len(reason) < 3000
    assert {row["reason"] for row in scored(run, context.job).values()} == {reason}


STUBBORN = "(trap '' TERM; echo $BASHPID > {work}/pid; while true; do sleep 0.1; done) & wait"


def wait_for_pid(path: Path) -> psutil.Process:
    for _ in range(100):
        if path.exists() and path.read_text().strip():
            return psutil.Process(int(path.read_text()))
        time.sleep(0.1)
    raise AssertionError("the command did not start")


def wait_for(path: Path) -> None:
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"no {path}")


def is_gone(number: int) -> bool:
    for _ in range(100):
        try:
            if psutil.Process(number).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


def test_the_limit_ends_children_that_ignore_the_signal(run):
    context = parsed(predict=STUBBORN, limit_minutes=0.02)
    job = context.job
    run.external(job.id).mkdir(parents=True)
    with pytest.raises(RunFailed, match=r"longer than 0\.02 minutes"):
        run_command(context, "predict")
    assert is_gone(int((run.external(job.id) / "pid").read_text()))
    assert not list((run.root / "state" / "running").glob("*.json"))


@pytest.fixture
def outside(run):
    """A process of the harness that waits for a command, and a process that the command started.

    The workflow that started both is dead.
    """
    context = parsed(predict=STUBBORN)
    work = run.external(context.job.id)
    work.mkdir(parents=True)
    Path("config.json").write_text(json.dumps(context.config.model_dump(mode="json")))
    code = (
        "from pathlib import Path; from segbench.experiment.context import JobContext;"
        "from segbench.evaluation.external_commands import run_command;"
        f"run_command(JobContext.of(Path('config.json'), {context.job.id!r}), 'predict')"
    )
    dead = {"host": platform.node(), "pid": 2**22 + 1, "created": 0.0, "about": context.config.run, "owner": None}
    write_json(OWNERS / "dead.json", dead)
    environment = os.environ | {"PYTHONPATH": str(ROOT), OWNER_VARIABLE: "dead"}
    harness = subprocess.Popen([sys.executable, "-c", code], env=environment)
    child = wait_for_pid(work / "pid")
    wait_for(context.paths.running / f"command.predict.{context.job.id}.json")
    yield harness, child
    for process in (harness, child):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    harness.wait()


def test_a_job_that_is_told_to_end_ends_its_command(outside):
    harness, child = outside
    harness.terminate()
    assert harness.wait(20) == 128 + signal.SIGTERM
    assert is_gone(child.pid)


def test_recover_ends_the_command_of_a_job_that_was_killed(outside):
    harness, child = outside
    harness.kill()
    harness.wait()
    assert child.is_running()
    assert recover.run(argparse.Namespace(config=None)) == 0
    assert is_gone(child.pid)


def changed(change) -> list[bool]:
    """Tell whether a change of the config asks for training and for scoring anew."""
    base, other = (content(train="train", predict="predict") for _ in range(2))
    change(other, other["upstream"]["external"][0])
    configs = [parse_config(item, where="test") for item in (base, other)]
    return [
        len({identity(config, external_jobs(config)[0]).digest for config in configs}) == 2
        for identity in (training_settings_identity, evaluation_settings_identity)
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda config, entry: entry.update(title="Another", citation="Somebody", limit_minutes=3), [False, False]),
        (lambda config, entry: config["training"].update(iterations_per_task=7), [False, False]),
        (lambda config, entry: entry.update(predict="other"), [False, True]),
        (lambda config, entry: entry.update(train="other"), [True, True]),
        (lambda config, entry: entry.update(environment={"SIZE": "2"}), [True, True]),
        (lambda config, entry: entry.update(prompts=TOLD["prompts"]), [True, True]),
        (lambda config, entry: entry.update(support_cases=1), [True, True]),
        (lambda config, entry: config["data"].update(split_seed=99), [False, False]),  # it acts by the cases alone
    ],
)
def test_only_what_matters_asks_for_training_anew(change, expected):
    assert changed(change) == expected
