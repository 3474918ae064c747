"""Generated heads agree with plain convolutions; the original's two sigmoid channels serve exclusive classes."""

from dataclasses import replace

import torch
from torch.nn import functional

from models.blocks.dynamic_head import dynamic_head, dynamic_heads, head_outputs, head_sizes
from models.loader import build_model
from segbench.core.task import Structure, TaskSet
from tests.unit.models.small import LIVER, LUNG, SPEC, SPLEEN, TASKS, make_task


def test_sizes_of_the_released_heads():
    assert head_sizes(2) == [64, 64, 16, 8, 8, 2]
    assert (sum(head_sizes(2)), sum(head_sizes(1))) == (162, 153)
    assert [head_outputs(count) for count in (162, 153, 3)] == [2, 1, 1]


def test_a_generated_head_is_three_convolutions():
    generator = torch.Generator().manual_seed(0)
    x_BCZYX = torch.randn(2, 8, 2, 3, 4, generator=generator)
    parameters_BHP = torch.randn(2, 3, sum(head_sizes(5)), generator=generator)
    found = dynamic_heads(x_BCZYX, parameters_BHP, 5)
    for sample in range(2):
        for head in range(3):
            w1, w2, w3, b1, b2, b3 = parameters_BHP[sample, head].split(head_sizes(5))
            y = functional.conv3d(x_BCZYX[sample : sample + 1], w1.view(8, 8, 1, 1, 1), b1).relu()
            y = functional.conv3d(y, w2.view(8, 8, 1, 1, 1), b2).relu()
            y = functional.conv3d(y, w3.view(5, 8, 1, 1, 1), b3)
            torch.testing.assert_close(found[sample, head], y[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dynamic_head(x_BCZYX, parameters_BHP[:, 1], 5), found[:, 1], rtol=1e-4, atol=1e-4)


def original():
    torch.manual_seed(0)
    return build_model("dodnet_original", TASKS, SPEC).eval()


def test_the_tumour_wins_over_its_organ():
    """Organ 0.9 and tumour 0.6: tumour. Organ 0.9, tumour 0.4: organ. Organ 0.4, tumour 0.4: background."""
    logits = torch.logit(torch.tensor([[0.9, 0.6], [0.9, 0.4], [0.4, 0.4], [0.1, 0.7]]))
    logits_BKZYX = torch.cat([torch.zeros(4, 1), logits], dim=1)[:, :, None, None, None]
    assert original().probabilities(logits_BKZYX, LIVER).argmax(1).flatten().tolist() == [2, 1, 0, 2]


def test_beside_a_vessel_the_likelier_class_wins():
    """Hepatic vessels do not hold the tumour: vessel 0.9 and tumour 0.6 is a vessel, 0.6 and 0.9 a tumour."""
    logits = torch.logit(torch.tensor([[0.9, 0.6], [0.6, 0.9], [0.4, 0.4]]))
    logits_BKZYX = torch.cat([torch.zeros(3, 1), logits], dim=1)[:, :, None, None, None]
    vessel = make_task("vessel", ["vessel", "tumour"], tumours={2: None})
    assert original().probabilities(logits_BKZYX, vessel).argmax(1).flatten().tolist() == [1, 2, 0]
    assert original().targets(torch.tensor([[[[0, 1, 2]]]]), vessel)[0, :, 0, 0].tolist() == torch.eye(3).tolist()


def test_the_organ_is_trained_with_its_tumour():
    labels_BZYX = torch.tensor([0, 1, 2]).reshape(1, 1, 1, 3)
    targets_KX = original().targets(labels_BZYX, LIVER)[0, :, 0, 0]
    assert targets_KX.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert original().targets(torch.tensor([[[[0, 1]]]]), SPLEEN)[0, :, 0, 0].tolist() == [[1, 0], [0, 1]]


def test_a_lesion_alone_uses_the_tumour_channel():
    model = original()
    images_BCZYX = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for task, channel in ((LUNG, 1), (SPLEEN, 0)):
            both = model.forward_index(images_BCZYX, TASKS.index(task))
            assert torch.equal(model(images_BCZYX, task)[0][:, 1], both[:, channel])


def test_many_classes_have_a_channel_each():
    organs = make_task("organs", [f"organ {number}" for number in range(13)])
    model = build_model("dodnet_original", TaskSet([LIVER, organs]), SPEC).eval()
    images_BCZYX = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(model(images_BCZYX, organs)[0][:, 1:], model.forward_index(images_BCZYX, 1))
        assert torch.equal(model(images_BCZYX, LIVER)[0][:, 1:], model.forward_index(images_BCZYX, 0)[:, :2])


def test_what_is_scored_changes_no_channel():
    scored_otherwise = replace(LUNG, structures=(Structure("tumour", (1,), 1.0),))
    model = build_model("dodnet_original", TaskSet([scored_otherwise, SPLEEN]), SPEC).eval()
    images_BCZYX = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        both = model.forward_index(images_BCZYX, 0)
        assert torch.equal(model(images_BCZYX, scored_otherwise)[0][:, 1], both[:, 1])
