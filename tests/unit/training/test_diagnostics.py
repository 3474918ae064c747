"""Diagnostics of a network in the course of its training: when, in which form, and after an interruption."""

import json

import pytest
import torch

from segbench.training import loop
from segbench.training.diagnostics import POINTS, diagnostic_steps
from segbench.training.guards import Diverged
from segbench.training.step import Stepper
from tests.unit.training.small_run import config, killed
from tests.unit.training.test_loop import CPU, JOB
from tests.unit.written_run import job

TASKS = ["phantom_spleen", "phantom_petct"]


def test_points_are_the_start_the_end_and_eight_between():
    assert diagnostic_steps(900) == [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]
    assert diagnostic_steps(4) == [0, 1, 2, 3, 4], "each step once"
    assert len(diagnostic_steps(12_345)) == POINTS + 2


def test_uniseg_records_how_alike_its_prompts_are_from_before_training_to_its_end(folder):
    context = job(config(), JOB)
    facts = loop.train(context, device=CPU)
    found = facts["prompt_similarity"]
    assert found["tasks"] == TASKS
    assert found["steps"] == list(range(9))
    assert [len(matrix) for matrix in found["cosine"]] == [2] * 9
    for prompt, matrix in (
        (loop.new_model(context).prompt.prompt, found["cosine"][0]),
        (trained_prompt(context), found["cosine"][-1]),
    ):
        one, other = prompt[0].flatten(1)
        assert matrix[0][0] == matrix[1][1] == 1.0
        assert matrix[0][1] == matrix[1][0] == pytest.approx((one @ other / one.norm() / other.norm()).item(), abs=6e-5)
        assert matrix[0][1] == round(matrix[0][1], 4)
    json.dumps(facts, allow_nan=False)


def trained_prompt(context) -> torch.Tensor:
    return torch.load(context.train_folder / "weights.pt", weights_only=True)["prompt.prompt"]


def test_averaged_weights_are_the_ones_whose_diagnostics_are_recorded(folder):
    context = job(config(training={"ema_decay": 0.9}), JOB)
    found = loop.train(context, device=CPU)["prompt_similarity"]
    one, other = trained_prompt(context)[0].flatten(1)
    assert found["cosine"][-1][0][1] == pytest.approx((one @ other / one.norm() / other.norm()).item(), abs=6e-5)


def test_a_network_without_a_learned_prompt_records_nothing(folder):
    facts = loop.train(job(config(), "upstream.cond_decoder.random.joint.f0.s0"), device=CPU)
    assert "prompt_similarity" not in facts


@pytest.mark.parametrize("kill", [1, 4, 7])
def test_a_killed_training_ends_with_the_same_diagnostics(folder, monkeypatch, kill):
    context = job(config(), JOB)
    straight = loop.train(context, device=CPU)["prompt_similarity"]
    for path in context.paths.state("train", JOB).iterdir():
        path.unlink()
    killed(monkeypatch, kill, lambda: loop.train(context, device=CPU))
    assert loop.train(context, device=CPU)["prompt_similarity"] == straight


def test_a_training_that_goes_back_records_each_step_once(folder, monkeypatch):
    monkeypatch.setattr(loop, "GOOD_EVERY", 3)
    made, failed = Stepper.result, []

    def result(self, step):
        if step.batch.number == 5 and not failed:
            failed.append(1)
            raise Diverged("loss", float("nan"))
        return made(self, step)

    monkeypatch.setattr(Stepper, "result", result)
    facts = loop.train(job(config(), JOB), device=CPU)
    assert len(facts["retries"]) == 1
    assert facts["prompt_similarity"]["steps"] == list(range(9))
    assert len(facts["prompt_similarity"]["cosine"]) == 9
