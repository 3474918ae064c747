"""VISTA3D answers for the classes of a task as MONAI's network answers for their class vector."""

import torch
from monai.networks.nets.vista3d import vista3d132

from models.interface import NetworkSpec
from models.loader import build_model
from segbench.core.task import TaskSet
from tests.unit.models.small import LIVER, LUNG, TASKS, images

SPEC = NetworkSpec(patch_size_zyx=(16, 16, 32), base_features=8)


def model(tasks=TASKS, spec=SPEC, **options):
    torch.manual_seed(1)
    return build_model("vista3d", tasks, spec, **options).eval()


def test_masks_are_those_of_monai_s_automatic_branch():
    """At the published width: base 32 gives 48."""
    ours = model(TaskSet([LIVER]), NetworkSpec())
    reference = vista3d132().eval()
    state = {
        name.replace(".conv_init.conv.channels_1.", ".conv_init."): tensor for name, tensor in ours.state_dict().items()
    }
    state = {name.replace("image_encoder.up_layers.", "image_encoder.up_layers_auto."): t for name, t in state.items()}
    embeddings = state.pop("class_head.class_embeddings.weight")
    loaded = reference.load_state_dict(state, strict=False)
    assert not loaded.unexpected_keys
    assert all(
        name.startswith(("point_head.", "image_encoder.up_layers.", "class_head.class_embeddings."))
        for name in loaded.missing_keys
    )
    x_BCZYX = images(size_zyx=(16, 16, 32))
    with torch.no_grad():
        reference.class_head.class_embeddings.weight[:2] = embeddings
        expected_K1ZYX = reference(x_BCZYX, class_vector=torch.tensor([[0], [1]]))
        logits_BKZYX = ours(x_BCZYX, LIVER)[0]
    torch.testing.assert_close(logits_BKZYX[0, 1:], expected_K1ZYX[:, 0], rtol=1e-4, atol=1e-5)
    assert logits_BKZYX[:, 0].abs().max() == 0


def test_one_encoding_serves_every_task_and_equal_names_share_a_prompt():
    """The tumour of liver and lung is one prompt by default, and two when names are not shared."""
    x_BCZYX = images(size_zyx=(16, 16, 32))
    for share_names, prompts in ((True, 3), (False, 4)):
        network = model(share_names=share_names)
        assert network.class_head.class_embeddings.weight.shape[0] == prompts
        with torch.no_grad():
            features = network.encode(x_BCZYX)
            liver, lung = (network.decode(features, task)[0] for task in (LIVER, LUNG))
        assert torch.allclose(liver[:, 2], lung[:, 1], atol=1e-4) is share_names
