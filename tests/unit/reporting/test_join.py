"""Bundles of several sites become one that verifies, or each disagreement is named and nothing is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from segbench.cli import main
from segbench.core.files import sha256_of
from segbench.core.provenance import content_hash
from segbench.core.run_record import read_run_record
from segbench.core.vocabulary import KEY_COLUMNS
from segbench.reporting.bundle import Checked, Manifest, checked, differences, write_bundle
from segbench.reporting.join import Site, disagreements, join_bundles
from tests.unit.reporting.finished_run import write_finished_run

RUNS = {"first": {"seed": 0}, "second": {"seed": 1}, "other": {"seed": 0, "rng_seed": 8}}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Results of three runs of one experiment: two seeds, and the first seed with other values."""
    root = tmp_path_factory.mktemp("join")
    for run, options in RUNS.items():
        write_finished_run(root, run, **options)
    return root


@pytest.fixture(scope="module")
def bundles(world) -> dict[str, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        for run in RUNS:
            write_bundle(run, world / f"{run}.zip")
    return {run: world / f"{run}.zip" for run in RUNS}


def site(world: Path, run: str, folder: Path, change=None) -> Site:
    """Return a site as if its bundle were unpacked, with a change of one of its files."""
    report = folder / run / "report"
    shutil.copytree(world / "results" / run, report)
    for name in ("config.json", "splits.json", "audit.csv"):
        (report / name).rename(report.parent / name)
    if change is not None:
        change(report)
    config = json.loads((report.parent / "config.json").read_text())
    manifest = Manifest(format=1, segbench="0", run=run, pseudonymised=False, files={})
    return Site(Path(f"{run}.zip"), Checked(report.parent, manifest, (config,), ()))


def of_record(change):
    return lambda report: edit(report / "run.json", change)


def of_config(change):
    return lambda report: edit(report.parent / "config.json", change)


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def other_split(report: Path) -> None:
    path = report.parent / "splits.json"
    splits = json.loads(path.read_text())
    splits["folds"]["0"]["toy_liver"]["train"] = ["a_different_case"]
    splits["sha256"] = content_hash({key: value for key, value in splits.items() if key != "sha256"})
    path.write_text(json.dumps(splits))


def other_value(report: Path) -> None:
    """Give the second run a row of the first one, with another value."""
    own, first = (pd.read_csv(folder / "scores.csv", dtype=str, keep_default_na=False) for folder in (report, FIRST))
    row = first[first["status"] == "ok"].head(1).assign(value="0.5")
    pd.concat([own, row]).to_csv(report / "scores.csv", index=False, lineterminator="\n")


def other_text(column: str, text: str):
    """Return a change of a column of the first test case of a task, for every method."""

    def change(report: Path) -> None:
        own = pd.read_csv(report / "scores.csv", dtype=str, keep_default_na=False)
        first = own[own["task"] == "toy_liver"].iloc[0]
        same = ["experiment", "task"] + ([] if column == "dataset" else ["case", "structure"])
        chosen = (own[same] == first[same]).all(axis=1) & (own[column] != "")
        assert chosen.any()
        own.loc[chosen, column] = text
        own.to_csv(report / "scores.csv", index=False, lineterminator="\n")

    return change


def with_weights(digit: str):
    """Return a change after which the scratch jobs of a record started from a file of that SHA-256."""
    nothing = {"matched": [], "resized": [], "missing": [], "unused": []}
    match = nothing | {"source": "released.pt", "format": "segbench", "sha256": digit * 64, "fraction": 1.0}

    def change(record: dict) -> None:
        for job in record["jobs"]:
            if (job["experiment"], job["initialisation"]) == ("downstream", "scratch"):
                job["match"] = match

    return of_record(change)


def test_one_initialisation_from_two_files_is_a_disagreement(world, tmp_path):
    sites = [site(world, run, tmp_path, with_weights(digit)) for run, digit in (("first", "a"), ("second", "b"))]
    (found,) = disagreements(sites)
    assert found.startswith("file of downstream/single_task/scratch: ")


FIRST = Path("results/first")
TOLERANCE = "structures of the task upstream/toy_liver"
DISAGREEMENTS = {
    "split of toy_liver, fold 0": other_split,
    "protocol": of_record(lambda record: record.update(protocol="kfold")),
    TOLERANCE: of_record(lambda record: record["tasks"][0]["structures"][0].update(tolerance_mm=3.0)),
    "what prediction_empty counts as in dice": of_record(
        lambda record: record["missing_masks"]["dice"].update(prediction_empty="exclude")
    ),
    "training code": of_record(lambda record: record["jobs"][0].update(training_code="f" * 16)),
    "code of uniseg": of_record(lambda record: record["jobs"][0].update(model_code="e" * 16)),
    "recipe_text of upstream/uniseg/random/equal": of_record(
        lambda record: record["methods"][0].update(recipe_text="adamw")
    ),
    "config training.iterations_per_task": of_config(lambda config: config["training"].update(iterations_per_task=200)),
    "config upstream.models uniseg (equal recipe)": of_config(
        lambda config: config["upstream"]["models"][0].update(options={"prompts": 1})
    ),
    "dataset of upstream/toy_liver": other_text("dataset", "another"),
    "diagonal_mm of upstream/toy_liver/": other_text("diagonal_mm", "12.5"),
    "patient of upstream/toy_liver/": other_text("patient", "another"),
    "reference_volume_mm3 of upstream/toy_liver/": other_text("reference_volume_mm3", "12.5"),
    "row downstream/": other_value,
}


def test_sites_that_differ_in_seeds_agree(world, tmp_path):
    assert list(disagreements([site(world, run, tmp_path) for run in ("first", "second")])) == []


def test_a_model_that_one_site_alone_has_is_no_disagreement(world, tmp_path):
    more = of_config(lambda config: config["upstream"]["models"].append({"name": "hermes", "recipe": "equal"}))
    assert list(disagreements([site(world, "first", tmp_path), site(world, "second", tmp_path, more)])) == []


@pytest.mark.parametrize("column", ["diagonal_mm", "reference_volume_mm3"])
@pytest.mark.parametrize(("digits", "agree"), [(".9g", True), (".7g", True), (".3g", False)])
def test_numbers_of_a_case_may_differ_by_rounding(world, tmp_path, column, digits, agree):
    """123.456789 at one site; at the other with so many digits, in the rows of one method."""

    def change(text: str):
        def changed(report: Path) -> None:
            own = pd.read_csv(report / "scores.csv", dtype=str, keep_default_na=False)
            chosen = (own["task"] == "toy_liver") & (own[column] != "")
            own.loc[chosen, column] = "123.456789"
            own.loc[chosen & (own["model"] == own.loc[chosen, "model"].iloc[0]), column] = text
            own.to_csv(report / "scores.csv", index=False, lineterminator="\n")

        return changed

    texts = {"first": "123.456789", "second": f"{123.456789:{digits}}"}
    found = list(disagreements([site(world, run, tmp_path, change(text)) for run, text in texts.items()]))
    assert all(line.startswith(f"{column} of upstream/toy_liver/") for line in found)
    assert (found == []) is agree


@pytest.mark.parametrize("fact", DISAGREEMENTS)
def test_each_disagreement_is_named_with_both_values(world, tmp_path, monkeypatch, fact):
    monkeypatch.chdir(world)
    sites = [site(world, "first", tmp_path), site(world, "second", tmp_path, DISAGREEMENTS[fact])]
    found = list(disagreements(sites))
    assert len(found) == 1
    assert found[0].startswith(fact)
    assert "first.zip has " in found[0]
    assert "; second.zip has " in found[0]
    values = [part.partition(" has ")[2] for part in found[0].split("; ")]
    assert values[0] != values[1]


def rows(bundle: Path) -> pd.DataFrame:
    with checked(bundle) as found:
        return pd.read_csv(found.report / "scores.csv", dtype=str, keep_default_na=False)


@pytest.mark.slow
def test_two_seeds_join_to_a_bundle_that_verifies_and_joins_again(world, bundles, tmp_path, capsys):
    out = tmp_path / "joined.zip"
    assert main(["bundle", "both", "--join", str(bundles["first"]), str(bundles["second"]), "--out", str(out)]) == 0
    assert main(["verify", str(out)]) == 0
    joined, first, second = rows(out), rows(bundles["first"]), rows(bundles["second"])
    expected = pd.concat([first, second]).sort_values(list(KEY_COLUMNS)).reset_index(drop=True)
    pd.testing.assert_frame_equal(joined, expected)
    with checked(out) as found:
        record = read_run_record(found.report / "run.json")
        assert [config["run"] for config in found.configs] == ["first", "second"]
        assert "report/index.html" in found.manifest.files
    parts = [read_run_record(world / "results" / run / "run.json") for run in ("first", "second")]
    assert record.run == "both"
    assert {job.job for job in record.jobs} == {job.job for part in parts for job in part.jobs}
    assert record.wall_seconds == sum(part.wall_seconds for part in parts)
    assert record.audit == parts[0].audit
    assert any("Joined from 2 bundles: first (commit 0123456789ab), second" in notice for notice in record.notices)
    again = tmp_path / "again.zip"
    assert join_bundles([bundles["second"], out], again) == []
    pd.testing.assert_frame_equal(rows(again), expected)


@pytest.mark.slow
def test_rows_of_other_values_are_listed_and_nothing_is_written(bundles, tmp_path, capsys):
    out = tmp_path / "joined.zip"
    assert main(["bundle", "--join", str(bundles["first"]), str(bundles["other"]), "--out", str(out)]) == 1
    found = capsys.readouterr()
    lines = found.out.splitlines()
    assert lines
    assert all(line.startswith("row ") and "first.zip has " in line and "other.zip has " in line for line in lines)
    assert "of which 50 are listed; nothing is written" in found.err
    assert not out.exists()


@pytest.mark.slow
def test_a_bundle_that_does_not_verify_and_a_single_one_are_refused(bundles, tmp_path, capsys):
    out, first = tmp_path / "joined.zip", str(bundles["first"])
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(bundles["second"].read_bytes()[:4000])
    assert main(["bundle", "--join", first, str(damaged), "--out", str(out)]) == 2
    assert main(["bundle", "--join", first, first, "--out", str(out)]) == 2
    assert main(["bundle", "--out", str(out)]) == 2
    assert not out.exists()


@pytest.mark.slow
def test_a_copy_of_the_same_bundle_adds_nothing(world, bundles, tmp_path):
    copy = tmp_path / "copy.zip"
    shutil.copy(bundles["first"], copy)
    assert join_bundles([bundles["first"], copy], tmp_path / "joined.zip") == []
    pd.testing.assert_frame_equal(rows(tmp_path / "joined.zip"), rows(bundles["first"]))
    assert differences(tmp_path / "joined.zip") == []


@pytest.mark.slow
def test_the_same_bundles_give_the_same_bytes_in_another_folder(bundles, tmp_path):
    for name in ("one.zip", "two.zip"):
        assert join_bundles([bundles["first"], bundles["second"]], tmp_path / name) == []
    assert sha256_of(tmp_path / "one.zip") == sha256_of(tmp_path / "two.zip")
