"""A task's images are labelled for its own classes only: what the loss of one task leaves alone."""

import pytest
import torch

from models.loader import build_model
from segbench.training.losses import training_loss
from tests.unit.models.small import LIVER, SPEC, SPLEEN, TASKS, images


def backward(model, task):
    """Let one task's loss on random labels reach the parameters."""
    labels_BZYX = torch.randint(task.num_classes, (1, *SPEC.patch_size_zyx), generator=torch.Generator().manual_seed(1))
    training_loss(model, model(images(), task), labels_BZYX, task).backward()


def test_channels_of_other_classes_get_no_gradient():
    """One sigmoid channel per class of a task: liver, its tumour, the lung's tumour, spleen."""
    model = build_model("multitalent", TASKS, SPEC)
    backward(model, LIVER)
    learns = model.heads.convs[0].weight.grad.flatten(1).abs().sum(dim=1) > 0
    assert learns.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("name", "vectors"), [("clip_driven", "class_vectors"), ("clip_driven_original", "organ_embedding")]
)
def test_vectors_of_other_classes_get_no_gradient(name, vectors):
    """Class names are shared: liver, tumour, spleen."""
    for task, expected in ((LIVER, [True, True, False]), (SPLEEN, [False, False, True])):
        model = build_model(name, TASKS, SPEC)
        getattr(model, vectors).requires_grad_()
        backward(model, task)
        assert (getattr(model, vectors).grad.abs().sum(dim=1) > 0).tolist() == expected


def test_unlabelled_classes_count_as_background():
    """TAL: the probability of background is the sum over background and the classes of the other tasks."""
    model = build_model("tal", TASKS, SPEC).eval()
    with torch.no_grad():
        features = model.encode(images())
        shared_BAZYX = model.heads(features)[0].softmax(dim=1)
        own_BKZYX = model.decode(features, LIVER)[0].softmax(dim=1)
    torch.testing.assert_close(own_BKZYX[:, 1:], shared_BAZYX[:, 1:3])
    torch.testing.assert_close(own_BKZYX[:, 0], shared_BAZYX[:, [0, 3, 4]].sum(dim=1))
