"""Messages name no machine."""

from pathlib import Path

from segbench.core.provenance import ROOT, portable


def test_folders_of_the_machine_are_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = f"no {tmp_path}/data/a.nii.gz, {tmp_path}/results/x, {ROOT}/models/m.py line 3"
    assert portable(text, tmp_path / "data") == "no <data>/a.nii.gz, <run>/results/x, <code>/models/m.py line 3"
    assert portable(text, Path("data")) == "no <data>/a.nii.gz, <run>/results/x, <code>/models/m.py line 3"
