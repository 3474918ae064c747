"""The training loop: rate, divergence, resuming, signals, time limit, the log."""

import csv
import logging
import os
import signal

import pytest
import torch

from segbench.core.errors import InputError, RunFailed
from segbench.experiment.result_record import ResultRecord
from segbench.training import checkpoint, loop
from segbench.training.guards import Diverged
from segbench.training.initialise import initialise
from segbench.training.precision import chosen_arithmetic
from segbench.training.step import Stepper, StepResult
from tests.unit.training.small_run import CONTENT, config, killed
from tests.unit.written_run import job

CPU = torch.device("cpu")
JOB = "upstream.uniseg.random.joint.f0.s0"
TRANSFER = "downstream.single_task.cond_decoder.phantom_schwannoma.f0.s0"


class Fails:
    """Lets the steps with these numbers of a call diverge."""

    def __init__(self, monkeypatch, calls):
        self.calls, self.seen, self.made = calls, 0, Stepper.result
        owner = self

        def result(self, step):
            owner.seen += 1
            if owner.seen in owner.calls:
                raise Diverged("loss", float("nan"))
            return owner.made(self, step)

        monkeypatch.setattr(Stepper, "result", result)


def test_training_that_diverges_twice_ends_and_names_step_and_cases(folder, monkeypatch):
    Fails(monkeypatch, {3, 6})  # at step 2, then, from step 0 on, at step 2 again
    context = job(config(), JOB)
    with pytest.raises(RunFailed, match=rf"the loss is nan at step 2 of {JOB}, cases [ab]"):
        loop.train(context, device=CPU)
    assert not (context.train_folder / "weights.pt").exists()


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_training_that_diverges_once_goes_back_and_takes_half_the_rate(folder, monkeypatch, caplog, mode):
    monkeypatch.setattr(loop, "GOOD_EVERY", 2)
    context = job(config(training={"save_every_seconds": 1e9, "mode": mode}), JOB)
    Fails(monkeypatch, {6})  # at step 5; the last good state is that of step 4
    facts = loop.train(context, device=CPU)
    assert [(item["step"], item["reason"]) for item in facts["retries"]] == [(5, "the loss is nan")]
    assert set(facts["retries"][0]["cases"]) <= {"a", "b"}
    assert "tried again from step 4 with 0.5 of the learning rate" in caplog.text
    with open(context.train_folder / "log.csv", newline="") as stream:
        rates = {int(row["iteration"]): float(row["learning_rate"]) for row in csv.DictReader(stream)}
    assert list(rates) == list(range(1, 9)), "each step is logged once"
    for iteration, rate in rates.items():
        expected = 0.01 * (1 - (iteration - 1) / 8) ** 0.9 * (0.5 if iteration > 4 else 1)
        assert rate == pytest.approx(expected, abs=1e-8)


def test_a_training_that_went_back_and_was_killed_ends_with_the_same_weights(folder, monkeypatch):
    monkeypatch.setattr(loop, "GOOD_EVERY", 3)
    context = job(config(), JOB)

    def fail_at(step):
        made = Stepper.result

        def wrapped(self, taken):
            if taken.batch.number == step and self.optimisation.learning_rate == taken.rates[0]:
                raise Diverged("loss", float("nan"))
            return made(self, taken)

        monkeypatch.setattr(Stepper, "result", wrapped)

    fail_at(5)
    loop.train(context, device=CPU)
    straight = weights(context)
    for kill in (2, 4, 6):
        for path in context.paths.state("train", JOB).iterdir():
            path.unlink()
        killed(monkeypatch, kill, lambda: loop.train(context, device=CPU))
        assert len(loop.train(context, device=CPU)["retries"]) == 1
        assert weights(context) == straight


# epsilon: Adam would make steps of a gradient that is rounding alone, as of a bias before a norm.
@pytest.mark.parametrize("recipe", [{}, {"optimiser": "adamw", "ema_decay": 0.5, "epsilon": 1e-3}])
def test_mode_fast_looks_at_a_step_when_the_next_has_started_and_takes_the_same_steps(folder, monkeypatch, recipe):
    monkeypatch.setattr(loop, "LOG_ROWS", 1)
    monkeypatch.setattr(loop, "diagnostic_steps", lambda total: [])
    trained, order = {}, []
    started, looked = Stepper.step, Stepper.result
    monkeypatch.setattr(Stepper, "step", lambda self, *a, **k: order.append(k["number"]) or started(self, *a, **k))
    monkeypatch.setattr(Stepper, "result", lambda self, step: order.append("look") or looked(self, step))
    for mode in ("exact", "fast"):
        context = job(config(training={"mode": mode, "save_every_seconds": 1e9, **recipe}), JOB)
        trained[mode] = loop.TrainingRun(context, CPU)
        trained[mode].run(0)
    assert order[:4] == [0, "look", 1, "look"]
    assert order[16:21] == [0, 1, "look", 2, "look"]
    assert order[-3:] == [7, "look", "look"], "nothing is left unseen"
    for name, value in trained["exact"].optimisation.scored_weights().items():
        torch.testing.assert_close(trained["fast"].optimisation.scored_weights()[name], value, rtol=1e-3, atol=1e-4)
    rows = [training.progression.rows[0][2] for training in trained.values()]
    assert rows[0] == pytest.approx(rows[1], rel=1e-3)


def test_a_divergence_that_is_seen_late_loses_the_steps_that_were_started(folder, monkeypatch, caplog):
    monkeypatch.setattr(loop, "LOG_ROWS", 1)
    monkeypatch.setattr(loop, "diagnostic_steps", lambda total: [])
    monkeypatch.setattr(loop, "GOOD_EVERY", 3)
    context = job(config(training={"save_every_seconds": 1e9, "mode": "fast"}), JOB)
    Fails(monkeypatch, {5})  # step 4; step 5 is started by then, and the last good state is that of step 3
    training = loop.TrainingRun(context, CPU)
    training.run(0)
    assert [item["step"] for item in training.progression.retries] == [4]
    assert "tried again from step 3 with 0.5 of the learning rate" in caplog.text
    assert training.progression.step == 8
    assert not training.started


def test_a_late_training_that_is_killed_continues_from_what_was_seen(folder, monkeypatch):
    monkeypatch.setattr(loop, "LOG_ROWS", 1)
    context = job(config(training={"mode": "fast"}), JOB)
    killed(monkeypatch, 3, lambda: loop.train(context, device=CPU))
    state = checkpoint.read_state(context.paths.state("train", JOB) / "state.pt")
    assert (state["progression"]["step"], len(state["progression"]["window"])) == (3, 3)
    facts = loop.train(context, device=CPU)
    assert [item["first_step"] for item in facts["attempts"]] == [0, 3]


def weights(context) -> bytes:
    return (context.train_folder / "weights.pt").read_bytes()


@pytest.mark.parametrize(
    ("recipe", "workers"),
    [
        ({}, 0),
        ({}, 1),
        ({"ema_decay": 0.5}, 0),
        ({"optimiser": "adamw", "learning_rate_schedule": "cosine", "warmup": 2, "ema_decay": 0.9}, 0),
    ],
)
def test_a_killed_training_ends_with_the_same_weights_and_log(folder, monkeypatch, recipe, workers):
    context = job(config(training=recipe), JOB)
    facts = loop.train(context, device=CPU)
    straight, log = weights(context), (context.train_folder / "log.csv").read_text()
    (context.train_folder / "weights.pt").unlink()
    state = context.paths.state("train", JOB) / "state.pt"
    for path in state.parent.iterdir():
        path.unlink()
    killed(monkeypatch, 3, lambda: loop.train(context, device=CPU))
    assert checkpoint.read_state(state)["progression"]["step"] == 3
    again = loop.train(context, device=CPU, workers=workers)
    assert weights(context) == straight
    assert again["weights_sha256"] == facts["weights_sha256"]
    rows = [line.split(",")[:4] for line in (context.train_folder / "log.csv").read_text().splitlines()]
    assert rows == [line.split(",")[:4] for line in log.splitlines()], "all but the seconds"
    assert again["train_seconds"] > 0


def test_a_state_of_other_settings_is_not_continued(folder, monkeypatch):
    killed(monkeypatch, 3, lambda: loop.train(job(config(training={"initial_learning_rate": 0.5}), JOB), device=CPU))
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
    assert (facts["match"], facts["device"], facts["mode"]) == (None, "cpu", "exact")
    assert facts["precision"] == chosen_arithmetic(context.training, CPU).precision
    assert (facts["float32_repeats"], facts["retries"], facts["dead_output"]) == (0, [], {})
    assert [item["first_step"] for item in facts["attempts"]] == [0]
    assert facts["attempts"][0]["threads"] == torch.get_num_threads()
    assert facts["patches_per_second"] == pytest.approx(8 * 2 / facts["train_seconds"], rel=0.05)
    assert 0 <= facts["waiting_fraction"] < 1
    with open(context.train_folder / "log.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["iteration"]) for row in rows] == list(range(1, 9))
    assert {row["task"] for row in rows} == {"phantom_spleen", "phantom_petct"}
    for row in rows:
        expected = 0.01 * (1 - (int(row["iteration"]) - 1) / 8) ** 0.9
        assert float(row["learning_rate"]) == pytest.approx(expected, abs=1e-8)
        assert float(row["loss"]) > 0


def test_a_long_training_logs_the_mean_loss_of_each_window(folder, monkeypatch):
    context = job(config(training={"iterations_per_task": 6, "save_every_seconds": 1e9}), JOB)
    monkeypatch.setattr(loop, "LOG_ROWS", 2)
    monkeypatch.setattr(Stepper, "result", lambda self, step: StepResult(float(step.batch.number + 1), 1.0, None))
    training = loop.TrainingRun(context, CPU)
    training.run(0)
    assert [(row[0], row[2]) for row in training.progression.rows] == [(6, 3.5), (12, 9.5)]
    assert training.progression.rows[-1][3] == pytest.approx(0.01 * (1 - 11 / 12) ** 0.9), "the rate of the last step"
    assert training.progression.step == 12
    assert not training.state_path.exists(), "no state was due"


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


def test_the_drop_path_of_a_recipe_reaches_the_network():
    entry = {"name": "primus", "options": {"size": "S"}, "recipe": {"drop_path": 0.4}}
    settings = config(upstream={"models": [*CONTENT["upstream"]["models"], entry]})
    network = loop.new_model(job(settings, "upstream.primus.random.phantom_spleen.f0.s0.own"))
    rates = [module.drop_prob for module in network.modules() if hasattr(module, "drop_prob")]
    assert max(rates) == pytest.approx(0.4)


def test_a_downstream_network_is_trained_at_its_own_size(folder, monkeypatch):
    size = {"patch_size_zyx": [32, 16, 16], "base_features": 6}
    entry = {"name": "unetr", "initialisations": ["scratch"], "network": size, "recipe": "published"}
    context = job(
        config(downstream={"models": ["single_task", entry]}),
        "downstream.unetr.scratch.phantom_schwannoma.f0.s0.published",
    )
    shapes = []
    made = Stepper.step

    def step(self, images_BCZYX, *arguments, **options):
        shapes.append(tuple(images_BCZYX.shape[2:]))
        return made(self, images_BCZYX, *arguments, **options)

    monkeypatch.setattr(Stepper, "step", step)
    facts = loop.train(context, device=CPU)
    assert set(shapes) == {(32, 16, 16)}
    assert facts["parameters"] == sum(value.numel() for value in loop.new_model(context).parameters())
    assert isinstance(loop.TrainingRun(context, CPU).optimisation.optimiser, torch.optim.AdamW)


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_training_after_the_step_with_a_state_from_which_it_continues(folder, monkeypatch, number):
    context, before = job(config(training={"save_every_seconds": 1e9}), JOB), signal.getsignal(number)
    loop.train(context, device=CPU)
    straight = weights(context)
    made = Stepper.step

    def step(self, *arguments, **options):
        if options["number"] == 4:
            os.kill(os.getpid(), number)
        return made(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", step)
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as raised:
            loop.train(context, device=CPU)
    assert number == signal.SIGINT or raised.value.code == 143
    assert signal.getsignal(number) == before
    state = context.paths.state("train", JOB) / "state.pt"
    assert checkpoint.read_state(state)["progression"]["step"] == 5
    facts = loop.train(context, device=CPU)
    assert [item["first_step"] for item in facts["attempts"]] == [0, 5]
    assert weights(context) == straight


def test_sigusr1_saves_and_goes_on(folder, monkeypatch):
    context = job(config(training={"save_every_seconds": 1e9}), JOB)
    made, saved = loop.TrainingRun.save, []
    monkeypatch.setattr(loop.TrainingRun, "save", lambda self: saved.append(self.progression.step) or made(self))
    steps = Stepper.step

    def step(self, *arguments, **options):
        if options["number"] == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        return steps(self, *arguments, **options)

    monkeypatch.setattr(Stepper, "step", step)
    assert loop.train(context, device=CPU)["iterations"] == 8
    assert saved == [3]


def test_a_time_limit_ends_a_job_with_a_state_that_a_longer_one_continues(folder):
    short = job(config(training={"time_limit_hours": 1e-9, "save_every_seconds": 1e9}), JOB)
    with pytest.raises(RunFailed, match=r"more than training.time_limit_hours; its state is kept at step 1 of 8"):
        loop.train(short, device=CPU)
    facts = loop.train(job(config(training={"time_limit_hours": 1.0}), JOB), device=CPU)
    assert [item["first_step"] for item in facts["attempts"]] == [0, 1]


def test_other_threads_are_named_when_a_training_continues(folder, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    context = job(config(), JOB)
    killed(monkeypatch, 3, lambda: loop.train(context, device=CPU))
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 7)
    attempts = loop.train(context, device=CPU)["attempts"]
    assert [item["threads"] for item in attempts] == [threads, threads + 7]
    assert "continued with other threads: not the bytes of one process" in caplog.text


def test_the_half_written_state_of_a_killed_process_is_removed(folder):
    from segbench.core.files import part_prefix
    from tests.unit.experiment.processes import dead_pid

    context = job(config(), JOB)
    own = part_prefix()
    part = context.paths.state("train", JOB) / (own.replace(str(os.getpid()), str(dead_pid())) + "x-state.pt")
    part.parent.mkdir(parents=True)
    part.write_text("half")
    loop.train(context, device=CPU)
    assert not part.exists()


@pytest.mark.parametrize(("signals", "error"), [((signal.SIGKILL,), MemoryError), ((signal.SIGTERM,) * 2, SystemExit)])
def test_a_worker_that_dies_is_a_failure_of_the_machine(folder, monkeypatch, signals, error):
    """The second case is a signal to the whole group of processes: the training ends as if it alone had got it."""
    import psutil

    made, others = Stepper.step, psutil.Process().children()  # an earlier test may have left a pool of processes

    def step(self, *arguments, **options):
        if options["number"] == 1:
            (worker,) = [child for child in psutil.Process().children() if child not in others]
            if len(signals) > 1:
                os.kill(os.getpid(), signals[1])
            worker.send_signal(signals[0])
            worker.wait()
        return made(self, *arguments, **options)

    context = job(config(training={"save_every_seconds": 1e9, "iterations_per_task": 40}), JOB)
    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", step)
        with pytest.raises(error):
            loop.train(context, device=CPU, workers=1)
    assert loop.train(context, device=CPU)["iterations"] == 80


def test_weights_that_know_other_axes_are_trained_and_kept_inside_the_network_that_turns_images(folder):
    own = loop.new_model(job(config(), "downstream.single_task.scratch.phantom_schwannoma.f0.s0"))
    torch.save(own.state_dict(), "own.pt")
    start = {"name": "own", "file": "own.pt", "format": "imported", "axes": "yxz"}
    context = job(
        config(upstream={"self_supervised": []}, downstream={"initialisations": [start]}),
        "downstream.single_task.own.phantom_schwannoma.f0.s0",
    )
    facts = loop.train(context, device=CPU)
    assert facts["match"]["fraction"] == 1.0
    assert facts["forward_flops"] > 0
    saved = checkpoint.load_weights(context.train_folder / "weights.pt")
    assert saved.keys() == {f"network.{name}" for name in own.state_dict()}
    z, y, x = context.network.patch_size_zyx
    assert loop.new_model(context).network.spec.patch_size_zyx == (y, x, z)
