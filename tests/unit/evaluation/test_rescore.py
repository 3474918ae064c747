"""`verify --rescore` and `--retrain`: a finished run gives its rows again, and what was changed is named."""

import json
import shutil
from pathlib import Path

import pytest

from segbench.cli import main
from segbench.core.errors import InputError
from segbench.core.files import sha256_of, write_json, write_text
from segbench.core.paths import RunPaths
from segbench.core.vocabulary import SCORE_COLUMNS
from segbench.evaluation.rescore import AXIS, KEPT, PREDICTED, drawn_cases, rescored, row_differences
from segbench.evaluation.retrain import Retraining, named_job
from segbench.evaluation.rows import read_rows, write_rows
from segbench.experiment.config import load_config
from segbench.experiment.identity import Identity
from tests.unit import written_run as small
from tests.unit.written_run import SINGLE, SPLEEN

CONFIG = small.config(
    upstream={"tasks": [SPLEEN], "models": ["single_task"], "controls": ["oracle", "threshold"]}, downstream=None
)
PATHS = RunPaths(CONFIG.run)
FINDINGS = "name,kind,relation,fold,train_task,train_cases,test_task,test_cases,evidence,accepted\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with a finished run of one network and two controls, and its report."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small.write_run(CONFIG)
        write_json(PATHS.config, CONFIG.model_dump(mode="json"))
        write_text(PATHS.audit, FINDINGS)
        for command, job in (("train", SINGLE), ("evaluate", SINGLE)):
            assert main([command, "--config", str(PATHS.config), "--job", job]) == 0
        for control in ("oracle", "threshold"):
            job = f"upstream.{control}.none.joint.f0.s0"
            assert main(["evaluate", "--config", str(PATHS.config), "--job", job]) == 0
        assert main(["gather", "--config", str(PATHS.config)]) == 0
        assert main(["report", "--results", str(PATHS.root), "--out", str(PATHS.report)]) == 0
    return folder


@pytest.fixture
def here(finished, tmp_path, monkeypatch) -> Path:
    """A copy of the finished run as the working directory."""
    folder = tmp_path / "here"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


def verify(*options: str) -> int:
    return main(["verify", str(PATHS.report), *options])


def drawn(number: int = 100, **options):
    return drawn_cases(load_config(PATHS.config), read_rows(PATHS.scores), number, **options)


def on_cpu() -> str:
    return "cpu"


def test_every_case_of_a_run_is_scored_again_to_equal_rows(here, capsys):
    assert verify("--rescore", "100") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("predicted again from the weights" in line and "rows equal (exact)" in line for line in lines) == 2
    assert sum("predicted again by the control" in line for line in lines) == 4
    assert lines[-1] == f"scored again: 6 cases, draw 0 of the random axis '{AXIS}'; 0 differ"


def test_cases_are_drawn_by_a_named_axis(here):
    draws = {draw: [item.name for item in drawn(2, draw=draw)] for draw in range(8)}
    assert all(len(set(names)) == 2 for names in draws.values())
    assert draws == {draw: [item.name for item in drawn(2, draw=draw)] for draw in range(8)}
    assert len({tuple(names) for names in draws.values()}) > 1


def forge_a_value(model: str) -> None:
    """Write another Dice of one model into the results and render the report anew, as a forger would."""
    rows = read_rows(PATHS.scores)
    forged = next(row for row in rows if row["model"] == model and row["status"] == "ok")
    forged["value"] = "0.000123456789"
    write_rows(PATHS.scores, rows)
    record = json.loads(PATHS.run_record.read_text())
    write_json(PATHS.run_record, record | {"scores_sha256": sha256_of(PATHS.scores)})
    assert main(["report", "--results", str(PATHS.root), "--out", str(PATHS.report)]) == 0
    assert verify() == 0, "the report follows from the forged table"


def test_a_forged_score_is_found(here, capsys):
    forge_a_value("threshold")
    assert verify("--rescore", "100") == 1
    found = capsys.readouterr()
    assert found.out.count("in scores.csv 0.000123456789") == 1
    assert "1 of 6 cases have other scores than the table" in found.err


def test_kept_label_maps_are_read_where_the_weights_are_absent_and_said_so(here):
    (PATHS.train(SINGLE) / "weights.pt").unlink()
    found = [item for item in rescored(drawn(), on_cpu) if item.drawn.context.job.id == SINGLE]
    assert [item.how for item in found] == [KEPT, KEPT]
    assert not any(item.differences for item in found)


def test_a_kept_label_map_is_not_used_for_weights_that_are_there(here):
    shutil.rmtree(PATHS.root / "predictions")
    found = [item for item in rescored(drawn(), on_cpu) if item.drawn.context.job.id == SINGLE]
    assert [item.how for item in found] == [PREDICTED, PREDICTED]


def test_other_threads_allow_rounding_and_are_named(here):
    outcome = PATHS.train(SINGLE) / "outcome.json"
    content = json.loads(outcome.read_text())
    content["attempts"][-1]["threads"] = 64
    write_json(outcome, content)
    found = {item.drawn.context.job.id: item.other for item in rescored(drawn(), on_cpu)}
    assert found.pop(SINGLE) == "threads"
    assert set(found.values()) == {""}


def test_all_that_is_absent_is_named_before_anything_is_predicted(here, capsys):
    shutil.rmtree(PATHS.root / "predictions")
    (PATHS.train(SINGLE) / "weights.pt").unlink()
    label = Path(small.CONTENT["data"]["root"]) / SPLEEN / "labels" / "c.nii.gz"
    label.unlink()
    assert verify("--rescore", "100") == 2
    found = capsys.readouterr()
    assert f"{label}: found no file" in found.err
    assert "weights.pt: found no file" in found.err
    assert "predicted again" not in found.out


def test_results_that_are_not_here_or_of_another_config_are_named(here, monkeypatch, capsys):
    write_json(PATHS.config, json.loads(PATHS.config.read_text()) | {"description": "another"})
    assert verify("--rescore", "1") == 2
    assert "another config than the report was made from" in capsys.readouterr().err
    report = (here / PATHS.report).resolve()
    monkeypatch.chdir(here.parent)
    assert main(["verify", str(report), "--rescore", "1"]) == 2
    assert f"{PATHS.config}: found no file" in capsys.readouterr().err


def test_a_bundle_is_scored_again_and_one_with_pseudonyms_is_refused(here, capsys):
    assert main(["bundle", CONFIG.run, "--out", "own.zip"]) == 0
    assert main(["verify", "own.zip", "--rescore", "1"]) == 0
    assert main(["bundle", CONFIG.run, "--out", "hidden.zip", "--pseudonymise"]) == 0
    assert main(["verify", "hidden.zip", "--rescore", "1"]) == 2
    assert "found pseudonyms" in capsys.readouterr().err


def row(**changes: str) -> dict[str, str]:
    return dict.fromkeys(SCORE_COLUMNS, "") | {"case": "c", "structure": "spleen", "metric": "dice"} | changes


@pytest.mark.parametrize(
    ("new", "exact", "rounded"),
    [
        (row(value="0.5"), [], []),
        (row(value="0.505"), ["/c spleen dice: value is 0.505, in scores.csv 0.5"], []),
        (row(value="0.52"), 1, 1),  # 0.01 and 1 % of 0.5 are 0.015
        (row(value="0.5", status="ok"), 1, 1),
        (row(value=""), 1, 1),
        (row(value="0.5", reference_volume_mm3="1"), 1, 1),
        (row(value="0.5", case="d"), 2, 2),
    ],
)
def test_differences_of_rows(new, exact, rounded):
    for expected, rounding in ((exact, False), (rounded, True)):
        found = row_differences([row(value="0.5")], [new], rounding=rounding)
        assert found == expected if isinstance(expected, list) else len(found) == expected


@pytest.mark.parametrize(
    "cell",
    [
        SINGLE,
        f"train {SINGLE}",
        f"evaluate {SINGLE}",
        f"single_task/{SPLEEN}/0",
        f"single_task/random/{SPLEEN}/s0",
        f"#upstream/dice/single_task/random/{SPLEEN}/0",
        f"upstream/dice/{SPLEEN}/single_task/random/0",
    ],
)
def test_a_cell_is_named_by_a_job_or_a_permalink(cell):
    assert named_job(CONFIG, cell).id == SINGLE


@pytest.mark.parametrize("cell", ["", "single_task", f"single_task/{SPLEEN}/1", f"uniseg/{SPLEEN}/0", "oracle/joint/0"])
def test_a_cell_that_is_not_trained_is_refused(cell):
    with pytest.raises(InputError, match="a job that is trained here"):
        named_job(CONFIG, cell)


def test_a_cell_of_several_jobs_lists_them():
    two = small.config(data={"protocol": "kfold", "fold_count": 2, "folds": [0, 1]})
    with pytest.raises(InputError, match=r"2 jobs named .*f0\.s0, upstream.*f1\.s0"):
        named_job(two, f"single_task/{SPLEEN}/0")


def test_a_job_trained_anew_has_the_same_bytes_and_rows_and_the_run_is_untouched(here, capfd):
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()}
    assert verify("--retrain", f"single_task/{SPLEEN}/0") == 0
    out = capfd.readouterr().out
    assert "in the run; made anew with 1 threads" in out
    assert "SHA-256 of the weights: equal" in out
    assert "2 rows compared, 0 cells differ" in out
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()} == before


def test_forged_weights_are_found(here, capfd):
    """The record names the forged file, and the scores are those of the true one."""
    folder = PATHS.train(SINGLE)
    (folder / "weights.pt").write_bytes(b"forged")
    record = json.loads((folder / "record.json").read_text())
    record["files"]["weights.pt"] = [6, sha256_of(folder / "weights.pt")]
    write_json(folder / "record.json", record)
    assert verify("--retrain", SINGLE) == 1
    found = capfd.readouterr()
    assert f"in the run {record['files']['weights.pt'][1]}" in found.out
    assert "equal bytes are promised here" in found.err


def test_what_a_training_lacks_is_named(here, capsys):
    context = small.job(load_config(PATHS.config), SINGLE)
    folder = context.folder(SPLEEN, "a")
    shutil.rmtree(folder)
    Path(context.case(SPLEEN, "d").label_path).unlink()
    with pytest.raises(InputError) as caught:
        Retraining(context)
    text = str(caught.value)
    assert "no preprocessed case" in text
    assert "the reference of d" in text
    shutil.rmtree(PATHS.train(SINGLE))
    assert verify("--retrain", SINGLE) == 2
    assert "no record.json" in capsys.readouterr().err


def test_a_training_of_another_code_is_not_compared(here):
    folder = PATHS.train(SINGLE)
    record = json.loads((folder / "record.json").read_text())
    parts = record["identity"]["parts"] | {"training code": "0" * 16}
    write_json(folder / "record.json", record | {"identity": Identity(parts).to_dict()})
    with pytest.raises(InputError, match="what differs: training code"):
        Retraining(small.job(load_config(PATHS.config), SINGLE))
