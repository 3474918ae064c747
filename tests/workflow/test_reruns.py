"""No edit trains, predicts or scores what would come out the same, and none leaves anything stale."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.paths import ROOT
from tests.workflow import reruns

TEXTS = (".json", ".csv", ".html", ".md", ".svg", ".tsv", ".tex")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A finished run that every edit starts from."""
    return reruns.build(tmp_path_factory.mktemp("reruns"))


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(edit, id=edit.title.replace(" ", "-"), marks=() if edit.quick else (pytest.mark.slow,))
        for edit in reruns.EDITS
    ],
)
def test_an_edit_costs_what_it_changes(edit, base, tmp_path):
    place = reruns.copied(base, tmp_path / "run")
    edit.make(place)
    done = reruns.measured(place)
    assert done.trained == edit.trained
    assert (done.predicted > 0, done.scored > 0, done.rendered) == (edit.predicted, edit.scored, edit.rendered)


@pytest.mark.slow
def test_results_that_are_copied_elsewhere_continue_verify_and_report_the_same(base, tmp_path):
    """Only results, reports, volumes and store are copied, as from another machine; one job is not finished there."""
    place = reruns.copied(base, tmp_path / "an other folder")
    shutil.rmtree(place.folder / ".snakemake")
    for command in ("train", "evaluate"):
        shutil.rmtree(place.results / command / reruns.SPLEEN)
    (place.results / "scores.csv").unlink()
    done = reruns.measured(place)
    assert done.trained == {reruns.SPLEEN}
    assert done.rendered
    first, again = base / "results" / "reruns" / "scores.csv", place.results / "scores.csv"
    assert again.read_bytes() == first.read_bytes()
    report = place.results / "report"
    former = base / "results" / "reruns" / "report"
    for name in (
        "upstream_dice.csv",
        "downstream_dice.csv",
    ):  # other tables hold times, which a second training changes
        assert (former / "tables" / name).read_bytes() == (report / "tables" / name).read_bytes()
    command = [sys.executable, "-m", "segbench", "verify", str(report)]
    verified = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert reruns.measured(place) == reruns.Done(frozenset(), 0, 0, rendered=False)
    artefacts = [
        path
        for path in (*place.results.rglob("*"), *report.rglob("*"), *(place.folder / "data").rglob("*"))
        if path.suffix in TEXTS and "logs" not in path.parts
    ]
    assert len(artefacts) > 50
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in artefacts}
    assert not [path for path, text in texts.items() if str(base) in text or str(tmp_path) in text]
