"""The stream of batches: the settings that reach it, and the same batches for any number of workers."""

import copy

import pytest
import torch

from segbench.data.sampling import PatchSampler
from segbench.data.store import PreprocessedCase
from segbench.evaluation.predictors import network
from segbench.experiment.config import parse_config
from segbench.experiment.context import JobContext
from segbench.experiment.splits import Sides
from segbench.training import data
from segbench.training.data import BatchStream
from tests.unit.training.small_run import CONTENT, config
from tests.unit.written_run import job

JOB = "upstream.uniseg.random.joint.f0.s0"


def test_the_second_of_two_samples_is_forced_in_every_batch(folder, monkeypatch):
    seen, start = [], PatchSampler._start

    def watched(self, case, rng, *, forced: bool):
        seen.append(forced)
        return start(self, case, rng, forced=forced)

    monkeypatch.setattr(PatchSampler, "_start", watched)
    stream = BatchStream(job(config(training={"iterations_per_task": 20}), JOB))
    for step in range(len(stream)):
        stream[step]
    assert seen == [False, True] * len(stream)


def test_workers_give_the_same_batches(folder):
    stream = BatchStream(job(config(training={"augmentation": "full"}), JOB))
    alone, others = (list(stream.loader(2, workers)) for workers in (0, 2))
    assert len(alone) == len(stream) - 2
    for one, other in zip(alone, others, strict=True):
        assert one[0] == other[0]
        assert one[3] == other[3]
        assert torch.equal(one[1], other[1])
        assert torch.equal(one[2], other[2])


@pytest.mark.parametrize(("mirror_sides", "axes"), [(False, (0, 1)), (True, (0, 1, 2))])
def test_training_and_prediction_mirror_the_same_axes(folder, monkeypatch, mirror_sides, axes):
    content = copy.deepcopy(CONTENT) | {"inference": {"mirror_axes": [0, 1, 2]}}
    content["training"] |= {"mirror_sides": mirror_sides, "augmentation": "full"}
    content["upstream"] = {"tasks": ["phantom_abdomen13"], "models": ["uniseg"]}
    del content["downstream"]
    context = job(parse_config(content, where="test"), JOB)
    monkeypatch.setattr(data, "open_case", lambda folder: PreprocessedCase(folder, folder, {}))
    monkeypatch.setattr(JobContext, "folder", lambda self, task, case: case)
    monkeypatch.setattr(JobContext, "sides", lambda self, task: Sides(("a",), ("b",)))
    assert BatchStream(context).samplers[0].augmentation.mirror_axes == axes
    assert network.windows_of(context, list(context.tasks)).mirror_axes == axes
