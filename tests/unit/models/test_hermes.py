"""Both forms of Hermes serve tasks of several channel counts; the concept meets priors at five levels."""

import pytest
import torch

from models.loader import build_model, model_card
from models.titles import title_for
from segbench.core.errors import InputError
from segbench.core.task import TaskSet
from tests.unit.models.small import LIVER, LUNG, SPEC, SPLEEN, images, make_task

PETCT = make_task("petct", ["lesion"], channels=2)
TASKS = TaskSet([LIVER, LUNG, SPLEEN, PETCT])


def built(name="hermes_original", seed=0, **options):
    torch.manual_seed(seed)
    return build_model(name, TASKS, SPEC, **options)


@pytest.mark.parametrize(("form", "outputs"), [("medformer", 2), ("unet", 1)])
def test_each_form_answers_at_full_resolution_and_learns(form, outputs):
    model = built(form=form)
    for task in TASKS:
        images_BCZYX = images(channels=task.num_channels, size_zyx=(16, 32, 32))
        logits = model(images_BCZYX, task)
        assert [tuple(each.shape) for each in logits] == [(1, task.num_classes, 16, 32, 32)] * outputs
        sum(each.square().mean() for each in logits).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert model.scale_rule == "equal", "the original weighs both outputs equally"


def test_the_order_of_the_classes_asked_is_the_order_of_the_answer():
    """Liver and tumour are rows 0 and 1 of every prior, spleen is row 3; the lung's tumour has a row of its own."""
    model = built().eval()
    assert model.channels_of == {"liver": [0, 1], "lung": [2], "spleen": [3], "petct": [4]}
    assert model.network.down2.prior_selection.task_prior.shape[0] == 6, "five classes and the null token"
    shared = built(share_names=True)
    assert shared.channels_of["lung"] == [1]


def test_an_unknown_form_is_refused_and_the_form_is_in_the_title():
    with pytest.raises(InputError, match="medformer or unet"):
        built(form="unett")
    assert title_for(model_card("hermes_original"), {"form": "unet"}) == "Hermes (original network) (residual U-Net)"


def test_the_concept_meets_priors_at_every_level_but_full_resolution():
    """Two poolings: encoder stages 1 and 2, decoder stage 1; the decoder's last stage is at full resolution."""
    model = built("hermes")
    assert len(model.down_priors) == 2
    assert len(model.up_priors) == 1
    spec = SPEC.__class__(base_features=4, max_features=16, patch_size_zyx=(16, 64, 64))
    torch.manual_seed(0)
    deep = build_model("hermes", TASKS, spec)
    assert (len(deep.down_priors), len(deep.up_priors)) == (3, 2)
