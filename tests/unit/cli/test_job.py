"""What train and evaluate have in common: done once, failures are data, nothing is overwritten, states go last."""

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from segbench.cli import main
from segbench.cli._job import check_result, kept_outcome, run_job
from segbench.core.errors import InputError, RunFailed, input_error
from segbench.core.files import sha256_of, write_json
from segbench.evaluation.trained import evaluation_identity
from segbench.experiment.identity import Identity
from segbench.experiment.ownership import OWNER_VARIABLE
from segbench.experiment.result_record import ResultRecord
from tests.paths import ROOT
from tests.unit import written_run as small
from tests.unit.experiment import processes
from tests.unit.written_run import SINGLE, THRESHOLD

IDENTITY = Identity({"model": "a", "training code": "b"})


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(OWNER_VARIABLE, raising=False)
    return tmp_path


class Work:
    """Writes a product and a state; counts its calls."""

    def __init__(self, **facts):
        self.facts, self.calls, self.error = facts, 0, None
        self.context = small.job(small.config(), SINGLE)
        self.folder = self.context.train_folder
        self.state = self.context.paths.state("train", SINGLE)

    def __call__(self) -> dict:
        self.calls += 1
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "state.pt").write_text("state")
        if self.error is not None:
            raise self.error
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "weights.pt").write_text(f"weights {self.calls}")
        return dict(self.facts)

    def run(self, identity=IDENTITY, **options) -> dict:
        products, resumable = ["weights.pt"], [self.state / "state.pt"]
        status = run_job(
            self.context, "train", self.folder, identity, products=products, resumable=resumable, work=self, **options
        )
        assert status == 0
        return self.outcome()

    def outcome(self) -> dict:
        return json.loads((self.folder / "outcome.json").read_text())

    def request(self, attempt: int) -> None:
        write_json(self.context.paths.request("train", SINGLE), {"settings": "a", "attempt": attempt})


def test_a_job_leaves_outcome_record_and_product_and_no_state():
    work = Work(parameters=7)
    work.request(3)
    outcome = work.run()
    assert (outcome["status"], outcome["attempt"], outcome["parameters"], outcome["reason"]) == ("ok", 3, 7, "")
    assert (outcome["job"], outcome["command"], outcome["identity"]) == (SINGLE, "train", IDENTITY.digest)
    assert outcome["started"] <= outcome["finished"]
    assert 0 < outcome["cpu_seconds"] < 3600
    assert 20 < outcome["peak_memory_mib"] < 100_000, "in MiB: this process has imported PyTorch or pandas"
    record = json.loads((work.folder / "record.json").read_text())
    assert record["files"] == {"weights.pt": [9, sha256_of(work.folder / "weights.pt")]}
    assert not (work.state / "state.pt").exists()
    assert not list(work.context.paths.running.iterdir())


def test_it_is_not_done_twice_and_tells_the_attempt_that_was_asked_for():
    work = Work(parameters=7)
    first = work.run()
    (work.folder / "outcome.json").unlink()
    work.request(4)
    assert work.run() == first | {"attempt": 4}
    assert work.calls == 1


@pytest.mark.parametrize("other", [{"model": "x", "training code": "b"}, {"model": "a", "training code": "x"}, {}])
def test_other_inputs_are_another_result(other):
    work = Work()
    work.run()
    assert work.run(Identity(other))["identity"] == Identity(other).digest
    assert work.calls == 2


def test_mixed_training_code_may_be_allowed():
    work = Work()
    work.run()
    work.context = small.job(small.config(allow_mixed_training_code=True), SINGLE)
    work.run(Identity({"model": "a", "training code": "x"}))
    assert work.calls == 1
    work.run(Identity({"model": "x", "training code": "x"}))
    assert work.calls == 2


def test_a_deleted_product_is_made_anew():
    work = Work()
    work.run()
    (work.folder / "weights.pt").unlink()
    work.run()
    assert (work.folder / "weights.pt").read_text() == "weights 2"


@pytest.mark.parametrize("edit", ["WEIGHTS 1", "longer than it was", ""])
def test_an_edited_product_is_refused_and_nothing_is_overwritten(edit):
    work = Work()
    work.run()
    path = work.folder / "weights.pt"
    path.write_text(edit)
    before = {file: file.read_bytes() for file in work.folder.iterdir()}
    with pytest.raises(InputError, match=r"weights\.pt: found .* of other content; expected .*delete it"):
        work.run()
    assert work.calls == 1
    assert {file: file.read_bytes() for file in work.folder.iterdir()} == before
    path.unlink()
    assert work.run()["status"] == "ok"


def test_a_damaged_record_is_refused():
    work = Work()
    work.run()
    (work.folder / "record.json").write_text("{")
    with pytest.raises(InputError, match=r"record\.json: found another form"):
        work.run()
    assert work.calls == 1


def test_a_failure_is_data_with_its_reason_its_log_and_its_state(here):
    work = Work()
    work.error = ValueError(f"no  such\nthing in {here}/raw")
    reasons = []
    outcome = work.run(on_failure=reasons.append)
    assert outcome["status"] == "failed"
    assert outcome["reason"] == "ValueError: no such thing in <data>" == reasons[0]
    assert any("Traceback" in line for line in outcome["log_tail"])
    assert not (work.folder / "record.json").exists()
    assert (work.state / "state.pt").exists(), "the next attempt continues"
    work.error = None
    assert work.run()["status"] == "ok"


def test_a_failure_that_work_reports_is_one_as_well():
    work = Work(status="failed", reason="two cases")
    outcome = work.run()
    assert (outcome["status"], outcome["reason"]) == ("failed", "two cases")
    assert "log_tail" in outcome
    assert not (work.folder / "record.json").exists()
    assert (work.state / "state.pt").exists()


def test_no_handler_of_the_log_stays():
    before = list(logging.getLogger().handlers)
    Work().run()
    work = Work()
    work.error = ValueError("oh")
    work.run(Identity({}))
    assert logging.getLogger().handlers == before


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's."""


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [FULL, MemoryError("array"), OutOfMemoryError("CUDA out of memory")])
def test_a_failure_of_the_machine_is_no_result(error):
    work = Work()
    work.error = error
    with pytest.raises(RunFailed, match=f"train of {SINGLE}: {type(error).__name__}, "):
        work.run()
    assert not (work.folder / "outcome.json").exists()
    assert (work.state / "state.pt").exists()
    assert not list(work.context.paths.running.iterdir())


@pytest.mark.parametrize("name", ["record.json", "outcome.json"])
def test_a_disk_that_is_full_when_the_job_ends_is_no_result_and_the_state_stays(monkeypatch, name):
    def write(path, content):
        if Path(path).name == name:
            raise FULL
        write_json(path, content)

    monkeypatch.setattr("segbench.cli._job.write_json", write)
    monkeypatch.setattr("segbench.experiment.result_record.write_json", write)
    work = Work()
    with pytest.raises(RunFailed, match="No space left on device"):
        work.run()
    assert not (work.folder / "outcome.json").exists()
    assert (work.state / "state.pt").exists()


def test_an_interrupted_job_leaves_its_state_and_no_outcome():
    work = Work()
    work.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        work.run()
    assert not (work.folder / "outcome.json").exists()
    assert (work.state / "state.pt").exists()
    assert not list(work.context.paths.running.iterdir())


def test_states_are_removed_only_when_the_outcome_is_there(monkeypatch):
    work, seen = Work(), []
    monkeypatch.setattr("segbench.cli._job._remove", lambda paths: seen.append((work.outcome()["status"], paths)))
    work.run()
    assert seen == [("ok", [work.state / "state.pt"])]


def test_a_job_that_another_process_does_is_refused():
    work = Work()
    with processes.living() as process:
        processes.write_job("small", processes.of(process, f"train.{SINGLE}"))
        with pytest.raises(RunFailed, match="is being run by"):
            work.run()
    assert work.calls == 0
    assert work.run()["status"] == "ok"


def test_what_is_gathered_is_what_was_written():
    work = Work()
    work.run()
    check_result(work.folder)
    (work.folder / "weights.pt").write_text("WEIGHTS 1")
    with pytest.raises(InputError, match="other content"):
        check_result(work.folder)
    (work.folder / "record.json").unlink()
    with pytest.raises(InputError, match=r"found no record\.json"):
        check_result(work.folder)
    write_json(work.folder / "outcome.json", {"status": "failed"})
    check_result(work.folder)


def test_no_record_is_no_outcome(here):
    assert kept_outcome(here, IDENTITY, []) is None


@pytest.fixture
def done():
    """A run whose training and evaluation are done, with its config as a file."""
    config = small.config()
    small.write_run(config)
    write_json("config.json", config.model_dump(mode="json"))
    trained = small.job(config, SINGLE)
    for folder, identity, products in (
        (trained.train_folder, lambda: trained.identity, ["weights.pt"]),
        (trained.evaluate_folder, lambda: evaluation_identity(trained, {"status": "ok"}), ["scores.csv"]),
    ):
        folder.mkdir(parents=True)
        for name in products:
            (folder / name).write_text("content")
        ResultRecord.of(folder, identity(), {"status": "ok", "job": SINGLE}, products).write(folder)
    return trained


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_what_was_done_before_loads_no_large_package(done, command):
    write_json(done.train_folder / "outcome.json", {"status": "ok"})
    program = (
        "import sys; from segbench.cli import main;"
        f"assert main(['{command}', '--config', 'config.json', '--job', '{SINGLE}']) == 0;"
        "print(*sorted({'torch', 'numpy', 'pandas', 'nibabel'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "done before, from the same inputs" in answer.stderr
    assert answer.stdout.split() == []
    assert json.loads((done.paths.root / command / SINGLE / "outcome.json").read_text())["status"] == "ok"


def test_scores_of_weights_of_other_settings_are_refused_and_the_difference_is_named(done, capsys):
    write_json(done.train_folder / "outcome.json", {"status": "ok"})
    write_json("config.json", small.config(training={"iterations_per_task": 9}).model_dump(mode="json"))
    assert main(["evaluate", "--config", "config.json", "--job", SINGLE]) == 2
    assert "weights of another identity; what differs: training; expected identity" in capsys.readouterr().err
    assert (done.evaluate_folder / "scores.csv").read_text() == "content"


@pytest.mark.parametrize(("text", "found"), [(None, "no outcome"), ("{", "a damaged one"), ("[]", "a damaged one")])
def test_a_training_without_an_outcome_is_named(done, capsys, text, found):
    if text is not None:
        (done.train_folder / "outcome.json").write_text(text)
    assert main(["evaluate", "--config", "config.json", "--job", SINGLE]) == 2
    assert f"outcome.json: found {found}" in capsys.readouterr().err


def test_a_job_that_is_not_of_the_run_is_suggested(done, capsys):
    assert main(["train", "--config", "config.json", "--job", SINGLE.replace("spleen", "splen")]) == 2
    assert f"did you mean '{SINGLE}'?" in capsys.readouterr().err


def test_an_edited_split_stops_training_before_anything_is_written(done, capsys):
    path = done.paths.splits
    path.write_text(path.read_text().replace('"a"', '"d"', 1))
    before = path.read_bytes()
    assert main(["train", "--config", "config.json", "--job", SINGLE]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith(f"{path}: found content that does not match its own sha256")]
    assert path.read_bytes() == before
    assert not (done.train_folder / "outcome.json").exists()


def test_an_evaluation_that_raises_anywhere_writes_its_failed_rows(done, monkeypatch):
    from segbench.evaluation.rows import read_rows

    monkeypatch.setattr("segbench.evaluation.predictors.control.load_control", lambda name: 1 / 0)
    assert main(["evaluate", "--config", "config.json", "--job", THRESHOLD]) == 0
    folder = done.paths.evaluate(THRESHOLD)
    rows = read_rows(folder / "scores.csv")
    assert {(row["task"], row["case"]) for row in rows} == {(t, c) for t in (small.SPLEEN, small.LIVER) for c in "cd"}
    assert {row["status"] for row in rows} == {"failed"}
    assert json.loads((folder / "outcome.json").read_text())["reason"] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("error", "traced"),
    [(input_error("case.npy", found="3 bytes", expected="4", fix="again"), False), (KeyError("x"), True)],
)
def test_the_log_of_a_job_that_wrong_input_ended_has_no_traceback(error, traced, caplog):
    work = Work()
    work.error = error
    assert work.run()["status"] == "failed"
    assert ("Traceback" in caplog.text) == traced
    assert f"train of {SINGLE} failed: {error}" in caplog.text


def test_a_failed_training_fails_its_evaluation_and_is_not_tried_again_by_it(done):
    from segbench.evaluation.rows import read_rows

    write_json(done.train_folder / "outcome.json", {"status": "failed", "reason": "the loss is nan"})
    assert main(["evaluate", "--config", "config.json", "--job", SINGLE]) == 0
    outcome = json.loads((done.evaluate_folder / "outcome.json").read_text())
    assert (outcome["status"], outcome["reason"]) == ("failed_upstream", "training failed: the loss is nan")
    rows = read_rows(done.evaluate_folder / "scores.csv")
    assert {row["reason"] for row in rows} == {"training failed: the loss is nan"}
    assert not (done.evaluate_folder / "record.json").exists(), "it would name scores that are gone"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "segbench train: interrupted; what is done is kept, run again to go on"),
        (FULL, 1, "segbench train: [Errno 28] No space left on device; free memory or disk space and run again"),
    ],
)
def test_an_interruption_and_a_full_disk_end_in_one_line(done, monkeypatch, capsys, error, status, line):
    def run(args):
        raise error

    monkeypatch.setattr("segbench.cli.train.run", run)
    assert main(["train", "--config", "config.json", "--job", SINGLE]) == status
    assert capsys.readouterr().err.splitlines() == [line]


NAMES = ("train", "evaluate")


@pytest.fixture
def torch_as_before():
    """Put back what `train` sets for its process."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def test_a_training_and_its_evaluation_are_done_once_and_follow_what_changes(torch_as_before):
    config = small.config()
    small.write_run(config)
    folder = small.job(config, SINGLE).paths.root

    def both(**changes) -> tuple[dict, dict]:
        write_json("config.json", small.config(**changes).model_dump(mode="json"))
        for command in NAMES:
            assert main([command, "--config", "config.json", "--job", SINGLE]) == 0
        train, evaluate = (json.loads((folder / name / SINGLE / "outcome.json").read_text()) for name in NAMES)
        return train, evaluate

    first = both()
    assert (first[0]["status"], first[1]["status"], first[1]["predicted"]) == ("ok", "ok", 2)
    (folder / "train" / SINGLE / "log.csv").unlink()
    assert both(description="a better title", data={"accept_leaks": ["x"]}) == first, "nothing is done again"
    metric = both(metrics=["dice", "volume_error_ml"])
    assert metric[0] == first[0]
    assert (metric[1]["predicted"], metric[1]["scored"]) == (0, 2)
    longer = both(training={"iterations_per_task": 5})
    assert longer[0]["iterations"] == 5
    assert longer[1]["predicted"] == 2
    again = both()
    assert again[0]["weights_sha256"] == first[0]["weights_sha256"]
    assert not (folder / "state" / "evaluate" / SINGLE).exists()
