"""Bundles: the same bytes twice, verified without images, and ten kinds of tampering found."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from segbench.cli import main
from segbench.core.errors import InputError
from segbench.core.paths import MADE_FROM
from segbench.core.provenance import content_hash
from segbench.core.vocabulary import SCORE_COLUMNS
from segbench.reporting.bundle import MANIFEST, differences, write_bundle
from tests.paths import ROOT
from tests.unit.reporting.finished_run import write_finished_run


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with results/toy as the workflow leaves it."""
    root = tmp_path_factory.mktemp("bundle")
    write_finished_run(root, "toy")
    return root


@pytest.fixture(scope="module")
def bundle(world) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        write_bundle("toy", world / "toy.zip")
    return world / "toy.zip"


def test_the_commands_pack_and_verify_the_same_bytes_without_torch(world, bundle):
    code = (
        "import sys; from segbench.cli import main;"
        "assert main(['bundle', 'toy', '--out', 'again.zip']) == 0 == main(['verify', 'again.zip']);"
        "sys.exit(10 * ('torch' in sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], cwd=world, env=environment, check=False).returncode == 0
    assert (world / "again.zip").read_bytes() == bundle.read_bytes()


@pytest.mark.slow
def test_pseudonyms_leave_no_id_and_still_agree(world, monkeypatch):
    monkeypatch.chdir(world)
    write_bundle("toy", world / "hidden.zip", pseudonymise=True)
    assert differences(world / "hidden.zip") == []
    with open(world / "results/toy/scores.csv", newline="", encoding="utf-8") as stream:
        ids = {row[name] for row in csv.DictReader(stream) for name in ("case", "patient")}
    with zipfile.ZipFile(world / "hidden.zip") as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert not [item for item in ids if item.encode() in content], name


def copied(folder: Path, out: Path) -> None:
    """Stand in for the rendered report by what it is made from, which is fast."""
    out.mkdir(parents=True)
    for name in MADE_FROM:
        shutil.copy(folder / name, out / name)


def hidden(folder: Path, monkeypatch) -> dict[str, bytes]:
    """Return the files of the bundle with pseudonyms of results/RUN, without tables and figures."""
    monkeypatch.chdir(folder.parents[1])
    monkeypatch.setattr("segbench.reporting.bundle.render", copied)
    write_bundle(folder.name, Path("hidden.zip"), pseudonymise=True)
    return contents(Path("hidden.zip"))


def edited(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_pseudonyms_number_the_patients_of_all_folds(tmp_path, monkeypatch):
    """Sites that ran other folds would otherwise give two patients one number, and a joined report would merge them."""
    folder = write_finished_run(tmp_path, "toy")
    rows = list(csv.DictReader(io.StringIO(hidden(folder, monkeypatch)["report/scores.csv"].decode())))
    with open(folder / "manifest" / "toy_liver.csv", newline="", encoding="utf-8") as stream:
        trained = [row["case_id"] for row in csv.DictReader(stream) if row["case_id"].startswith("other_case")]
    patients = {row["patient"] for row in rows}
    last = max(int(patient.removeprefix("patient_")) for patient in patients)
    assert len(patients) < last <= len(patients) + len(trained)
    (folder / "manifest" / "toy_liver.csv").unlink()
    with pytest.raises(InputError, match=r"toy_liver\.csv"):
        write_bundle("toy", Path("again.zip"), pseudonymise=True)


def test_pseudonyms_leave_no_id_in_the_config_and_none_in_findings(tmp_path, monkeypatch):
    folder = write_finished_run(tmp_path, "toy")
    case, name = "toy_liver_000", "patient:n/7"
    config = json.loads((folder / "config.json").read_text())
    config["data"]["accept_leaks"] = [name]
    config["downstream"] = {"initialisations": [{"name": "released", "trained_on": {"toy_liver": [case]}}]}
    (folder / "config.json").write_text(json.dumps(config))
    splits = json.loads((folder / "splits.json").read_text())
    splits["folds"]["0"]["toy_liver"]["train"][0] = "7"
    (folder / "splits.json").write_bytes(with_checksum(splits))
    manifest = folder / "manifest" / "toy_liver.csv"
    manifest.write_text(manifest.read_text().replace("toy_liver,other_case,other_case,", "toy_liver,7,7,"))
    finding = {"name": name, "train_cases": "7 other_case_1", "evidence": "patient 7", "kind": "same patient"}
    edited(folder / "run.json", lambda record: record["audit"]["findings"][0].update(finding))
    edited(folder / "run.json", lambda record: record.update(config_sha256=content_hash(config)))
    files = hidden(folder, monkeypatch)
    assert case.encode() not in files["config.json"]
    own = json.loads(files["config.json"])
    record = json.loads(files["report/run.json"])
    assert record["config_sha256"] == content_hash(own)
    (found,) = record["audit"]["findings"]
    assert [found["name"]] == own["data"]["accept_leaks"]
    for text in (found["name"], found["train_cases"], found["evidence"]):
        assert re.fullmatch(r"(patient:n/|patient )?(case_\d{5} ?)+", text), text
    assert list(csv.DictReader(io.StringIO(files["audit.csv"].decode()))) == record["audit"]["findings"]


def contents(bundle: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, files: dict[str, bytes], *, relist: bool = True) -> Path:
    """Write a zip of files; with `relist` the manifest names them with their new checksums, as a forger would."""
    if relist:
        manifest = json.loads(files[MANIFEST])
        manifest["files"] = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in files.items()
            if name != MANIFEST
        }
        files = files | {MANIFEST: json.dumps(manifest).encode()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def replaced(name: str, old: bytes, new: bytes):
    def change(files: dict[str, bytes]) -> dict[str, bytes]:
        assert old in files[name]
        return files | {name: files[name].replace(old, new, 1)}

    return change


def without_a_row(files: dict[str, bytes]) -> dict[str, bytes]:
    lines = files["report/scores.csv"].splitlines(keepends=True)
    return files | {"report/scores.csv": b"".join(lines[:-1])}


def with_checksum(splits: dict) -> bytes:
    rest = {key: value for key, value in splits.items() if key != "sha256"}
    return json.dumps(rest | {"sha256": content_hash(rest)}).encode()


def other_split(files: dict[str, bytes]) -> dict[str, bytes]:
    splits = json.loads(files["splits.json"])
    next(iter(splits["folds"]["0"].values()))["test"].append("one_more")
    return files | {"splits.json": with_checksum(splits)}


def with_sides(change):
    """Return a tampering that changes the training cases of every task, with a new checksum of the splits."""

    def changed(files: dict[str, bytes]) -> dict[str, bytes]:
        splits = json.loads(files["splits.json"])
        for sides in splits["folds"]["0"].values():
            sides["train"] = change(sides)
        return files | {"splits.json": with_checksum(splits)}

    return changed


def found_in(path) -> list[str]:
    """Return what `verify` finds in a bundle, refusals included."""
    try:
        return differences(path)
    except InputError as error:
        return [problem.line() for problem in error.problems]


TAMPERING = {
    "a row is gone": without_a_row,
    "a file is gone": lambda files: {name: content for name, content in files.items() if name != "report/index.html"},
    "a file is added": lambda files: files | {"report/tables/extra.csv": b"1"},
    "the page is edited": replaced("report/index.html", b"</title>", b"!</title>"),
    "a table is edited": replaced("report/tables/upstream_dice.csv", b"0", b"1"),
    "the config is edited": replaced("config.json", b"toy", b"joy"),
    "the split is edited": replaced("splits.json", b"other_case", b"another"),
    "the split is another": other_split,
    "the record is edited": replaced("report/run.json", b"seeded", b"edited"),
    "the audit is edited": lambda files: files | {"audit.csv": files["audit.csv"] + b"1,2\n"},
    "the run is renamed": replaced(MANIFEST, b'"run": "toy"', b'"run": "joy"'),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_is_found_even_when_checksums_are_forged(bundle, tmp_path, kind):
    assert found_in(packed(tmp_path / "changed.zip", TAMPERING[kind](contents(bundle))))


BESIDE_THE_REPORT = {
    "the findings have other columns": lambda files: files | {"audit.csv": b"a,b\n"},
    "the findings are no text": lambda files: files | {"audit.csv": b"\xff"},
    "a training case is gone": with_sides(lambda sides: sides["train"][:-1]),
    "a test case was trained on": with_sides(lambda sides: [*sides["train"][1:], sides["test"][0]]),
    "a file of no bundle is listed": lambda files: files | {"more.txt": b"1"},
    "the environment is gone": lambda files: {name: text for name, text in files.items() if name != "lock.txt"},
    "a file stands where a folder is": lambda files: {"report/tables": b"1"} | files,
}


@pytest.mark.parametrize("kind", BESIDE_THE_REPORT)
def test_tampering_beside_the_report_is_found(bundle, tmp_path, kind, monkeypatch):
    monkeypatch.setattr("segbench.reporting.bundle.differing_files", lambda report: [])
    assert differences(packed(tmp_path / "same.zip", contents(bundle))) == []
    assert found_in(packed(tmp_path / "changed.zip", BESIDE_THE_REPORT[kind](contents(bundle))))


def of_record(change):
    """Return a tampering with run.json after which the report is rendered again."""

    def changed(files: dict[str, bytes]) -> dict[str, bytes]:
        record = json.loads(files["report/run.json"])
        change(record)
        return files | {"report/run.json": json.dumps(record).encode()}

    return changed


def of_config(change):
    """Return a tampering with the config whose hash run.json states then."""

    def changed(files: dict[str, bytes]) -> dict[str, bytes]:
        config = json.loads(files["config.json"])
        change(config)
        files = of_record(lambda record: record.update(config_sha256=content_hash(config)))(files)
        return files | {"config.json": json.dumps(config).encode()}

    return changed


OTHER_THAN_ASKED = {
    "asks for the seeds [0, 1], scores.csv has [0]": of_config(lambda config: config.update(seeds=[0, 1])),
    "asks for upstream/hermes": of_config(lambda config: config["upstream"]["models"].append({"name": "hermes"})),
    "another handling of missing masks in dice": of_record(
        lambda record: record["missing_masks"]["dice"].update(prediction_empty="exclude")
    ),
    "another statistics.decision_rule": of_record(lambda record: record.update(statistics={"decision_rule": "ranks"})),
    "another training.iterations_per_task": of_config(
        lambda config: config["training"].update(iterations_per_task=100_000)
    ),
    "cases of toy_liver, fold 0, twice or on both sides": with_sides(lambda sides: [*sides["train"][1:]] * 2),
}


@pytest.mark.parametrize("words", OTHER_THAN_ASKED)
def test_a_report_of_other_settings_than_its_config_is_found(bundle, tmp_path, words, monkeypatch):
    monkeypatch.setattr("segbench.reporting.bundle.differing_files", lambda report: [])
    found = differences(packed(tmp_path / "changed.zip", OTHER_THAN_ASKED[words](contents(bundle))))
    assert any(words in line for line in found), found


NESTED = b"[" * 200_000


@pytest.mark.parametrize("name", ["config.json", "splits.json", "report/run.json", MANIFEST])
def test_json_nested_without_end_is_refused_under_the_name_of_the_bundle(bundle, tmp_path, name, monkeypatch):
    monkeypatch.setattr("segbench.reporting.bundle.differing_files", lambda report: [])
    path = packed(tmp_path / "changed.zip", contents(bundle) | {name: NESTED}, relist=name != MANIFEST)
    assert refused(path).startswith(f"{path}: {name}: found ")


def test_sides_are_lists_of_names_and_sections_are_mappings(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("segbench.reporting.bundle.differing_files", lambda report: [])
    path = packed(tmp_path / "a.zip", with_sides(lambda sides: [["nested"]])(contents(bundle)))
    assert "a side is a list of names" in refused(path)
    path = packed(tmp_path / "b.zip", of_config(lambda config: config.update(upstream="no"))(contents(bundle)))
    assert f"{path}: config.json: found another form" in refused(path)


def test_an_edited_score_is_found(bundle, tmp_path):
    files = contents(bundle)
    lines = files["report/scores.csv"].decode().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if ",ok," in line)
    cells = lines[at].split(",")
    cells[SCORE_COLUMNS.index("value")] = "0.123"
    lines[at] = ",".join(cells)
    changed = packed(tmp_path / "changed.zip", files | {"report/scores.csv": "".join(lines).encode()})
    with pytest.raises(InputError, match="SHA-256"):
        differences(changed)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        differences(path)
    return str(caught.value)


def test_bad_files_are_refused_before_anything_is_unpacked(bundle, tmp_path):
    files = contents(bundle)
    assert "another SHA-256" in refused(
        packed(tmp_path / "a.zip", files | {"lock.txt": b" " * len(files["lock.txt"])}, relist=False)
    )
    assert "not listed" in refused(packed(tmp_path / "b.zip", files | {"more.txt": b"1"}, relist=False))
    for name in ("../outside.txt", "/etc/outside", "a/../../outside", "C:\\outside"):
        assert "inside the folder" in refused(packed(tmp_path / "c.zip", files | {name: b"1"}))
    newer = json.loads(files[MANIFEST]) | {"format": 2}
    assert "newer segbench" in refused(
        packed(tmp_path / "d.zip", files | {MANIFEST: json.dumps(newer).encode()}, relist=False)
    )
    (tmp_path / "e.zip").write_bytes(bundle.read_bytes()[:5000])
    assert "whole" in refused(tmp_path / "e.zip")
    (tmp_path / "f.zip").write_text("no zip")
    assert "whole" in refused(tmp_path / "f.zip")
    with zipfile.ZipFile(tmp_path / "g.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", b"0" * 600_000_000)
    assert "500 MB" in refused(tmp_path / "g.zip")
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "h.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "link" in refused(tmp_path / "h.zip")
    assert not (tmp_path.parent / "outside.txt").exists()


def test_a_run_that_is_not_finished_is_refused(world, monkeypatch):
    monkeypatch.chdir(world)
    assert main(["bundle", "absent", "--out", "absent.zip"]) == 2
    assert not Path("absent.zip").exists()


def test_a_run_whose_config_was_edited_since_its_scores_were_gathered_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_finished_run(tmp_path, "toy")
    config = Path("results/toy/config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"description": "other"}))
    assert main(["bundle", "toy", "--out", "toy.zip"]) == 2
    assert "config.json: found another config; expected that of results/toy/run.json" in capsys.readouterr().err
    assert not Path("toy.zip").exists()
