"""The training step and loop: rate, clipping, losses that are not finite, resuming, the log."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from segbench.core.errors import InputError, RunFailed
from segbench.experiment.result_record import ResultRecord
from segbench.training import loop
from segbench.training.data import BatchStream
from segbench.training.initialise import initialise
from segbench.training.loop import Progression, learning_rate
from tests.unit.training.small_run import config, write_data
from tests.unit.written_run import job

CPU = torch.device("cpu")
JOB = "upstream.uniseg.random.joint.f0.s0"
TRANSFER = "downstream.single_task.cond_decoder.phantom_schwannoma.f0.s0"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with preprocessed cases."""
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_rate_decays_as_a_polynomial_from_its_first_value():
    assert learning_rate(0.01, 0, 100, 0.9) == 0.01
    assert learning_rate(0.01, 50, 100, 0.9) == pytest.approx(0.01 * 0.5**0.9)
    assert learning_rate(0.01, 99, 100, 0.9) == pytest.approx(0.01 * 0.01**0.9)
    assert learning_rate(0.01, 70, 100, 0.0) == 0.01


class Line(nn.Module):
    """One weight; its loss is `slope` times the weight, so that the gradient is `slope`."""

    def __init__(self, slope):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.slope = slope

    def forward(self, images_BCZYX, task):
        return self.weight * self.slope


def step(monkeypatch, slope, *, clip=12.0, rate=0.1, momentum=0.0):
    """Do one step and return loss, norm of the gradient, and the weight after it."""
    monkeypatch.setattr(loop, "training_loss", lambda model, outputs, labels, task, batch_dice: outputs)
    model = Line(slope)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
    settings = SimpleNamespace(precision="float32", gradient_clip=clip, batch_dice=False)
    images = torch.zeros(1, 1, 2, 2, 2)
    loss, norm = loop._step(model, optimiser, images, images, None, settings, SimpleNamespace(seed=0), 0)
    return loss, norm, model.weight.item()


def test_a_step_goes_down_the_gradient(monkeypatch):
    loss, norm, weight = step(monkeypatch, 3.0)
    assert (loss, norm) == (3.0, 3.0)
    assert weight == pytest.approx(1 - 0.1 * 3)


def test_a_large_gradient_is_clipped_to_its_norm(monkeypatch):
    _, norm, weight = step(monkeypatch, -50.0, clip=12.0)
    assert norm == 50.0, "as it was before clipping"
    assert weight == pytest.approx(1 + 0.1 * 12, rel=1e-5)


@pytest.mark.parametrize("slope", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_moves_no_weight(monkeypatch, slope):
    loss, _, weight = step(monkeypatch, slope)
    assert not np.isfinite(loss)
    assert weight == 1.0


def test_a_gradient_that_is_not_finite_moves_no_weight(monkeypatch):
    monkeypatch.setattr(Line, "forward", lambda self, images, task: torch.sqrt(self.weight - 1.0))
    loss, norm, weight = step(monkeypatch, 1.0)
    assert (loss, weight) == (0.0, 1.0)
    assert not np.isfinite(norm)


def test_a_step_leaves_the_global_random_numbers_alone(monkeypatch):
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    step(monkeypatch, 1.0)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(("loss", "norm", "text"), [(np.nan, 1.0, "loss is nan"), (1.0, np.inf, "gradient is inf")])
def test_training_that_diverges_ends_and_names_step_and_cases(folder, monkeypatch, loss, norm, text):
    made, calls = loop._step, []

    def diverge(*arguments):
        calls.append(arguments)
        return (loss, norm) if len(calls) == 3 else made(*arguments)

    monkeypatch.setattr(loop, "_step", diverge)
    context = job(config(), JOB)
    with pytest.raises(RunFailed, match=rf"the .*{text} at step 2 of {JOB}, cases [ab]"):
        loop.train(context, device=CPU)
    assert not (context.train_folder / "weights.pt").exists()


def weights(context) -> bytes:
    return (context.train_folder / "weights.pt").read_bytes()


def stop_after(monkeypatch, count):
    """Let training die when it has saved its state so many times."""
    save, seen = loop._save_state, []

    def save_and_die(*arguments):
        save(*arguments)
        seen.append(1)
        if len(seen) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_save_state", save_and_die)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_killed_training_ends_with_the_same_weights_and_log(folder, monkeypatch, workers):
    context = job(config(), JOB)
    facts = loop.train(context, device=CPU)
    straight, log = weights(context), (context.train_folder / "log.csv").read_text()
    (context.train_folder / "weights.pt").unlink()
    state = context.paths.state("train", JOB) / "state.pt"
    state.unlink()
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            loop.train(context, device=CPU)
    assert torch.load(state, weights_only=True)["step"] == 3
    again = loop.train(context, device=CPU, workers=workers)
    assert weights(context) == straight
    assert again["weights_sha256"] == facts["weights_sha256"]
    rows = [line.split(",")[:4] for line in (context.train_folder / "log.csv").read_text().splitlines()]
    assert rows == [line.split(",")[:4] for line in log.splitlines()], "all but the seconds"
    assert again["train_seconds"] > 0


def test_a_state_of_other_settings_is_not_continued(folder, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            loop.train(job(config(training={"initial_learning_rate": 0.5}), JOB), device=CPU)
    context = job(config(), JOB)
    loop.train(context, device=CPU)
    fresh = weights(context)
    for path in context.paths.state("train", JOB).iterdir():
        path.unlink()
    loop.train(context, device=CPU)
    assert weights(context) == fresh


def test_weights_of_other_inputs_lose_their_record_when_they_are_replaced(folder):
    context = job(config(), JOB)
    context.train_folder.mkdir(parents=True)
    (context.train_folder / "weights.pt").write_text("of before")
    ResultRecord.of(context.train_folder, context.identity, {}, ["weights.pt"]).write(context.train_folder)
    loop.train(context, device=CPU)
    assert not (context.train_folder / "record.json").exists()


def test_the_facts_and_the_log_say_what_was_trained(folder):
    context = job(config(), JOB)
    facts = loop.train(context, device=CPU)
    model = loop.new_model(context)
    assert facts["iterations"] == 8
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert facts["training_code"] == context.identity.parts["training code"]
    assert facts["model_code"] == context.identity.parts["model code"]
    assert (facts["match"], facts["device"]) == (None, "cpu")
    with open(context.train_folder / "log.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["iteration"]) for row in rows] == list(range(1, 9))
    assert {row["task"] for row in rows} == {"phantom_spleen", "phantom_petct"}
    for row in rows:
        expected = learning_rate(0.01, int(row["iteration"]) - 1, 8, 0.9)
        assert float(row["learning_rate"]) == pytest.approx(expected, abs=1e-8)
        assert float(row["loss"]) > 0


def test_a_long_training_logs_the_mean_loss_of_each_window(folder, monkeypatch):
    context = job(config(training={"iterations_per_task": 6, "save_every_seconds": 1e9}), JOB)
    monkeypatch.setattr(loop, "LOG_ROWS", 2)
    losses = iter(range(1, 13))
    monkeypatch.setattr(loop, "_step", lambda *arguments: (float(next(losses)), 1.0))
    progression = Progression()
    model = loop.new_model(context)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    stream = BatchStream(context)
    loop._run_steps(context, model, optimiser, stream, progression, folder / "state.pt", CPU, 0)
    assert [(row[0], row[2]) for row in progression.rows] == [(6, 3.5), (12, 9.5)]
    assert optimiser.param_groups[0]["lr"] == pytest.approx(learning_rate(0.01, 11, 12, 0.9))
    assert progression.step == 12
    assert not (folder / "state.pt").exists(), "no state was due"


def test_a_model_starts_from_the_axis_of_its_seed(folder):
    content = config().model_dump(mode="json") | {"seeds": [0, 1]}
    from segbench.experiment.config import parse_config

    settings = parse_config(content, where="test")
    first, same, other = (
        next(iter(loop.new_model(job(settings, JOB.replace("s0", seed))).state_dict().values()))
        for seed in ("s0", "s0", "s1")
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("change", ["edited", "other settings", "other code"])
def test_weights_of_the_source_that_are_not_its_own_are_refused(folder, change):
    settings = config()
    source = job(settings, "upstream.cond_decoder.random.joint.f0.s0")
    loop.train(source, device=CPU)
    ResultRecord.of(source.train_folder, source.identity, {}, ["weights.pt"]).write(source.train_folder)
    context = job(settings, TRANSFER)
    assert initialise(context, loop.new_model(context))["source"] == source.job.id
    if change == "edited":
        path = source.train_folder / "weights.pt"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        text = "bytes of other content"
    else:
        part = {"other settings": "training", "other code": "model code"}[change]
        text = f"weights of another identity; what differs: {part};"
        other = type(source.identity)(source.identity.parts | {part: "other"})
        ResultRecord.of(source.train_folder, other, {}, ["weights.pt"]).write(source.train_folder)
    with pytest.raises(InputError, match=text):
        initialise(context, loop.new_model(context))
    if change == "other code":
        allowed = config().model_copy(update={"allow_mixed_training_code": True})
        assert initialise(job(allowed, TRANSFER), loop.new_model(context))["matched"]
