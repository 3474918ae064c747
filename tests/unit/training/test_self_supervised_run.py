"""Self-supervised objectives inside the training loop: no labels, same bytes after a kill, weights for downstream."""

import json

import numpy as np
import pytest
import torch

from models.loader import build_model
from segbench.core.errors import InputError, RunFailed
from segbench.core.paths import RunPaths
from segbench.data import store
from segbench.experiment.jobs import all_jobs, evaluation_jobs, expected_keys
from segbench.experiment.result_record import ResultRecord
from segbench.training import loop
from segbench.training.data import BatchStream
from segbench.training.initialise import initialise
from tests.unit.training.small_run import OBJECTIVES, config, killed, write_data
from tests.unit.written_run import job, splits_of

CPU = torch.device("cpu")
PATHS = RunPaths("small")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with preprocessed cases."""
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def upstream(name):
    return f"upstream.{name}.random.joint.f0.s0"


def downstream(name):
    return f"downstream.single_task.{name}.phantom_schwannoma.f0.s0"


def train(settings, job_id):
    context = job(settings, job_id)
    facts = loop.train(context, device=CPU)
    ResultRecord.of(context.train_folder, context.identity, facts, ["weights.pt"]).write(context.train_folder)
    for path in PATHS.state("train", job_id).iterdir():
        path.unlink()  # as `run_job` does when the outcome is written
    return facts, (PATHS.train(job_id) / "weights.pt").read_bytes()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_killed_objective_ends_with_the_same_bytes_and_starts_a_downstream_network(name, folder, monkeypatch):
    settings = config()
    facts, straight = train(settings, upstream(name))
    assert facts["iterations"] == 8
    killed(monkeypatch, 3, lambda: train(settings, upstream(name)))
    assert (PATHS.state("train", upstream(name)) / "state.pt").exists()
    (PATHS.train(upstream(name)) / "weights.pt").unlink()
    assert train(settings, upstream(name))[1] == straight

    match = train(settings, downstream(name))[0]["match"]
    prefixes = tuple(settings.card(name)["encoder_keys"])
    assert match["matched"]
    assert all(key.startswith(prefixes) for key in match["matched"])
    assert "encoder.stem.conv.channels_1.weight" in match["matched"]
    assert not any(key.startswith(prefixes) for key in match["missing"])


def test_labels_change_nothing_because_they_are_never_read(folder, monkeypatch):
    _, weights = train(config(), upstream("restoration"))
    other = folder / "other"
    write_data(other, label=9)
    assert len(store.open_case(other / "preprocessed" / "phantom_spleen" / "a").foreground(9)), "the labels do differ"
    monkeypatch.chdir(other)
    for place in (other / "preprocessed").glob("*/*/labels.b2nd"):
        former = place.stat().st_size
        place.write_bytes(b"\0" * former)  # of the length that is recorded, and no array
    assert train(config(training={"foreground_fraction": 1.0}), upstream("restoration"))[1] == weights


def test_patches_lie_anywhere_in_the_training_cases(folder):
    settings = config(training={"foreground_fraction": 1.0, "augmentation": "none", "iterations_per_task": 40})
    seen = set()
    stream = BatchStream(job(settings, upstream("restoration")))
    for position, images_BCZYX, labels_BZYX, case_ids in (stream[step] for step in range(len(stream))):
        assert not labels_BZYX.any()
        assert set(case_ids) <= {"a", "b"}
        if position == 0:
            seen |= {(case, float(image[0, 0, 0, 0])) for case, image in zip(case_ids, images_BCZYX, strict=True)}
    starts = 5 * 3 * 1
    assert len(seen) > 0.6 * 2 * starts, "both cases, most of the places where a patch fits"


def test_an_objective_is_trained_and_never_scored():
    settings = config()
    names = {job.id for job in all_jobs(settings)} - {job.id for job in evaluation_jobs(settings)}
    assert names == {upstream(name) for name in OBJECTIVES}
    splits = splits_of({"0": {task.name: {"train": ["a"], "test": ["c"]} for task in settings.tasks}})
    keys = list(expected_keys(settings, splits))
    assert not [key for key in keys if key[1] in OBJECTIVES]
    assert {key[2] for key in keys if key[0] == "downstream"} >= set(OBJECTIVES)


def test_a_failed_objective_fails_what_starts_from_it(folder):
    settings = config()
    context = job(settings, downstream("restoration"))
    with pytest.raises(RunFailed, match=r"upstream\.restoration.*no weights because it failed"):
        initialise(context, loop.new_model(context))


def test_what_is_transferred_follows_the_card_of_the_source(folder):
    """cond_decoder hands over its encoder alone, though its decoder is named alike; dodnet_original fits nowhere."""
    settings = config()
    train(settings, upstream("cond_decoder"))
    facts, _ = train(settings, downstream("cond_decoder"))
    assert facts["match"]["matched"]
    assert all(key.startswith("encoder.") for key in facts["match"]["matched"])

    source = job(settings, upstream("dodnet_original"))
    weights = build_model("dodnet_original", source.tasks, loop.network_spec(settings.network)).state_dict()
    source.train_folder.mkdir(parents=True)
    torch.save(weights, source.train_folder / "weights.pt")
    ResultRecord.of(source.train_folder, source.identity, {}, ["weights.pt"]).write(source.train_folder)
    context = job(settings, downstream("dodnet_original"))
    with pytest.raises(InputError, match=r"0\.0 % of the parameters that the source hands over match"):
        initialise(context, loop.new_model(context))


def test_a_loss_that_is_not_finite_names_step_and_cases(folder, monkeypatch):
    from segbench.training.self_supervised.restoration import Restoration

    monkeypatch.setattr(Restoration, "forward", lambda self, images, rng: self.reconstruct(images).sum() * np.nan)
    with pytest.raises(RunFailed, match=r"the loss is nan at step 0 of upstream\.restoration.*cases [ab]"):
        train(config(), upstream("restoration"))


def test_the_outcome_names_the_code_of_the_objective_apart(folder):
    settings = config()
    facts = [train(settings, upstream(name))[0] for name in ("restoration", "masked_autoencoder")]
    assert facts[0]["training_code"] == facts[1]["training_code"]
    assert facts[0]["model_code"] != facts[1]["model_code"]
    json.dumps(facts)
