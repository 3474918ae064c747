"""The loss is the arithmetic that its docstring states."""

import math

import pytest
import torch

from segbench.core.task import Channel, Structure, Task, TaskSet
from segbench.training.losses import (
    known_channels,
    scale_loss,
    scale_weights,
    soft_dice_loss,
    summed_loss,
    training_loss,
)

TASK = Task("toy", "Toy", (Channel("CT", "CT"),), ("organ",), (Structure("organ", (1,), 2.0),))


class Stub(torch.nn.Module):
    """Only what the loss asks of a model."""

    activation = "softmax"
    class_loss = "mean"
    scale_rule = "nnunet"
    tasks = TaskSet([TASK])

    def targets(self, labels_BZYX, task):
        return torch.nn.functional.one_hot(labels_BZYX.long(), 2).movedim(-1, 1).float()


def test_soft_dice_by_hand():
    """p = (1, 1, 0, 0), t = (1, 0, 0, 0): Dice = 2 * 1 / (2 + 1)."""
    p = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 2, 2)
    t = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 2, 2)
    assert soft_dice_loss(p, t).item() == pytest.approx(1 - 2 / 3, abs=1e-5)


def test_an_empty_channel_predicted_empty_costs_nothing():
    zero = torch.zeros(1, 1, 2, 2, 2)
    assert soft_dice_loss(zero, zero).item() == pytest.approx(0.0, abs=1e-6)


def test_uniform_logits_give_the_entropy_and_half_a_dice():
    """K = 2, all voxels foreground, p = 1/2: cross-entropy ln 2; Dice 2 * 0.5 / (0.5 + 1) = 2/3."""
    logits = torch.zeros(1, 2, 2, 2, 2)
    targets = torch.stack([torch.zeros(2, 2, 2), torch.ones(2, 2, 2)])[None]
    assert scale_loss(logits, targets, "softmax").item() == pytest.approx(math.log(2) + 1 / 3, abs=1e-4)


def test_a_sigmoid_model_ignores_the_background_channel():
    targets = torch.stack([torch.zeros(2, 2, 2), torch.ones(2, 2, 2)])[None]
    logits = torch.zeros(1, 2, 2, 2, 2)
    changed = logits.clone()
    changed[:, 0] = 50
    assert scale_loss(logits, targets, "sigmoid") == scale_loss(changed, targets, "sigmoid")


def test_scale_weights_halve_leave_the_coarsest_out_and_sum_to_one():
    assert scale_weights(3) == pytest.approx([2 / 3, 1 / 3, 0])
    assert scale_weights(1) == [1.0]
    assert scale_weights(3, rule="halving") == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert scale_weights(2, rule="equal") == [0.5, 0.5]


def test_the_coarsest_scale_has_no_gradient():
    outputs = [torch.randn(1, 2, s, s, s, requires_grad=True) for s in (8, 4, 2)]
    labels = torch.randint(0, 2, (1, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    training_loss(Stub(), outputs, labels, TASK).backward()
    assert outputs[0].grad.abs().sum() > 0
    assert outputs[1].grad.abs().sum() > 0
    assert outputs[2].grad is None


def test_a_model_may_train_its_coarsest_scale():
    outputs = [torch.randn(1, 2, s, s, s, requires_grad=True) for s in (8, 4)]
    labels = torch.randint(0, 2, (1, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    model = Stub()
    model.scale_rule = "halving"
    training_loss(model, outputs, labels, TASK).backward()
    assert outputs[1].grad.abs().sum() > 0


def test_multitalent_sums_over_classes_and_takes_dice_over_the_batch():
    """Two samples, two classes, p = 1/2, one of four voxels foreground in the first sample's first class only.

    Cross-entropy ln 2 for each of 2 x 2; Dice of class 1: 2 * 0.5 / (8 * 0.5 + 1) = 1/5, of class 2: 0 / 4.
    """
    logits = torch.zeros(2, 3, 1, 2, 2)
    logits[:, 0] = 7  # the background, which does not count
    targets = torch.zeros(2, 3, 1, 2, 2)
    targets[0, 1, 0, 0, 0] = 1
    assert summed_loss(logits, targets).item() == pytest.approx(4 * math.log(2) - 1 / 5, abs=1e-6)


def test_multitalent_gives_nothing_for_an_empty_class_predicted_empty():
    logits = torch.full((1, 2, 1, 2, 2), -200.0)
    assert summed_loss(logits, torch.zeros(1, 2, 1, 2, 2)).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("activation", "class_loss"), [("softmax", "mean"), ("sigmoid", "mean"), ("sigmoid", "sum")])
def test_ignored_voxels_change_nothing(activation, class_loss):
    """Whatever the network answers there, and the loss is that of the other half when each term is a mean over it."""
    model = Stub()
    model.activation, model.class_loss = activation, class_loss
    labels = torch.randint(0, 2, (2, 4, 4, 4), generator=torch.Generator().manual_seed(1))
    logits = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    ignored = labels.clone()
    ignored[:, :, :, 2:] = 255
    changed = logits.clone()
    changed[..., 2:] += 3
    loss = training_loss(model, [logits], ignored, TASK)
    assert loss == training_loss(model, [changed], ignored, TASK)
    if class_loss == "mean":
        half = training_loss(model, [logits[..., :2].contiguous()], labels[..., :2].contiguous(), TASK)
        assert loss.item() == pytest.approx(half.item(), abs=1e-5)


def test_a_batch_of_ignored_voxels_alone_has_no_entropy():
    labels = torch.full((1, 4, 4, 4), 255)
    loss = training_loss(Stub(), [torch.randn(1, 2, 4, 4, 4)], labels, TASK)
    assert loss.item() == pytest.approx(0.0, abs=1e-5)


def test_batch_dice_is_that_of_the_batch_as_one_volume():
    """Two samples of four voxels, p = 1/2, one voxel of foreground in the first: (2 * 0.5) / (8 * 0.5 + 1) = 1/5.

    Per sample: 1 / 3 and 0 / 2 (the smoothing is nothing beside it), whose mean is 1/6.
    """
    probabilities = torch.full((2, 1, 1, 2, 2), 0.5)
    targets = torch.zeros(2, 1, 1, 2, 2)
    targets[0, 0, 0, 0, 0] = 1
    assert soft_dice_loss(probabilities, targets, batch_dice=True).item() == pytest.approx(1 - 1 / 5, abs=1e-4)
    assert soft_dice_loss(probabilities, targets).item() == pytest.approx(1 - 1 / 6, abs=1e-4)


def test_batch_dice_is_a_setting_of_the_whole_loss():
    labels = torch.zeros(2, 4, 4, 4, dtype=torch.long)
    labels[0, :2] = 1
    logits = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    as_one = training_loss(Stub(), [torch.cat(list(logits), 1)[None]], torch.cat(list(labels), 0)[None], TASK)
    assert training_loss(Stub(), [logits], labels, TASK, batch_dice=True).item() == pytest.approx(
        as_one.item(), abs=1e-5
    )
    assert training_loss(Stub(), [logits], labels, TASK).item() != pytest.approx(as_one.item(), abs=1e-3)


def three_classes(activation="softmax", class_loss="mean"):
    task = Task("toy", "Toy", (Channel("CT", "CT"),), ("a", "b"), (Structure("a", (1,), 2.0),))

    class Three(Stub):
        tasks = TaskSet([task])

        def targets(self, labels_BZYX, task):
            return torch.nn.functional.one_hot(labels_BZYX.long(), 3).movedim(-1, 1).float()

    model = Three()
    model.activation, model.class_loss = activation, class_loss
    return model, task


def partly(model, task, logits, labels, annotated, **options):
    return training_loss(model, [logits], labels, task, annotated=annotated, **options)


RANDOM = torch.Generator().manual_seed(3)
LOGITS = torch.randn(2, 3, 2, 4, 4, generator=RANDOM)
LABELS = torch.randint(0, 2, (2, 2, 4, 4), generator=RANDOM, dtype=torch.uint8)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_a_class_that_nobody_looked_for_is_background_as_the_marginal_loss_has_it(batch_dice):
    """With class 2 unknown everywhere the loss is that of two classes, whose background has the sum of exponentials."""
    model, task = three_classes()
    found = partly(model, task, LOGITS, LABELS, [(1,), (1,)], batch_dice=batch_dice)
    merged = torch.stack([LOGITS[:, [0, 2]].logsumexp(1), LOGITS[:, 1]], 1)
    expected = training_loss(Stub(), [merged], LABELS, TASK, batch_dice=batch_dice)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(("activation", "class_loss"), [("softmax", "mean"), ("sigmoid", "mean"), ("sigmoid", "sum")])
def test_an_unknown_class_may_be_predicted_where_it_would_cost_a_known_background(activation, class_loss):
    model, task = three_classes(activation, class_loss)
    labels = torch.zeros_like(LABELS)
    claims = LOGITS.clone()
    claims[:, 2] += 20
    cost = [partly(model, task, logits, labels, [(1,), (1,)]).item() for logits in (LOGITS, claims)]
    full = [partly(model, task, logits, labels, None).item() for logits in (LOGITS, claims)]
    assert cost[1] <= cost[0] + 1e-4
    assert full[1] > full[0] + 1


def test_all_classes_annotated_is_the_loss_without_a_word_on_it():
    model, task = three_classes()
    without = training_loss(model, [LOGITS], LABELS, task)
    assert partly(model, task, LOGITS, LABELS, [None, None]) == without
    assert partly(model, task, LOGITS, LABELS, [(1, 2), None]).item() == pytest.approx(without.item(), abs=1e-5)


def test_a_channel_of_several_classes_is_known_where_all_of_them_are():
    model, task = three_classes("sigmoid")
    model.targets = lambda labels, task: torch.stack([labels == 0, labels > 0, labels == 2], 1).float()
    known = known_channels(model, task, [(1,), (2,), (1, 2), None])
    assert known.tolist() == [[True, False, False], [True, False, True], [True, True, True], [True, True, True]]
    assert known_channels(model, task, [None, None]) is None


def test_labels_without_ignored_voxels_need_not_be_asked():
    logits, labels = torch.randn(2, 2, 4, 4, 4), torch.randint(2, (2, 4, 4, 4))
    assert training_loss(Stub(), [logits], labels, TASK, ignored=False) == training_loss(Stub(), [logits], labels, TASK)
