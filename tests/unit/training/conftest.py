"""Fixtures of the tests of training."""

import pytest

from tests.unit.training.small_run import write_data


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with preprocessed cases."""
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
