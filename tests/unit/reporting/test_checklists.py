"""Checklist drafts: every item is there, blanks are marked, and no text of a run becomes markup."""

from __future__ import annotations

import json
import re

import pytest

from segbench.cli import main
from segbench.core.run_record import Attempt, read_run_record
from segbench.reporting.checklists import BLANK, checklists
from tests.paths import ROOT
from tests.unit.reporting.synthetic_run import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), seeds=(0,), cases=2, upstream=2, methods=2, curves=False)


def lines(text: str, title: str) -> dict[str, str]:
    """Return item -> text of one draft."""
    part = text.partition(f"## {title}")[2].partition("\n## ")[0]
    return dict(re.findall(r"^- \*\*(.+?): (.+)$", part, re.MULTILINE))


def test_all_items_are_there_and_what_no_record_holds_is_blank(folder):
    text = checklists(read_run_record(folder / "run.json"))
    claim = lines(text, "CLAIM (2020)")
    assert [item.partition("**")[0] for item in claim] == [str(number) for number in range(1, 43)]
    assert len(lines(text, "MICCAI reproducibility checklist")) == 28
    by_number = {item.partition("**")[0]: content for item, content in claim.items()}
    for number in ("1", "4", "14", "34", "38", "42"):
        assert by_number[number] == BLANK
    filled = len(re.findall(r"^- ", text, re.MULTILINE)) - text.count(f": {BLANK}\n")
    assert f"{filled} of 70 items" in text


def test_the_texts_are_those_of_the_record(folder):
    record = read_run_record(folder / "run.json")
    claim = lines(checklists(record), "CLAIM (2020)")
    task = record.tasks[0]
    assert f"{task.n_train} training, {task.n_test} test" in next(
        text for item, text in claim.items() if item[:2] == "20"
    )
    assert f"torch {record.provenance.versions['torch']}" in next(
        text for item, text in claim.items() if item[:2] == "23"
    )
    trained = sum(job.iterations > 0 for job in record.jobs)
    assert f"{trained} trainings with 1 seed(s)" in next(text for item, text in claim.items() if item[:2] == "25")


def test_devices_and_versions_are_those_that_trained(folder):
    record = read_run_record(folder / "run.json")
    attempt = Attempt(first_step=0, device="NVIDIA H200", mode="fast", precision="bfloat16", threads=1, torch="2.11.0")

    def items(attempts):
        jobs = tuple(
            job.model_copy(update={"attempts": attempts} if job.iterations else {"device": "none"})
            for job in record.jobs
        )
        found = lines(checklists(record.model_copy(update={"jobs": jobs})), "MICCAI reproducibility checklist")
        asked = ("Computing infrastructure", "Software framework")
        return [next(text for name, text in found.items() if title in name) for title in asked]

    infrastructure, software = items((attempt,))
    assert "Trained on: NVIDIA H200 (bfloat16, mode fast, PyTorch 2.11.0). " in infrastructure
    assert "Trained with PyTorch: 2.11.0. " in software
    infrastructure, software = items(())
    assert "Trained on: cpu. " in infrastructure
    assert "Trained with PyTorch: not recorded. " in software


def test_the_partitions_say_whether_training_cases_chose_a_learning_rate(folder, tmp_path):
    record = json.loads((folder / "run.json").read_text())
    for part in ("methods", "self_supervised", "jobs", "skipped"):
        for item in record[part]:
            item["recipe"] = item["recipe"].replace("equal", "tuned")
    (tmp_path / "run.json").write_text(json.dumps(record))
    words = "A part of the training cases chooses the learning rate of tuned models"
    assert words in checklists(read_run_record(tmp_path / "run.json"))
    assert words not in checklists(read_run_record(folder / "run.json"))


def test_held_out_training_cases_are_counted_as_validation(folder):
    record = read_run_record(folder / "run.json")
    tasks = tuple(task.model_copy(update={"n_validation": 3}) for task in record.tasks)
    claim = lines(checklists(record.model_copy(update={"tasks": tasks})), "CLAIM (2020)")
    split = next(text for item, text in claim.items() if item[:2] == "20")
    assert f"{tasks[0].n_train} training, 3 validation, {tasks[0].n_test} test" in split
    assert "No validation cases choose a model." in split


def test_names_of_a_run_are_no_markup(folder, tmp_path):
    record = json.loads((folder / "run.json").read_text())
    for task in record["tasks"]:
        task["title"] = "<script>alert(1)</script>\n# head [a](http://b) `c`"
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert main(["checklist", str(tmp_path), "--out", str(tmp_path / "drafts.md")]) == 0
    text = (tmp_path / "drafts.md").read_text()
    assert "<script" not in text
    assert r"\# head \[a\](http://b) \`c\`" in text
    assert len(re.findall(r"^#", text, re.MULTILINE)) == 3


def test_a_folder_without_a_record_is_refused(tmp_path, capsys):
    assert main(["checklist", str(tmp_path), "--out", str(tmp_path / "drafts.md")]) == 2
    assert "run.json" in capsys.readouterr().err
    assert not (tmp_path / "drafts.md").exists()


def test_the_committed_record_gives_drafts(tmp_path):
    assert main(["checklist", str(ROOT / "reports" / "demo"), "--out", str(tmp_path / "drafts.md")]) == 0
    assert "Synthetic volumes; no patients." in (tmp_path / "drafts.md").read_text()
