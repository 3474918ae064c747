"""UniSeg's prompt, its variants and the page that maps concept to code."""

import re

import pytest
import torch

from models.loader import build_model
from models.uniseg.prompt import UniversalPrompt, cosine_similarity
from segbench.core.errors import InputError
from segbench.core.task import TaskSet
from tests.paths import ROOT
from tests.unit.models.small import LIVER, LUNG, SPEC, SPLEEN, TASKS, images


def built(**options):
    torch.manual_seed(0)
    return build_model("uniseg", TASKS, SPEC, **options).eval()


@pytest.mark.parametrize("prompt", ["universal", "multiple", "fixed_one_hot", "none"])
@pytest.mark.parametrize("position", [0, 1])
def test_variants_answer_and_learn(prompt, position):
    model = built(prompt=prompt, position=position)
    logits = [model(images(), task)[0] for task in (LUNG, SPLEEN)]  # twins in channels and classes
    assert torch.equal(*logits) is (prompt == "none")
    for task in TASKS:
        sum(scale.square().mean() for scale in model(images(), task)).backward()
    dead = [name for name, item in model.named_parameters() if item.grad is None or not item.grad.isfinite().all()]
    assert not dead


def test_the_prompt_enters_where_the_option_says():
    for position, inputs in ((0, [16 + 1, 8]), (1, [16, 8 + 1])):
        model = built(position=position)
        assert [up.in_channels for up in model.decoder.up] == inputs
    assert built().prompt.prompt.shape == (1, 3, 4, 4, 4)
    assert built(position=1).prompt.prompt.shape == (1, 3, 8, 8, 8)
    assert built(prompt="fixed_one_hot").decoder.up[0].in_channels == 16 + 3
    assert built(prompt="none").decoder.up[0].in_channels == 16


def test_only_the_selected_prompt_reaches_a_task():
    """With the decoder's prompt input at zero, tasks cannot differ; with it, exchanging channels exchanges tasks."""
    model = built(prompt="multiple")
    with torch.no_grad():
        before = model(images(), LUNG)[0], model(images(), SPLEEN)[0]
        model.prompt.prompts[:, [1, 2]] = model.prompt.prompts[:, [2, 1]]
        after = model(images(), LUNG)[0], model(images(), SPLEEN)[0]
        assert torch.equal(before[0], after[1])
        assert torch.equal(before[1], after[0])
        model.decoder.up[0].weight[-1] = 0
        assert torch.equal(model(images(), LUNG)[0], model(images(), SPLEEN)[0])


def test_a_prompt_follows_another_grid():
    """A constant prompt is the same on any grid, so only the features count; a one-voxel change is spread out."""
    prompt = UniversalPrompt(2, 6, (2, 2, 2))
    features = torch.randn(1, 6, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert prompt(features, 1).shape == (1, 1, 4, 2, 2)
        prompt.prompt.fill_(0.5)
        larger = UniversalPrompt(2, 6, (4, 2, 2))
        larger.load_state_dict({**prompt.state_dict(), "prompt": torch.full((1, 2, 4, 2, 2), 0.5)})
        torch.testing.assert_close(prompt.fuse(features), larger.fuse(features))


@pytest.mark.parametrize("options", [{}, {"position": 1}, {"prompt": "none"}], ids=str)
def test_preprocessed_skips_change_rounding_only(options):
    model = built(**options)
    with torch.no_grad():
        preprocessed = model(images(batch=2), LIVER)
        plain = model.train()(images(batch=2), LIVER)
    for found, expected in zip(preprocessed, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"prompt": "univrsal"}, {"position": 2}, {"position": -1}, {"position": "deep"}])
def test_unknown_variants_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        built(**options)


@pytest.mark.parametrize("size_zyx", [(7, 16, 16), SPEC.downsampling_zyx])
def test_forward_index_needs_sizes_that_can_be_halved(size_zyx):
    with pytest.raises(InputError, match="multiples of"):
        built().forward_index(images(size_zyx=size_zyx), 0)


def test_the_page_names_code_that_exists():
    page = (ROOT / "models" / "uniseg" / "README.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and ".py`" in line]
    assert len(rows) >= 10
    for row in rows:
        text = ""
        for file in re.findall(r"`([\w/]+\.py)`", row):
            path = ROOT / file if (ROOT / file).exists() else ROOT / "models" / "uniseg" / file
            text += path.read_text(encoding="utf-8")
        names = [name for name in re.findall(r"`([A-Za-z_]+(?:\.[A-Za-z_]+)?)`", row) if not name.endswith(".py")]
        assert names or "tests/" in row
        for name in names:
            for part in name.split("."):
                assert re.search(rf"\b{part}\b", text), f"{name} is not in the files of: {row}"


def test_the_page_s_example_serves_another_network():
    page = (ROOT / "models" / "uniseg" / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", page, flags=re.DOTALL).group(1)
    names = {"torch": torch, "UniversalPrompt": UniversalPrompt, "features_BCZYX": torch.randn(2, 64, 2, 3, 6)}
    exec(example, names)
    assert names["features_BCZYX"].shape == (2, 65, 2, 3, 6)
    names["features_BCZYX"][:, -1].square().mean().backward()
    assert names["prompt"].prompt.grad.abs().sum() > 0


def test_one_task_is_enough():
    model = build_model("uniseg", TaskSet([LIVER]), SPEC).eval()
    assert model(images(), LIVER)[0].shape == (1, 3, *SPEC.patch_size_zyx)


def test_prompts_are_compared_channel_by_channel():
    prompt = torch.zeros(1, 4, 2, 1, 1)
    prompt[0, :3, :, 0, 0] = torch.tensor([[3.0, 4.0], [-3.0, -4.0], [4.0, 3.0]])  # lengths of 5; 3*4 + 4*3 = 24
    expected = [[1, -1, 0.96, 0], [-1, 1, -0.96, 0], [0.96, -0.96, 1, 0], [0, 0, 0, 0]]
    assert cosine_similarity(prompt) == [pytest.approx(row) for row in expected]


def test_only_a_learned_universal_prompt_of_several_tasks_has_diagnostics():
    assert [len(row) for row in built().diagnostics()["prompt_similarity"]["cosine"]] == [3, 3, 3]
    for prompt in ("none", "multiple", "fixed_one_hot"):
        assert built(prompt=prompt).diagnostics() == {}
    assert build_model("uniseg", TaskSet([SPLEEN]), SPEC).diagnostics() == {}
