"""run.json: one model for writer and readers; another version, a truncated or an edited file is refused."""

from __future__ import annotations

import json

import pytest

from segbench.cli import main
from segbench.core.errors import InputError
from segbench.core.run_record import FORMAT, MOST_PROBLEMS, RunRecord, read_run_record, write_run_record
from tests.unit.reporting.synthetic_run import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("record") / "toy", seeds=(0,), cases=2, upstream=2, methods=3)


@pytest.fixture
def content(folder):
    return json.loads((folder / "run.json").read_text())


def problems(tmp_path, content) -> str:
    path = tmp_path / "run.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_run_record(path)
    assert all(str(path) in problem.where and problem.fix for problem in caught.value.problems)
    return str(caught.value)


def test_a_record_is_read_as_it_was_written_to_the_byte(folder, tmp_path):
    record = read_run_record(folder / "run.json")
    write_run_record(tmp_path / "run.json", record)
    assert (tmp_path / "run.json").read_bytes() == (folder / "run.json").read_bytes()
    assert (record.format, record.identities, record.statistics.decision_rule) == (FORMAT, {}, "mean")


def test_identities_belong_to_jobs_of_the_run(content, tmp_path):
    job = content["jobs"][0]["job"]
    assert RunRecord.model_validate_json(json.dumps(content | {"identities": {job: "ab12"}})).identities == {
        job: "ab12"
    }
    assert "identities of jobs of this run; nothing is none" in problems(
        tmp_path, content | {"identities": {"nothing": "ab12"}}
    )


@pytest.mark.parametrize("version", [1, FORMAT + 1, "2", True, None])
def test_another_version_is_named(content, tmp_path, version):
    text = problems(tmp_path, content | {"format": version})
    assert f"found {version}; expected format {FORMAT}" in text


def test_a_record_before_versions_is_refused_once(content, tmp_path):
    del content["format"], content["jobs"]
    text = problems(tmp_path, content)
    assert "no format version" in text
    assert "\n" not in text


def test_a_truncated_file_is_refused(folder, tmp_path):
    text = (folder / "run.json").read_text()
    assert "not JSON" in problems(tmp_path, text[: len(text) // 2])
    assert "a list" in problems(tmp_path, "[]")


def test_a_folder_without_a_record_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_run_record(tmp_path / "run.json")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: c.pop("tasks"), "tasks: found no such key; expected the key tasks"),
        (lambda c: c | {"color": "red"}, "color: found 'red'; expected no key color"),
        (lambda c: c["jobs"][1].__setitem__("seed", "0"), "jobs.1.seed: found '0'; expected a valid integer"),
        (
            lambda c: c["jobs"][0].__setitem__("status", "fine"),
            "jobs.0.status: found 'fine'; expected 'ok' or 'failed'",
        ),
        (lambda c: c["jobs"][0].pop("curve"), "jobs.0.curve: found no such key"),
        (lambda c: c["jobs"][0].__setitem__("model", "ghost"), "upstream/ghost/random/equal is not"),
        (lambda c: c["methods"].append(c["methods"][0]), "each method once; there twice: upstream/uniseg/random"),
        (lambda c: c["methods"][0].__setitem__("url", "javascript:alert(1)"), "methods.0.url"),
        (lambda c: c.__setitem__("scores_sha256", "abc"), "scores_sha256: found 'abc'"),
        (lambda c: c["jobs"][0]["curve"]["loss"].pop(), "as many losses as iterations (100), not 99"),
    ],
)
def test_an_edited_record_is_refused_with_key_found_and_expected(content, tmp_path, edit, words):
    changed = edit(content)
    text = problems(tmp_path, changed if isinstance(changed, dict) and "run" in changed else content)
    assert words in text


def test_numbers_that_are_none_are_refused(content, tmp_path):
    content["wall_seconds"] = float("nan")  # json writes NaN, which is no number of JSON
    assert "wall_seconds: found nan; expected a finite number" in problems(tmp_path, content)


def test_many_problems_are_cut(content, tmp_path):
    for task in content["tasks"]:
        for key in list(task):
            task[key] = []
    lines = problems(tmp_path, content).splitlines()
    assert len(lines) == MOST_PROBLEMS + 1
    assert "more problems" in lines[-1]


def test_commands_leave_with_status_2(content, folder, tmp_path, capsys):
    (tmp_path / "scores.csv").write_bytes((folder / "scores.csv").read_bytes())
    (tmp_path / "run.json").write_text(json.dumps(content | {"format": 1}))
    assert main(["verify", str(tmp_path)]) == 2
    assert main(["report", "--results", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count(f"expected format {FORMAT}") == 2
    assert not (tmp_path / "out").exists()


def test_a_leak_of_two_folds_is_one(content):
    (finding,) = content["audit"]["findings"]
    twice = [finding, finding | {"fold": "1", "train_cases": "c8", "test_cases": "c7"}]
    record = RunRecord.model_validate_json(json.dumps(content | {"audit": content["audit"] | {"findings": twice}}))
    assert record.audit.names() == {finding["name"]}


def test_a_folder_of_compare_has_no_record(tmp_path):
    (tmp_path / "cells.csv").write_text("model\n")
    with pytest.raises(InputError, match=r"`segbench compare` wrote, which has no run record.*compare` again"):
        read_run_record(tmp_path / "run.json")
