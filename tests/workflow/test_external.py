"""External models take part: their commands run, their masks are checked, what is missing is counted."""

import copy
import csv
import json
import shlex

import numpy as np
import psutil
import pytest
import yaml

from tests.paths import ROOT
from tests.workflow.tiny import CONFIG, Workflow

COMMAND = """
import json, sys
from pathlib import Path

import nibabel as nib
import numpy as np

command, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
work, (task,) = Path(job["work"]), job["tasks"]


def load(path):
    return np.asarray(nib.load(path).dataobj)


if command == "train":
    inside = [load(case["images"][0])[load(case["label"]) > 0].mean() for case in task["training"]]
    (work / "model.json").write_text(json.dumps(float(np.mean(inside))))
elif command == "predict":
    level = json.loads((work / "model.json").read_text())
    assert all("label" not in case for case in task["test"])
    for case in task["test"][1:]:
        image = nib.load(case["images"][0])
        mask = (np.abs(load(case["images"][0]) - level) < 15).astype(np.uint8)
        nib.save(nib.Nifti1Image(mask, image.affine), Path(job["output"]) / task["name"] / (case["case"] + ".nii.gz"))
"""
HANGS = "3017"
"""Seconds that a command sleeps which is to be ended."""
TRAIN, PREDICT = (f"python external.py {command} {{job}}" for command in ("train", "predict"))


def config(*external: dict) -> dict:
    content = copy.deepcopy(CONFIG)
    content["upstream"] = {
        "tasks": ["phantom_spleen"],
        "models": [],
        "controls": ["oracle"],
        "external": list(external),
    }
    del content["downstream"]
    return content


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with a command, with its masks given again, with a command that fails and one that hangs."""
    workflow = Workflow(
        tmp_path_factory.mktemp("external"),
        config(
            {"name": "elsewhere", "title": "Elsewhere", "train": TRAIN, "predict": PREDICT},
            {"name": "broken", "title": "Broken", "train": "echo so it goes; exit 3", "predict": PREDICT},
            {"name": "slow", "title": "Slow", "predict": f"sleep {HANGS} & sleep {HANGS}", "limit_minutes": 0.02},
        ),
    )
    (workflow.folder / "external.py").write_text(COMMAND)
    return workflow, workflow.run()


def rows(workflow, model: str) -> list[dict]:
    with open(workflow.results / "scores.csv", newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["model"] == model]


def test_commands_train_and_predict_and_a_missing_mask_is_a_row(finished):
    workflow, result = finished
    assert "Traceback" not in result.stdout
    found = rows(workflow, "elsewhere")
    assert {row["status"] for row in found} == {"ok", "prediction_missing"}
    assert {row["case"] for row in found} == {row["case"] for row in rows(workflow, "oracle")}
    assert max(float(row["value"]) for row in found if row["metric"] == "dice" and row["value"]) > 0.05
    outcome = workflow.outcome("evaluate", "upstream.elsewhere.none.phantom_spleen.f0.s0")
    assert outcome["masks_missing"] == 1
    assert "Elsewhere" in (workflow.results / "report" / "index.html").read_text()


def test_a_command_that_fails_is_a_failed_cell_with_its_last_lines(finished):
    workflow, result = finished
    assert result.returncode != 0
    assert {row["status"] for row in rows(workflow, "broken")} == {"failed"}
    assert "status 3: so it goes" in workflow.outcome("train", "upstream.broken.none.phantom_spleen.f0.s0")["reason"]


def test_a_command_that_hangs_is_ended_with_its_children(finished):
    workflow, _ = finished
    assert {row["status"] for row in rows(workflow, "slow")} == {"failed"}
    assert "longer than 0.02 minutes" in rows(workflow, "slow")[0]["reason"]
    assert not [process for process in psutil.process_iter(["cmdline"]) if HANGS in (process.info["cmdline"] or [])]


@pytest.mark.slow
def test_given_masks_score_the_same_and_stray_ones_are_refused(finished):
    workflow, _ = finished
    masks = workflow.results / "external" / "upstream.elsewhere.none.phantom_spleen.f0.s0" / "output"
    again = {"name": "again", "title": "Again", "predictions": str(masks / "{task}")}
    workflow.configure(config({"name": "elsewhere", "title": "Elsewhere", "train": TRAIN, "predict": PREDICT}, again))
    assert workflow.run().returncode == 0
    values = [[row["value"] for row in rows(workflow, name)] for name in ("elsewhere", "again")]
    assert values[0] == values[1]

    stray = masks / "phantom_spleen" / "nobody.nii.gz"
    stray.write_bytes(b"")
    result = workflow.run()
    stray.unlink()
    assert result.returncode != 0
    assert "a mask of no test case" in rows(workflow, "again")[0]["reason"]


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({}, "both or neither"),
        ({"predictions": "a/{task}", "predict": "x"}, "both or neither"),
        ({"predictions": "a/{taks}"}, "did you mean 'task'?"),
        ({"predict": "run {jbo}"}, "did you mean 'job'?"),
        ({"predict": "run {"}, "fields in braces"),
        ({"predictions": "a", "train": "x"}, "a command beside predictions"),
        ({"predict": "x", "tasks": ["phantom_liver"]}, "phantom_liver"),
        ({"predict": "x", "name": "oracle-2"}, "letters, digits and underscores"),
    ],
)
def test_problems_of_an_entry_are_printed_before_the_graph(tmp_path, entry, text):
    workflow = Workflow(tmp_path, config({"name": "elsewhere", "title": "Elsewhere"} | entry))
    result = workflow.run("-n")
    assert result.returncode == 2
    assert text in result.stdout
    assert "Traceback" not in result.stdout


def test_the_stand_ins_of_the_documentation_read_prompts_and_support_cases(tmp_path):
    content = yaml.safe_load((ROOT / "config" / "stand_ins.yaml").read_text())
    content["upstream"] |= {"tasks": ["phantom_spleen"], "controls": ["empty"]}
    content["data"]["phantom"]["train_cases"] = 6
    del content["upstream"]["external"][0]["prompts"]["phantom_kidney"]
    script = "docs/examples/stand_ins.py"
    for entry in content["upstream"]["external"]:
        entry["predict"] = entry["predict"].replace(script, shlex.quote(str(ROOT / script)))
    workflow = Workflow(tmp_path, content)
    result = workflow.run()
    assert result.returncode == 0, result.stdout
    for name in ("text_stand_in", "context_stand_in"):
        found = rows(workflow, name)
        assert {row["status"] for row in found} == {"ok"}
        assert np.mean([float(row["value"]) for row in found if row["metric"] == "dice"]) > 0.05  # `empty` has 0
    outcome = workflow.outcome("evaluate", "upstream.context_stand_in.none.phantom_spleen.f0.s0")
    assert outcome["support_cases"] == 3
    methods = json.loads((workflow.results / "run.json").read_text())["methods"]
    assert {"its own command, told by texts", "its own command, 3 support cases per task"} <= {
        method["options_text"] for method in methods
    }
