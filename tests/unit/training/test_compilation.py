"""Compiled regions: which they are, that they compute the same, and when it pays."""

import pytest
import torch

from models.loader import build_model, model_cards
from segbench.training.compilation import LEAST_STEPS, LEAST_VOXELS, compile_regions, compiled_scale_loss, pays, why_not
from segbench.training.losses import scale_loss
from tests.unit.models.small import SPEC, SPLEEN, TASKS, images

CUDA = torch.device("cuda")
UNIVERSAL = [
    name for name, card in model_cards().items() if (card["kind"], card.get("backbone")) == ("universal", "shared")
]


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of the compiler itself
@pytest.mark.parametrize(("name", "count"), [("uniseg", 5), ("nnunet_plain", 2), ("unetr", 0)])
def test_encoder_and_decoder_of_both_backbones_are_compiled_and_compute_the_same(name, count):
    task = SPLEEN
    tasks = TASKS if name == "uniseg" else [task]
    torch.manual_seed(0)
    model = build_model(name, tasks, SPEC).train()
    expected, names = model(images(), task)[0], list(model.state_dict())
    assert compile_regions(model, backend="aot_eager") == count
    torch.testing.assert_close(model(images(), task)[0], expected, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == names


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of the compiler itself
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("uniseg", {"prompt": prompt}) for prompt in ("multiple", "fixed_one_hot", "none")),
        ("uniseg", {"position": 1}),
        *((name, {}) for name in UNIVERSAL),
    ],
)
def test_tasks_of_as_many_channels_share_what_is_compiled(name, options):
    counts, graphs = [], []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.manual_seed(0)
    model = build_model(name, TASKS, SPEC, **options).train()
    assert compile_regions(model, backend=backend) > 0
    for task in TASKS:
        model(images(), task)
        counts.append(len(graphs))
    assert counts[0] > 0
    assert counts == [counts[0]] * len(TASKS)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("known", [None, [[True, True, False], [True, True, True]]])
def test_the_compiled_loss_is_the_loss(activation, ignored, known):
    logits = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.eye(3)[torch.arange(128).view(2, 4, 4, 4) % 3].movedim(-1, 1).contiguous()
    known_B1ZYX = (torch.arange(128).view(2, 1, 4, 4, 4) % 5 > 0).float() if ignored else None
    arguments = (logits, targets, activation, known_B1ZYX, None if known is None else torch.tensor(known))
    compiled = compiled_scale_loss(backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), scale_loss(*arguments))
    torch.testing.assert_close(compiled(*arguments, batch_dice=True), scale_loss(*arguments, batch_dice=True))


def test_what_keeps_the_compiler_from_working_is_said(monkeypatch):
    monkeypatch.setenv("CC", "gcc")
    monkeypatch.setattr("segbench.training.compilation.has_triton", lambda: False)
    assert "Triton" in why_not()
    monkeypatch.setattr("segbench.training.compilation.has_triton", lambda: True)
    assert why_not() == ""
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": "/nowhere"})
    assert "Python.h" in why_not()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    assert "no C compiler" in why_not()
    with torch._dynamo.config.patch(disable=True):
        assert "TORCH_COMPILE_DISABLE" in why_not()


@pytest.mark.parametrize(
    ("device", "mode", "voxels", "steps", "expected"),
    [
        (CUDA, "fast", LEAST_VOXELS, LEAST_STEPS, True),
        (CUDA, "fast", LEAST_VOXELS - 1, LEAST_STEPS, False),
        (CUDA, "fast", LEAST_VOXELS, LEAST_STEPS - 1, False),
        (CUDA, "exact", LEAST_VOXELS, LEAST_STEPS, False),
        (torch.device("cpu"), "fast", LEAST_VOXELS, LEAST_STEPS, False),
    ],
)
def test_large_batches_of_long_trainings_on_gpus_are_compiled(device, mode, voxels, steps, expected):
    assert pays(device, mode, voxels=voxels, steps=steps) is expected
