"""Dice on held-out training cases: it is right, it is the same after a kill, and the training does not notice it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segbench.core.errors import InputError
from segbench.core.files import write_json
from segbench.core.task import IGNORED
from segbench.data.store import open_case, write_case
from segbench.training import loop
from segbench.training.checkpoint import load_weights
from segbench.training.compilation import compile_regions
from segbench.training.validation import Validation, validation_steps
from tests.unit.training.small_run import CHANNELS, config, killed, write_manifests
from tests.unit.written_run import job, splits_content

CPU = torch.device("cpu")
JOB = "upstream.uniseg.random.joint.f0.s0"
MATCHED = "upstream.dodnet_original.random.joint.f0.s0"


@pytest.fixture
def run(folder):
    """The small run with manifests: of two training patients one is held out."""
    write_manifests()
    return folder


def held_out(job_id=JOB, *, points=4, **training):
    keys = {"validation_fraction": 0.5, "validation_points": points, "save_every_seconds": 1e9}
    return job(config(training=keys | training), job_id)


def measured(facts):
    return {name: value for name, value in facts["validation"].items() if name != "seconds"}


def test_dice_is_measured_at_even_steps_of_which_the_last_is_the_end():
    assert validation_steps(1000, 10) == list(range(100, 1001, 100))
    assert validation_steps(8, 3) == [2, 5, 8]
    assert validation_steps(7, 1) == [7]
    assert validation_steps(2, 10) == [1, 2], "never more often than there are steps"


@pytest.mark.parametrize("job_id", [JOB, MATCHED], ids=["instance norm", "weight standardisation"])
def test_the_weights_are_the_same_bytes_however_often_dice_is_measured(run, job_id, monkeypatch):
    found = {}
    for points in (1, 4):
        context = held_out(job_id, points=points)
        facts = loop.train(context, device=CPU)
        assert facts["validation"]["steps"] == validation_steps(facts["iterations"], points)
        found[points] = (context.train_folder / "weights.pt").read_bytes()
    monkeypatch.setattr(loop.TrainingRun, "_validate", lambda self: False)
    context = held_out(job_id, points=3)
    loop.train(context, device=CPU)
    assert found[1] == found[4] == (context.train_folder / "weights.pt").read_bytes()


@pytest.mark.parametrize("recipe", [{}, {"ema_decay": 0.5}], ids=["weights", "averaged weights"])
def test_the_last_point_is_the_dice_of_the_weights_that_are_scored(run, recipe):
    context = held_out(**recipe)
    facts = loop.train(context, device=CPU)
    assert measured(facts).keys() == {"tasks", "cases", "steps", "dice", "seen_dice"}
    assert facts["validation"]["tasks"] == ["phantom_spleen", "phantom_petct"]
    assert facts["validation"]["cases"] == [1, 1]
    assert [len(values) for values in facts["validation"]["dice"]] == [2] * 4
    json.dumps(facts["validation"])
    model = loop.new_model(context)
    model.load_state_dict(load_weights(context.train_folder / "weights.pt"))
    validation = Validation(context, 8, precision=facts["precision"])
    again = validation.measure(model)
    assert again == facts["validation"]["dice"][-1]
    assert any(value > 0 for value in again)
    assert validation.measure_seen(model) == facts["validation"]["seen_dice"] != again


@pytest.mark.parametrize("saved", [2, 3, 4], ids=["at a point", "between points", "at the next point"])
def test_a_killed_training_has_the_same_points_and_weights(run, monkeypatch, saved):
    context = held_out(save_every_seconds=1e-9)
    expected = measured(loop.train(context, device=CPU))
    straight = (context.train_folder / "weights.pt").read_bytes()
    for path in context.paths.state("train", JOB).iterdir():
        path.unlink()
    killed(monkeypatch, saved, lambda: loop.train(context, device=CPU))
    assert measured(loop.train(context, device=CPU)) == expected
    assert (context.train_folder / "weights.pt").read_bytes() == straight


def test_the_time_of_measuring_is_no_time_of_training(run, monkeypatch):
    clock = [0.0]
    measure, step = Validation._measured, loop.Stepper.step

    def slow_measure(self, *arguments):
        clock[0] += 100.0
        return measure(self, *arguments)

    def quick_step(self, *arguments, **options):
        clock[0] += 1.0
        return step(self, *arguments, **options)

    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Validation, "_measured", slow_measure)
    monkeypatch.setattr(loop.Stepper, "step", quick_step)
    facts = loop.train(held_out(), device=CPU)
    assert facts["train_seconds"] == 8.0
    assert facts["validation"]["seconds"] == 500.0


def test_no_model_learns_from_a_held_out_case(run):
    contexts = [held_out(name) for name in (JOB, MATCHED, "upstream.restoration.random.joint.f0.s0")]
    for task in ("phantom_spleen", "phantom_petct"):
        (out,) = {context.validation_cases(task) for context in contexts}
        assert len(out) == 1
        for context in contexts:
            if task not in context.tasks.names:
                continue
            stream, own = loop.BatchStream(context), context.tasks.names.index(task)
            drawn = {case for step in range(len(stream)) if stream[step][0] == own for case in stream[step][3]}
            assert drawn == set(context.training_cases(task))
            assert out[0] not in drawn


def test_cases_that_were_trained_on_are_measured_at_the_end_as_many_as_are_held_out(run):
    context = held_out()
    for task in context.tasks.names:
        assert len(context.seen_cases(task)) == len(context.validation_cases(task)) == 1
        assert set(context.seen_cases(task)) <= set(context.training_cases(task))
    assert job(config(), JOB).seen_cases("phantom_spleen") == ()


def test_nothing_is_measured_of_an_objective_nor_without_a_fraction(run):
    objective = loop.train(held_out("upstream.restoration.random.joint.f0.s0"), device=CPU)
    without = loop.train(job(config(training={"validation_points": 3}), JOB), device=CPU)
    assert "validation" not in objective | without


class Answer(nn.Module):
    """A network that says what it is told, whatever it sees: labels of a volume as large as its window."""

    def __init__(self, labels_ZYX):
        super().__init__()
        self.weight, self.norm = nn.Parameter(torch.zeros(1)), nn.Dropout()
        one_hot = torch.eye(2)[torch.as_tensor(labels_ZYX, dtype=torch.long)]
        self.answer_BKZYX = one_hot.permute(3, 0, 1, 2)[None].contiguous()
        self.modes = []
        self.spec = SimpleNamespace(base_features=4)

    def check_input(self, images_BCZYX: Tensor, task: object) -> None:
        """Take anything."""

    def encode(self, windows_BCZYX):
        self.modes.append(self.norm.training)
        torch.rand(3)
        return windows_BCZYX

    def decode(self, features, task):
        return [self.answer_BKZYX]

    def probabilities(self, logits_BKZYX, task):
        return logits_BKZYX


def answered(run, reference_ZYX, predicted_ZYX, meta):
    """Return the mean Dice of spleen when the held-out case has this reference and gets this prediction."""
    context = held_out()
    (case,) = context.validation_cases("phantom_spleen")
    place = run / "answered"
    write_case(place, np.zeros((1, *reference_ZYX.shape)), reference_ZYX, {"case_id": case} | meta)
    validation = Validation(context, 8, precision="float32")
    validation.tasks = [context.tasks["phantom_spleen"]]
    validation.cases = [[open_case(place)]]
    validation.windows = type(validation.windows)(reference_ZYX.shape)
    model = Answer(predicted_ZYX)
    (dice,) = validation.measure(model)
    return dice, model


def test_dice_of_a_case_is_twice_the_shared_voxels_by_those_of_both_masks(run):
    reference_ZYX, predicted_ZYX = np.zeros((2, 4, 4, 4), dtype=np.uint8)
    reference_ZYX[0, 0, :3] = 1
    predicted_ZYX[0, 0, 1:] = 1  # 3 and 3 voxels, 2 of them shared
    assert answered(run, reference_ZYX, predicted_ZYX, {})[0] == pytest.approx(4 / 6, abs=1e-6)


def test_ignored_voxels_count_nowhere(run):
    reference_ZYX, predicted_ZYX = np.zeros((2, 4, 4, 4), dtype=np.uint8)
    reference_ZYX[0], reference_ZYX[1] = 1, IGNORED
    predicted_ZYX[:2] = 1
    assert answered(run, reference_ZYX, predicted_ZYX, {})[0] == 1.0


def test_a_task_without_any_structure_to_compare_has_no_dice(run):
    reference_ZYX = np.zeros((4, 4, 4), dtype=np.uint8)
    assert answered(run, reference_ZYX, reference_ZYX, {})[0] is None


def test_a_class_that_nobody_looked_for_has_no_dice(run):
    reference_ZYX = np.zeros((4, 4, 4), dtype=np.uint8)
    assert answered(run, reference_ZYX, np.ones_like(reference_ZYX), {"annotated": []})[0] is None


def test_modes_and_generators_are_afterwards_as_before(run):
    reference_ZYX = np.ones((4, 4, 4), dtype=np.uint8)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    dice, model = answered(run, reference_ZYX, reference_ZYX, {})
    assert dice == 1.0
    assert model.modes == [False]
    assert model.training
    assert model.norm.training
    assert torch.equal(torch.rand(2), expected)


def test_what_is_compiled_for_training_is_not_compiled_for_a_few_windows(run):
    context, compiled = held_out(), []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    model = loop.new_model(context)
    expected = Validation(context, 8, precision="float32").measure(model)
    assert compile_regions(model, backend=backend) > 0
    assert Validation(context, 8, precision="float32", compiled=True).measure(model) == expected
    assert not compiled
    with torch.no_grad():
        model.train()(torch.zeros(1, 1, *context.network.patch_size_zyx), context.tasks["phantom_spleen"])
    assert compiled, "training goes on compiled"


def test_fewer_than_two_training_patients_are_refused(run):
    sides = {task: {"train": ["a"], "test": ["c"]} for task in CHANNELS}
    write_json(held_out().paths.splits, splits_content({"0": sides}))
    with pytest.raises(InputError, match=r"training patients of phantom_spleen, fold 0: found 1; expected at least 2"):
        loop.train(held_out(), device=CPU)
