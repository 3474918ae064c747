"""Dead output: counted per task, only where there is foreground, reported after a stated number of steps."""

import logging

import pytest
import torch

from segbench.training.guards import DEAD_AFTER_STEPS, DeadOutput, foreground_counts


def test_a_task_whose_foreground_is_never_predicted_is_reported_once(caplog):
    caplog.set_level(logging.WARNING)
    watch = DeadOutput({})
    for number in range(DEAD_AFTER_STEPS + 20):
        watch.see("liver", True)
        watch.see("spleen", number != 50)
        watch.see("lung", None)
    assert watch.report() == {"liver": DEAD_AFTER_STEPS + 20}
    assert caplog.text.count("dead output: liver is all background in the last 100 steps of the task") == 1
    assert "spleen" not in caplog.text
    watch.see("liver", False)
    assert watch.report() == {}


def test_the_counts_are_stored():
    steps = {"liver": DEAD_AFTER_STEPS}
    assert DeadOutput(steps).report() == steps


LOGITS = {"softmax": ([0.0, 1.0, -1.0], [2.0, 1.0, 1.5]), "sigmoid": ([5.0, -1.0, 1.0], [-5.0, -1.0, -0.1])}


@pytest.mark.parametrize("activation", LOGITS)
def test_foreground_is_where_a_class_wins(activation):
    some, none = (torch.tensor(values).reshape(1, 3, 1, 1, 1) for values in LOGITS[activation])
    for label, holds in ((0, 0.0), (2, 1.0), (255, 0.0)):
        labels = torch.full((1, 1, 1, 1), label, dtype=torch.uint8)
        assert foreground_counts(some, labels, activation=activation).tolist() == [holds, 1.0]
        assert foreground_counts(none, labels, activation=activation).tolist() == [holds, 0.0]
