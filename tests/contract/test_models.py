"""The contract of models/interface.py, checked on every registered network; controls have tests of their own."""

from __future__ import annotations

import copy
import inspect
import re
import shutil
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from monai.networks.layers import DropPath

from models.weights.reading import load_strictly, read_state_dict
from segbench.core.errors import InputError
from segbench.training.precision import Arithmetic
from tests.contract import subjects
from tests.contract.subjects import CARDS, NAMES, ODD_SIZE_ZYX, SHARED_GRID_SIZE_ZYX, SPEC
from tests.paths import ROOT

over_models = pytest.mark.parametrize("name", NAMES)
over_tasks = pytest.mark.parametrize(
    ("name", "number", "task"), [pytest.param(*row, id=f"{row[0]}-{row[2].name}") for row in subjects.served()]
)
CARD_KEYS = {
    "title",
    "kind",
    "citation",
    "url",
    "licence",
    "original_licence",
    "fidelity",
    "deviations",
    "channels",
    "patch_multiple",
    "options",
    "encoder_keys",
    "backbone",
}


@pytest.fixture(autouse=True)
def one_thread():
    """Keep the timings of small networks from being lost in thread hand-over."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@over_models
def test_card_is_complete_and_true(name):
    card = CARDS[name]
    assert card.keys() >= CARD_KEYS
    assert card["kind"] in ("universal", "single_task")
    assert card["fidelity"] in ("numerical", "description", "concept")
    assert card["backbone"] in ("shared", "own")
    model = subjects.shared_model(name)
    assert model.activation in ("softmax", "sigmoid")
    assert model.class_loss in ("mean", "sum")
    assert model.scale_rule in ("nnunet", "halving", "equal")
    keys = model.state_dict().keys()
    for prefix in card["encoder_keys"]:
        assert any(key.startswith(prefix) for key in keys), f"no tensor starts with {prefix}"


@pytest.mark.parametrize("name", [name for name in NAMES if CARDS[name]["fidelity"] == "numerical"])
def test_equal_outputs_are_shown_by_a_golden_test(name):
    tests = (ROOT / "tests" / "golden" / "models").glob("test_*.py")
    named = any(re.search(rf"\b{name}\b", path.read_text(encoding="utf-8")) for path in tests)
    assert named, f"no test in tests/golden/models compares {name} with its original: its fidelity is description"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in subjects.UNREGISTERED])
def test_card_options_are_those_of_build(name):
    package = "models.uniseg" if name == "uniseg" else f"models.baselines.{name}"
    parameters = inspect.signature(import_module(package).build).parameters
    accepted = {key: item.default for key, item in parameters.items() if key not in ("tasks", "spec")}
    assert accepted == {key: option["default"] for key, option in CARDS[name]["options"].items()}


@over_tasks
def test_shapes_values_and_shared_encoding(name, number, task):
    model = subjects.shared_model(name, number)
    images_BCZYX = subjects.images(task)
    with torch.no_grad():
        outputs = model(images_BCZYX, task)
        again = model.decode(model.encode(images_BCZYX), task)
    assert outputs[0].shape == (1, task.num_classes, *SPEC.patch_size_zyx)
    volumes = [logits[0, 0].numel() for logits in outputs]
    assert volumes == sorted(volumes, reverse=True)
    for logits, repeated in zip(outputs, again, strict=True):
        assert logits.shape[:2] == (1, task.num_classes)
        assert all(full % size == 0 for full, size in zip(SPEC.patch_size_zyx, logits.shape[2:], strict=True))
        assert logits.isfinite().all()
        torch.testing.assert_close(logits, repeated, rtol=0, atol=0)
    check_probabilities(model, outputs[0], task)


def check_probabilities(model, logits_BKZYX, task):
    """Probabilities lie in 0..1 over the task's channels and name a label; targets fit them."""
    probabilities_BKZYX = model.probabilities(logits_BKZYX)
    assert probabilities_BKZYX.shape == logits_BKZYX.shape
    assert probabilities_BKZYX.dtype == torch.float32
    assert probabilities_BKZYX.min() >= 0
    assert probabilities_BKZYX.max() <= 1
    if model.activation == "softmax":
        sums_BZYX = probabilities_BKZYX.sum(1)
        torch.testing.assert_close(sums_BZYX, torch.ones_like(sums_BZYX))
    else:
        assert logits_BKZYX[:, 0].abs().max() == 0
    labels_BZYX = torch.arange(task.num_classes).repeat(1, 4, 4, 1)
    targets_BKZYX = model.targets(labels_BZYX, task)
    assert targets_BKZYX.shape == (1, task.num_classes, 4, 4, task.num_classes)
    assert targets_BKZYX.dtype == torch.float32
    assert set(targets_BKZYX.unique().tolist()) <= {0.0, 1.0}


@over_tasks
def test_other_sizes_than_the_patch(name, number, task):
    size_zyx = SHARED_GRID_SIZE_ZYX if CARDS[name]["backbone"] == "shared" else ODD_SIZE_ZYX
    with torch.no_grad():
        outputs = subjects.shared_model(name, number)(subjects.images(task, size_zyx=size_zyx), task)
    assert outputs[0].shape == (1, task.num_classes, *size_zyx)
    assert all(logits.isfinite().all() for logits in outputs)


@over_models
def test_every_parameter_learns(name):
    model = subjects.new_model(name, subjects.task_sets(name)[-1]).train()
    jitter = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # a branch that starts at zero would hide what lies behind it
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=jitter))
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0  # of one sample, a dropped branch learns nothing in this step
    for task in model.tasks:
        sum(logits.float().square().mean() for logits in model(subjects.images(task), task)).backward()
    parameters = dict(model.named_parameters())
    missing = [key for key, parameter in parameters.items() if parameter.grad is None]
    assert not missing, f"no gradient reaches {missing}"
    infinite = [key for key, parameter in parameters.items() if not parameter.grad.isfinite().all()]
    assert not infinite, f"the gradient is not finite at {infinite}"
    dead = [key for key in parameters if not _learns(key, parameters)]
    assert not dead, f"the gradient is zero at {dead}"


@over_models
def test_gradients_of_one_sample_are_those_of_float64(name):
    """In the layout of a training on a processor.

    Rounding turns single activations on or off, which moves the gradients of narrow networks in any layout. Read in a
    wrong layout, they were 1.4 times their length away.
    """
    exact = _gradients(name, torch.float64, torch.contiguous_format)
    own = _gradients(name, torch.float32, torch.channels_last_3d)
    if (own - exact).norm() > 0.5 * exact.norm():
        plain = _gradients(name, torch.float32, torch.contiguous_format)
        assert (own - exact).norm() < 2 * (plain - exact).norm()


def _gradients(name, dtype, layout) -> torch.Tensor:
    task = next(iter(subjects.shared_model(name).tasks))
    model = copy.deepcopy(subjects.shared_model(name)).to(dtype=dtype, memory_format=layout)
    with Arithmetic(torch.device("cpu"), "exact", "float32").autocast():
        outputs = model(subjects.images(task).to(dtype=dtype, memory_format=layout), task)
    weights = torch.Generator().manual_seed(2)
    sum((logits * torch.randn(logits.shape, generator=weights)).mean() for logits in outputs).backward()
    return torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])


def _learns(key, parameters) -> bool:
    """A bias before a normalisation cannot change the output; it is let off when its own weight learns.

    So is the bias by relative position in a window of one voxel, which softmax cancels.
    """
    if parameters[key].grad.abs().max() > 1e-12 or (key.endswith("_bias_table") and len(parameters[key]) == 1):
        return True
    weight = key.removesuffix("bias") + "weight"
    return key.endswith("bias") and weight in parameters and parameters[weight].grad.abs().max() > 1e-12


@pytest.mark.parametrize("name", [name for name in NAMES if CARDS[name]["kind"] == "universal"])
def test_answer_depends_on_the_task_where_it_should(name):
    model = subjects.shared_model(name)
    images_BCZYX = subjects.images(subjects.LIVER)
    with torch.no_grad():
        liver = model(images_BCZYX, subjects.LIVER)[0]
        pancreas = model(images_BCZYX, subjects.PANCREAS)[0]
    assert torch.equal(liver, pancreas) is not model.task_conditioned


@over_models
def test_same_seed_same_network(name):
    tasks = subjects.task_sets(name)[0]
    first, second, _ = built = [subjects.new_model(name, tasks, seed=seed) for seed in (3, 3, 4)]
    states = [torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()]) for model in built]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    task = next(iter(tasks))
    with torch.no_grad():
        assert torch.equal(first(subjects.images(task), task)[0], second(subjects.images(task), task)[0])


@over_models
def test_checkpoint_round_trip(name, tmp_path):
    tasks = subjects.task_sets(name)[0]
    model, other = subjects.shared_model(name), subjects.new_model(name, tasks, seed=9)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    load_strictly(other, read_state_dict(tmp_path / "weights.pt"), "weights.pt")
    task = next(iter(tasks))
    with torch.no_grad():
        assert torch.equal(model(subjects.images(task), task)[0], other(subjects.images(task), task)[0])


@over_models
def test_damaged_checkpoint_changes_nothing(name):
    model = copy.deepcopy(subjects.shared_model(name))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = {key: torch.zeros_like(tensor) for key, tensor in before.items()}
    missing = next(iter(state))
    del state[missing]
    with pytest.raises(InputError, match="no tensor"):
        load_strictly(model, state, "weights.pt")
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


@over_models
def test_bfloat16_autocast(name):
    model = subjects.shared_model(name)
    task = next(iter(model.tasks))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits_BKZYX = model(subjects.images(task), task)[0]
    assert logits_BKZYX.shape[1] == task.num_classes
    assert logits_BKZYX.isfinite().all()
    assert model.probabilities(logits_BKZYX).dtype == torch.float32


@over_models
def test_bad_input_is_refused_with_the_fix(name):
    model = subjects.shared_model(name)
    task = next(iter(model.tasks))
    with pytest.raises(InputError, match="C = 1"):
        model(torch.zeros(1, 3, *SPEC.patch_size_zyx), task)
    with pytest.raises(InputError, match="5 axes"):
        model(torch.zeros(1, *SPEC.patch_size_zyx), task)
    stranger = subjects.make_task("livre", ("CT",), ("liver", "liver tumour"))
    with pytest.raises(InputError, match="did you mean 'liver'"):
        model(subjects.images(stranger), stranger)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("name", ["uniseg", "nnunet_plain"])
def test_compiled_network_answers_the_same(name):
    spec = replace(SPEC, pool_kernels_zyx=SPEC.pool_kernels_zyx[:1], conv_kernels_zyx=SPEC.conv_kernels_zyx[:2])
    model = subjects.new_model(name, subjects.task_sets(name)[0], spec=spec)
    images_BCZYX = subjects.images(subjects.LIVER, size_zyx=(4, 8, 8))
    with torch.no_grad():
        compiled = torch.compile(model)(images_BCZYX, subjects.LIVER)[0]
        torch.testing.assert_close(compiled, model(images_BCZYX, subjects.LIVER)[0], rtol=1e-3, atol=1e-4)


def test_the_example_of_the_docs_is_short():
    lines = [line for line in subjects.UNREGISTERED["the example of the docs"].splitlines() if line.strip()]
    assert len(lines) < 80
