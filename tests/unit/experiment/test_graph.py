"""What the workflow asks: a request changes when its job must be looked at again, and at no other time."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from segbench.core import code
from segbench.core.errors import InputError
from segbench.core.files import write_json
from segbench.experiment import graph, jobs
from segbench.experiment.config import parse_config
from segbench.experiment.graph import Run
from segbench.experiment.preprocessed_index import PreprocessedIndex
from segbench.experiment.source_files import write_record
from tests.paths import ROOT
from tests.unit.written_run import CONTENT, SINGLE, SPLEEN, THRESHOLD, TRANSFER, UNISEG, changed

TASK = "task04_hippocampus"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of(**changes) -> Run:
    return Run(changed(CONTENT, changes), warn=lambda line: None)


def asked(run: Run) -> dict[str, str]:
    """Return name -> digest of the settings of the requests of a run."""
    paths = {
        "split": run.request_split(),
        "audit": run.request_audit(),
        "gather": run.request_gather(),
        "report": run.request_report(),
        **{f"ingest {task}": run.request_ingest(task) for task in run.task_names},
        **{f"preprocess {task}": run.request_preprocess(task) for task in run.task_names},
        **{f"train {job}": run.request_train(job) for job in run.training_ids},
        **{f"evaluate {job}": run.request_evaluate(job) for job in run.evaluation_ids},
    }
    return {name: json.loads(path.read_text())["settings"] for name, path in paths.items()}


def rules(**changes) -> set[str]:
    """Return the rules of the jobs that are asked for anew after a change of the config, added jobs left out."""
    before = asked(run_of())
    after = asked(run_of(**changes))
    return {name.split()[0] for name in before if after.get(name) != before[name]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"description": "other"}, {"gather"}),
        ({"missing_masks": {"dice": {"failed": 0.0}}}, {"gather"}),
        ({"seeds": [0, 1]}, {"gather"}),
        ({"metrics": ["dice", "hd95"]}, {"evaluate", "gather"}),
        ({"upstream": {"models": [*CONTENT["upstream"]["models"], "cond_decoder"]}}, {"gather"}),
        ({"data": {"accept_leaks": ["x"]}}, {"audit", "gather"}),
        ({"data": {"accept_partial": [SPLEEN]}}, {"gather"}),
        ({"data": {"root": "mistyped"}}, {"gather"}),
        ({"data": {"test_fraction": 0.4}}, {"split", "gather"}),
        ({"training": {"iterations_per_task": 9}}, {"train", "gather"}),
        ({"training": {"save_every_seconds": 9}}, {"gather"}),
        ({"inference": {"step": 0.5}}, {"evaluate", "gather"}),
        ({"preprocessing_recipes": {"openkbp": {"image_order": 1}}}, {"gather"}),
        ({"preprocessing_recipes": {"phantom_ct": {"image_order": 1}}}, {"preprocess", "gather"}),
    ],
)
def test_a_change_of_the_config_asks_only_for_what_may_change(changes, expected):
    assert rules(**changes) == expected


def test_moved_data_are_ingested_again():
    for name in {card["folder"] for card in run_of().config.dataset_cards.values()}:
        Path("elsewhere", name).mkdir(parents=True)
        Path("elsewhere", name, "dataset.json").write_text("{}")
    assert rules(data={"root": "elsewhere"}) == {"ingest", "gather"}


def test_an_added_downstream_task_asks_for_no_other_job():
    before = asked(run_of())
    after = asked(run_of(downstream={"tasks": [*CONTENT["downstream"]["tasks"], "phantom_prostate"]}))
    ceiling = "evaluate downstream.oracle.none.joint.f0.s0"  # one evaluation of a control covers all tasks
    assert {name for name in before if after[name] != before[name]} == {"split", "gather", ceiling}


def test_an_added_upstream_task_asks_for_joint_jobs_alone():
    before = asked(run_of())
    after = asked(run_of(upstream={"tasks": [*CONTENT["upstream"]["tasks"], "phantom_pancreas"]}))
    names = {name for name in before if after[name] != before[name]}
    assert {f"train {UNISEG}", f"evaluate {UNISEG}", f"evaluate {THRESHOLD}"} <= names
    assert not {f"train {SINGLE}", f"evaluate {SINGLE}", f"train {TRANSFER}", f"evaluate {TRANSFER}"} & names


def test_a_second_look_writes_nothing():
    asked(run_of())
    times = {path: path.stat().st_mtime_ns for path in Path("results").rglob("*.json")}
    assert times
    asked(run_of())
    assert {path: path.stat().st_mtime_ns for path in Path("results").rglob("*.json")} == times


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("segbench/training/loop.py", {"train"}),
        ("segbench/data/audit/__init__.py", {"audit"}),
        ("segbench/data/preprocess.py", {"preprocess"}),
        ("segbench/metrics/score.py", {"evaluate", "gather"}),
        ("segbench/reporting/page.py", {"report"}),
        ("segbench/stats/missing_masks.py", {"gather", "report"}),
        ("segbench/cli/_job.py", set()),
        ("segbench/experiment/graph.py", set()),
    ],
)
def test_an_edit_of_code_asks_for_the_jobs_that_run_it(monkeypatch, file, expected):
    before = asked(run_of())
    meaning = code._meaning
    assert (ROOT / file).is_file()
    monkeypatch.setattr(code, "_meaning", lambda path: meaning(path) + ("edited" if path == file else ""))
    code._digest_of.cache_clear()
    try:
        after = asked(run_of())
    finally:
        code._digest_of.cache_clear()
    found = {name.split()[0] for name in before if after[name] != before[name]}
    assert expected <= found
    assert found <= expected | {"report"}, "the report may use what others use"


def test_templates_and_styles_are_part_of_the_report(monkeypatch):
    before = asked(run_of())
    files_digest = graph.files_digest
    monkeypatch.setattr(
        graph, "files_digest", lambda *entries, suffixes: files_digest(*entries, suffixes=suffixes) + "x"
    )
    after = asked(run_of())
    assert {name for name in before if after[name] != before[name]} == {"report"}
    assert {".j2", ".css"} <= set(graph.REPORTING_FILES)


def attempts(run: Run, job_id: str) -> tuple[int, int]:
    paths = run.request_train(job_id), run.request_evaluate(job_id)
    train, evaluate = (json.loads(path.read_text())["attempt"] for path in paths)
    return train, evaluate


def finish(run: Run, job_id: str, **status) -> None:
    """Write what a training and an evaluation leave."""
    for folder, product in ((run.paths.train(job_id), "weights.pt"), (run.paths.evaluate(job_id), "scores.csv")):
        write_json(folder / "outcome.json", {"status": "ok", "attempt": 1, "job": job_id, "reason": ""} | status)
        write_json(folder / "record.json", {})
        (folder / product).write_text("x")


@pytest.mark.parametrize(
    ("deleted", "expected"),
    [
        (None, (1, 1)),
        ("train/{}/weights.pt", (2, 1)),
        ("train/{}/record.json", (2, 1)),
        ("train/{}/log.csv", (1, 1)),
        ("train/{}/outcome.json", (1, 1)),  # Snakemake itself sees that it is absent
        ("evaluate/{}/scores.csv", (1, 2)),
        ("evaluate/{}/record.json", (1, 2)),
        ("evaluate/{}/outcome.json", (1, 1)),
    ],
)
def test_a_deleted_result_asks_for_its_job_alone(deleted, expected):
    run = run_of()
    finish(run, UNISEG)
    finish(run, SINGLE)
    if deleted:
        (run.paths.root / deleted.format(UNISEG)).unlink(missing_ok=True)
    assert attempts(run, UNISEG) == expected
    assert attempts(run, SINGLE) == (1, 1)


def test_failed_jobs_are_asked_for_again_and_named():
    run = run_of()
    finish(run, UNISEG)
    path = run.paths.train(UNISEG) / "outcome.json"
    write_json(path, {"status": "failed", "attempt": 1, "job": UNISEG, "command": "train", "reason": "nan"})
    write_json(
        run.paths.evaluate(UNISEG) / "outcome.json",
        {"status": "failed_upstream", "attempt": 1, "job": UNISEG, "command": "evaluate", "reason": "training failed"},
    )
    assert attempts(run, UNISEG) == (2, 1)
    with pytest.raises(graph.RunFailed, match=f"failed and retried by the next run: {UNISEG}$"):
        run.raise_if_failed()
    path.write_text("{")
    with pytest.raises(InputError, match=r"outcome\.json: found no outcome"):
        run.raise_if_failed()


def test_a_case_that_is_gone_from_the_store_is_asked_for_while_a_job_is_not_done():
    run, index = run_of(), PreprocessedIndex(SPLEEN, "phantom_ct", {"a": Path("store/a"), "b": Path("store/b")})
    index.write(run.paths.preprocessed(SPLEEN))
    for case in index.folders.values():
        write_json(case / "meta.json", {})

    def attempt() -> int:
        return json.loads(run.request_preprocess(SPLEEN).read_text())["attempt"]

    assert attempt() == 1
    (index.folders["b"] / "meta.json").unlink()
    assert attempt() == 2
    write_json(index.folders["b"] / "meta.json", {})
    assert attempt() == 2
    for outcome in run.outcomes():
        write_json(outcome, {"status": "ok"})
    (index.folders["b"] / "meta.json").unlink()
    assert attempt() == 2, "a finished run needs no store"
    write_json(run.paths.train(UNISEG) / "outcome.json", {"status": "failed"})
    assert attempt() == 3


def test_a_deleted_page_asks_for_the_report_again():
    run = run_of()
    write_json(run.paths.rendered, {"status": "ok", "attempt": 1, "files": {"index.html": "x"}})
    assert json.loads(run.request_report().read_text())["attempt"] == 2
    run.paths.report.mkdir(parents=True)
    (run.paths.report / "index.html").write_text("x")
    assert json.loads(run_of().request_report().read_text())["attempt"] == 2
    write_json(run.paths.rendered, {"status": "ok", "attempt": 2, "files": {"index.html": "x"}})
    assert json.loads(run_of().request_report().read_text())["attempt"] == 2


def test_what_an_evaluation_reads(here):
    run = run_of()
    assert run.trained_of(UNISEG) == [run.paths.train(UNISEG) / "outcome.json"]
    assert run.trained_of(THRESHOLD) == []
    assert run.evaluated_from(UNISEG) == run.trained_of(UNISEG)
    assert run.evaluated_from(THRESHOLD) == [run.paths.preprocessed(task) for task in CONTENT["upstream"]["tasks"]]
    assert run.source_of(TRANSFER) == [run.paths.train(UNISEG) / "outcome.json"]
    assert run.source_of(UNISEG) == []
    assert run.preprocessed_of(SINGLE) == [run.paths.preprocessed(SPLEEN)]


def test_the_score_table_waits_for_every_job_once():
    external = [{"name": "masks", "title": "Masks", "predictions": "masks/{task}/{fold}"}]
    upstream = {"external": external, "self_supervised": ["restoration"]}
    run = run_of(upstream=upstream, downstream={"initialisations": ["scratch", "restoration"]})
    trained = [run.paths.train(job.id) / "outcome.json" for job in jobs.training_jobs(run.config)]
    evaluated = [run.paths.evaluate(job.id) / "outcome.json" for job in jobs.evaluation_jobs(run.config)]
    assert run.outcomes() == trained + evaluated
    assert len(set(run.outcomes())) == len(run.outcomes())
    of_training, of_evaluation = ({path.parent.name.split(".")[1] for path in paths} for paths in (trained, evaluated))
    assert of_training - of_evaluation == {"restoration"}
    assert {"masks", "threshold"} <= of_evaluation - of_training


def test_controls_and_given_masks_ask_for_no_device():
    given = [
        {"name": "masks", "title": "Masks", "predictions": "masks/{task}/{fold}"},
        {"name": "command", "title": "Command", "predict": "predict {job}"},
    ]
    run = run_of(upstream={"external": given})
    devices = {job.model: run.devices_of(name) for name, job in run.job_of.items()}
    assert {name for name, number in devices.items() if number == 0} == {"oracle", "threshold", "masks"}
    assert {devices["uniseg"], devices["command"]} == {1}


@pytest.mark.parametrize(
    ("driver", "scheduler", "variable", "file"),
    [
        (False, None, None, "segbench-cpu.yaml"),
        (True, None, None, "segbench.yaml"),
        (False, "/usr/bin/sbatch", None, "segbench.yaml"),
        (True, None, "cpu", "segbench-cpu.yaml"),
    ],
)
def test_the_environment_of_networks_follows_from_the_machine(here, monkeypatch, driver, scheduler, variable, file):
    monkeypatch.setattr(graph.sys, "platform", "linux")
    monkeypatch.setattr(graph, "NVIDIA_DRIVER", here if driver else here / "none")
    monkeypatch.setattr(graph.shutil, "which", lambda name: scheduler)
    monkeypatch.setenv(graph.TORCH_VARIABLE, variable or "")
    if variable is None:
        monkeypatch.delenv(graph.TORCH_VARIABLE)
    assert graph.network_environment(here) == here / file
    assert graph.network_environment(ROOT / "envs").is_file()


@pytest.fixture
def real(here):
    """A run over one real data set with two files, ingested once."""
    content = yaml.safe_load((ROOT / "config" / "real_small.yaml").read_text())
    content["data"]["root"] = str(here)
    content["upstream"] |= {"tasks": [TASK], "self_supervised": []}
    del content["downstream"]
    folder = here / "Task04_Hippocampus" / "imagesTr"
    folder.mkdir(parents=True)
    for name in ("a.nii.gz", "b.nii.gz"):
        (folder / name).write_text(name)
    run = Run(content, warn=print)
    run.request_ingest(TASK)
    write_record(folder.parent, run.paths.sources(TASK), [])
    return run, folder


def test_an_ingest_is_asked_for_when_a_file_has_another_content(real):
    run, folder = real
    first = run.request_ingest(TASK).read_bytes()
    (folder / ".DS_Store").write_text("stray")
    (folder / "a.nii.gz").touch()
    assert run.request_ingest(TASK).read_bytes() == first
    (folder / "b.nii.gz").write_text("other")
    assert run.request_ingest(TASK).read_bytes() != first


def test_titles_of_a_card_ask_for_nothing_and_what_a_manifest_holds_does(real):
    run, _ = real
    first = run.request_ingest(TASK).read_bytes()
    cards = copy.deepcopy(run.config.dataset_cards)
    cards[TASK] |= {"title": "Other", "citation": "Other", "structures": []}
    run.config.__dict__["dataset_cards"] = cards
    assert run.request_ingest(TASK).read_bytes() == first
    cards[TASK] |= {"patient_pattern": "(x)"}
    assert run.request_ingest(TASK).read_bytes() != first


def test_problems_name_the_file_of_the_config(here):
    with pytest.raises(InputError) as caught:
        Run(changed(CONTENT, {"seeds": []}), warn=print, where="mine.yaml")
    assert str(caught.value).startswith("mine.yaml: seeds: found []")


def test_absent_data_are_named_with_the_way_to_get_them(here):
    content = changed(CONTENT, {"data": {"root": "raw", "protocol": "corrected", "split_files": ["lists.pkl"]}})
    lines: list[str] = []
    Run(content, warn=lines.append)
    folders = {parse_config(content, where="test").dataset_cards[task]["folder"] for task in run_of().task_names}
    for folder in folders:
        assert any(f"raw/{folder}: found no folder; expected the data set" in line for line in lines), folder
    assert any(line.startswith("raw/lists.pkl: found no file;") and "docs/protocols.md" in line for line in lines)


def test_absent_data_and_lists_ask_for_nothing_so_that_nothing_is_deleted(real):
    run, folder = real
    before = run.request_ingest(TASK).read_bytes(), run.request_split().read_bytes()
    folder.parent.rename(folder.parent.with_name("moved"))
    content = run.config.model_dump(mode="json")
    for root in (content["data"]["root"], "mistyped"):
        lists = {"protocol": "corrected", "split_files": ["none.pkl"]}
        wrong = Run(changed(content, {"data": {"root": root, **lists}}), warn=print)
        assert (wrong.request_ingest(TASK).read_bytes(), wrong.request_split().read_bytes()) == before


def test_generated_data_are_asked_for_as_a_whole():
    content = changed(CONTENT, {"data": {"phantom": {"train_cases": 3, "test_cases": 2}}})
    run = Run(content, warn=print)
    first = run.request_phantom().read_bytes()
    assert run.absent_data() == []
    assert len(run.phantom_files()) == 3
    other = Run(changed(content, {"data": {"phantom": {"seed": 7}}}), warn=print)
    assert other.request_phantom().read_bytes() != first


def test_every_problem_of_a_config_is_raised_at_once():
    with pytest.raises(InputError) as caught:
        Run(CONTENT | {"seed": 1, "metric": ["dice"]}, warn=print)
    assert len(caught.value.problems) == 2


def test_absent_data_and_an_absent_gpu_are_one_list_before_any_job(tmp_path, monkeypatch):
    monkeypatch.setattr("segbench.core.devices.DEVICE_FILES", ())
    content = changed(CONTENT, {"data": {"root": str(tmp_path / "nowhere")}})
    run = Run(content, warn=lambda line: None)
    for environment, count in (({}, 3), ({"CUDA_VISIBLE_DEVICES": ""}, 3), ({"CUDA_VISIBLE_DEVICES": "0"}, 4)):
        with pytest.raises(InputError) as caught:
            run.check_before_jobs(environment)
        assert len(caught.value.problems) == count


def test_another_reader_checks_and_ingests_again_and_trains_nothing(monkeypatch):
    for task in run_of().task_names:
        folder = Path("raw") / run_of().config.dataset_cards[task]["folder"]
        folder.mkdir(parents=True)
        (folder / "dataset.json").write_text("{}")
    before = asked(run_of())
    digest = graph.code_digest
    other = lambda *entries, **options: digest(*entries, **options) + "x" * (entries[:2] == graph.INGEST_CODE)  # noqa: E731
    monkeypatch.setattr(graph, "code_digest", other)
    after = asked(run_of())
    assert {name.split()[0] for name in before if after[name] != before[name]} == {"ingest"}


def test_the_reader_of_a_data_set_is_part_of_its_ingest_alone():
    content = changed(CONTENT, {"upstream": {"tasks": ["lits", SPLEEN]}})
    tasks = Run(content, warn=lambda line: None).config.dataset_cards
    assert tasks["lits"]["layout"] == "custom"
    assert "segbench/data/volumes.py" in code.imported_files(graph.INGEST_CODE)
    assert "segbench/data/layouts.py" in code.imported_files(graph.INGEST_CODE)


def test_what_no_job_of_the_config_writes_is_refused():
    """A target of Snakemake may name any file: a control has no training, an objective is not scored."""
    run = run_of()
    for asked_for, name in (
        (run.request_train, THRESHOLD),
        (run.request_train, f"{UNISEG}1"),
        (run.request_evaluate, f"{UNISEG}1"),
        (run.request_ingest, "phantom_spleeen"),
        (run.request_preprocess, "phantom_spleeen"),
    ):
        with pytest.raises(InputError, match=f"found the (job|task) {name}; expected .* of the config; did you mean"):
            asked_for(name)
    assert not run.paths.root.exists()
