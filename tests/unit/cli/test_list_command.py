"""The command `list datasets`: present, partial with counts, absent with the step, one state per data set."""

from pathlib import Path

import pytest

from segbench.cli import list_command, main
from segbench.core import cards
from tests.paths import SHARED
from tests.unit.data.miniature import write_tree

REAL = SHARED / "realdata"
CARDS = cards.dataset_cards()


def rows(root: Path | None, config: Path | None = None) -> dict[str, list[str]]:
    """Data set -> (title, state, licence, step)."""
    head, *found = list_command._dataset_rows(config, root)
    assert head == ["data set", "title", "state", "licence", "step to get it"]
    return {name: rest for name, *rest in found}


def test_states_and_steps(tmp_path, monkeypatch, capsys):
    known = CARDS | {"btcv": CARDS["btcv"] | {"expected_cases": {"total": 2}}}
    monkeypatch.setattr(cards, "dataset_cards", lambda: known)
    for name, cases in (("btcv", 2), ("kits19", 1), ("lits", 2)):
        write_tree(tmp_path, name, CARDS[name], cases=cases)
    next((tmp_path / "LiTS").rglob("volume-1.nii")).unlink()
    (tmp_path / "VerSe20").mkdir()
    found = rows(tmp_path)
    assert found["btcv"][1:] == ["present (2 cases)", CARDS["btcv"]["licence"], ""]
    assert found["kits19"][1] == "partial (1 of 210 cases)"
    assert found["lits"][1] == "partial (1 of 131 cases)", "a case counts when image and label are there"
    assert found["verse20"][1] == "partial (0 of 214 cases)"
    assert found["brats21"][1] == "absent"
    assert all(row[3] == CARDS[name]["obtain"] for name, row in found.items() if name != "btcv")
    assert main(["list", "datasets", "--data-root", str(tmp_path)]) == 0
    assert "partial (1 of 210 cases)" in capsys.readouterr().out


def test_without_a_folder_to_look_in_nothing_is_called_absent(monkeypatch):
    monkeypatch.delenv("SEGBENCH_DATA", raising=False)
    assert {row[1] for row in rows(None).values()} == {"not looked for: name --data-root"}


def test_a_config_lists_its_own_data_sets_below_its_own_root(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path))
    found = rows(None, Path("config/paper.yaml"))
    assert set(found) < set(CARDS)
    assert {row[1] for row in found.values()} == {"absent"}


@pytest.mark.skipif(not REAL.is_dir(), reason="the real volumes are not on this machine")
def test_the_ten_real_tasks_are_present():
    present = {name for name, row in rows(REAL).items() if row[1].startswith("present")}
    assert len(present) == 10
    assert {CARDS[name]["folder"] for name in present} == {path.name for path in REAL.iterdir() if path.is_dir()}
