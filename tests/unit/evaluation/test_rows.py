"""Rows are complete or the run fails; a missing row is never a smaller n."""

import pytest
import yaml

from segbench.core.errors import RunFailed
from segbench.core.vocabulary import KEY_COLUMNS
from segbench.evaluation.rows import check_complete, read_rows, unscored_rows, write_rows
from segbench.experiment.config import parse_config
from segbench.experiment.context import JobContext
from segbench.experiment.jobs import evaluation_jobs, expected_keys
from tests.paths import ROOT
from tests.unit.written_run import splits_of


@pytest.fixture
def config():
    content = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    content["upstream"] |= {"tasks": ["phantom_spleen"], "models": ["uniseg"], "controls": ["empty"]}
    del content["downstream"]
    return parse_config(content, where="test")


SPLITS = splits_of({"0": {"phantom_spleen": {"train": ["a"], "test": ["b", "c"]}}})


def all_rows(config):
    return [
        row
        for job in evaluation_jobs(config)
        for task in job.tasks(config)
        for case in ("b", "c")
        for row in unscored_rows(
            JobContext(config, job), task=task, case=case, patient=case, status="failed", reason="out of\nmemory"
        )
    ]


def test_the_expected_rows_pass_and_survive_the_file(config, tmp_path):
    rows = all_rows(config)
    assert len(rows) == 3 * 2 * 1 * 3  # methods (the oracle is added), cases, structures, metrics
    check_complete(config, SPLITS, rows)
    write_rows(tmp_path / "scores.csv", rows)
    again = read_rows(tmp_path / "scores.csv")
    check_complete(config, SPLITS, again)
    assert {row["reason"] for row in again} == {"out of memory"}


def test_the_order_of_rows_changes_no_byte(config, tmp_path):
    rows = all_rows(config)
    write_rows(tmp_path / "a.csv", rows)
    write_rows(tmp_path / "b.csv", rows[::-1])
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize("corrupt", [lambda rows: rows[1:], lambda rows: [*rows, rows[0]]])
def test_a_missing_or_repeated_row_fails_the_run(config, corrupt):
    with pytest.raises(RunFailed, match="rows"):
        check_complete(config, SPLITS, corrupt(all_rows(config)))


def test_an_unexpected_row_fails_the_run(config):
    rows = all_rows(config)
    rows.append(rows[0] | {"case": "z"})
    with pytest.raises(RunFailed, match="1 unexpected"):
        check_complete(config, SPLITS, rows)


def test_expected_keys_name_every_column(config):
    assert all(len(key) == len(KEY_COLUMNS) for key in expected_keys(config, SPLITS))
