"""Publishing: a verified report is copied whole; a stale, edited or extended one is refused and nothing is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from segbench.cli import main
from segbench.reporting.page import render
from segbench.reporting.verify import differing_files
from tests.unit.reporting.synthetic_run import write_run

REPORT, PUBLISHED = Path("results/toy/report"), Path("reports/toy")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with results/toy and its report as the workflow leaves them."""
    root = tmp_path_factory.mktemp("publish")
    folder = write_run(root / "results" / "toy", seeds=(0,), cases=3, upstream=2, methods=2, curves=False)
    render(folder, root / REPORT)
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_verified_report_is_copied_and_replaces_the_former_one(world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    PUBLISHED.mkdir(parents=True)
    (PUBLISHED / "old.csv").write_text("of the former report")
    assert main(["publish", "toy"]) == 0
    assert capsys.readouterr().out == "reports/toy/index.html\n"
    assert contents(PUBLISHED) == contents(REPORT)
    assert [path.name for path in Path("reports").iterdir()] == ["toy"]


CHANGES = {
    "the page is edited": ("report/index.html", b"<p>more</p>", 1, "index.html differs"),
    "a picture is added": ("report/pictures/case.png", b"image", 1, "pictures/case.png is not rebuilt"),
    "the scores are newer": ("scores.csv", b"\n", 2, "results/toy/report/scores.csv: found other content"),
    "the page is gone": ("report/index.html", None, 2, "found no file"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_cannot_be_verified_is_refused(world, monkeypatch, capsys, kind):
    name, added, status, message = CHANGES[kind]
    monkeypatch.chdir(world)
    before = contents(Path("reports")) if Path("reports").exists() else {}
    path = Path("results/toy") / name
    former = path.read_bytes() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    if added is None:
        path.unlink()
    else:
        path.write_bytes((former or b"") + added)
    try:
        assert main(["publish", "toy"]) == status
        assert message in capsys.readouterr().err
        assert (contents(Path("reports")) if Path("reports").exists() else {}) == before
    finally:
        if former is None:
            path.unlink()
            path.parent.rmdir()
        else:
            path.write_bytes(former)


@pytest.mark.parametrize("target", ["elsewhere", "nothing"])
def test_a_link_in_a_report_is_a_file_added(tmp_path, monkeypatch, target):
    (tmp_path / "elsewhere").mkdir()
    report = tmp_path / "report"
    report.mkdir()
    (report / "more").symlink_to(tmp_path / target)
    monkeypatch.setattr("segbench.reporting.verify.render", lambda source, out: out.mkdir())
    assert differing_files(report) == ["more is not rebuilt"]


def test_a_run_that_does_not_exist_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["publish", "absent"]) == 2
    assert "results/absent/scores.csv: found no file" in capsys.readouterr().err


def test_a_report_of_the_former_config_is_not_published(world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    config = Path("results/toy/config.json")
    config.write_text('{"run": "toy"}')
    try:
        assert main(["publish", "toy"]) == 2
    finally:
        config.unlink()
    expected = "results/toy/config.json: found another config; expected that of results/toy/run.json; run the workflow"
    assert expected in capsys.readouterr().err


def test_the_copy_of_a_report_that_is_read_only_can_be_replaced(world, monkeypatch):
    monkeypatch.chdir(world)
    files = [REPORT, *REPORT.rglob("*")]
    modes = [path.stat().st_mode for path in files]
    try:
        for path in files:
            path.chmod(path.stat().st_mode & ~0o222)
        assert main(["publish", "toy"]) == 0
    finally:
        for path, mode in zip(files, modes, strict=True):
            path.chmod(mode)
    assert all(path.stat().st_mode & 0o200 for path in [PUBLISHED, *PUBLISHED.rglob("*")])
