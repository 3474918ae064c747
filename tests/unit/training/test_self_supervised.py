"""Self-supervised objectives do what their cards say; labels are never read."""

import numpy as np
import pytest
import torch

from models.interface import NetworkSpec
from segbench.core.cards import objective_cards
from segbench.core.errors import InputError
from segbench.core.task import TaskSet
from segbench.training.objective import build_objective
from segbench.training.self_supervised.restoration import paint_boxes, shuffle_windows
from segbench.training.self_supervised.volume_contrast import overlap, overlap_loss, separation_loss, similarity
from segbench.training.views import intensity_curve
from tests.unit.models.small import SPEC, make_task

TASKS = TaskSet([make_task("ct", ["organ"]), make_task("petct", ["lesion"], channels=2)])
NAMES = sorted(objective_cards())
CUBE = NetworkSpec(**{**SPEC.__dict__, "patch_size_zyx": (16, 16, 16), "pool_kernels_zyx": ((2, 2, 2), (2, 2, 2))})


def objective(name, spec=CUBE, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_objective(name, TASKS, spec, **options)


def smooth_images(number, *, channels=1, batch=2):
    """Bright ridges of random direction: they can be restored, and differ from place to place."""
    rng = np.random.default_rng(number)
    grid = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"))
    waves = [np.sin(np.tensordot(rng.uniform(-0.3, 0.3, 3), grid, 1) + rng.uniform(0, 6)) ** 8 for _ in range(batch)]
    return torch.tensor(2 * np.stack(waves), dtype=torch.float32)[:, None].repeat(1, channels, 1, 1, 1)


def step(model, optimiser, images_BCZYX, number):
    optimiser.zero_grad(set_to_none=True)
    loss = model(images_BCZYX, np.random.default_rng(number))
    loss.backward()
    optimiser.step()
    model.after_step()
    return loss.item()


def sgd(model, rate=0.05):
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate, momentum=0.9)


LEARNT_IN_A_FEW_STEPS = {"restoration": {"curve": 0.0, "outpaint": 0.0}}  # which way is bright takes far longer

DIFFERENT_BATCHES = {"volume_contrast": 1}  # where a crop of 4x4 pixels lies cannot be learnt for new crops so soon


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(name):
    model = objective(name, **LEARNT_IN_A_FEW_STEPS.get(name, {}))
    optimiser = sgd(model)
    draws = DIFFERENT_BATCHES.get(name, 30)
    losses = [step(model, optimiser, smooth_images(number % draws % 4), number % draws) for number in range(30)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.parametrize("name", NAMES)
def test_options_are_those_of_the_card(name):
    options = {key: item["default"] for key, item in objective_cards()[name]["options"].items()}
    with pytest.raises(TypeError, match="nonsense"):
        objective(name, nonsense=1)
    images_BCZYX = smooth_images(0)
    losses = [objective(name, **chosen)(images_BCZYX, np.random.default_rng(1)) for chosen in ({}, options)]
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", NAMES)
def test_every_channel_count_trains_its_own_stem_and_randomness_comes_from_the_generator(name):
    model = objective(name)
    trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
    first, again, other = (model(smooth_images(1, channels=2), np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    first.backward()
    learns = {key for key, value in trained.items() if value.grad is not None and value.grad.abs().max() > 0}
    assert {key for key in trained if "channels_1" in key}.isdisjoint(learns)
    weights = {key for key in trained if key.endswith("weight") and "channels_1" not in key}
    assert weights <= learns


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast(name):
    model = objective(name)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(smooth_images(0), np.random.default_rng(0))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(objective(name)(smooth_images(0), np.random.default_rng(0)).item(), rel=0.1)
    loss.backward()
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_card_hands_over_has_the_names_and_shapes_of_the_downstream_network(name):
    from models.loader import build_model

    target = build_model("single_task", TaskSet([make_task("new", ["organ"])]), CUBE).state_dict()
    own = objective(name).state_dict()
    prefixes = tuple(objective_cards()[name]["encoder_keys"])
    asked = {key: value.shape for key, value in target.items() if key.startswith(prefixes)}
    assert asked
    assert asked == {key: own[key].shape for key in asked}


def test_the_curve_is_monotone_and_keeps_the_range():
    image_CZYX = torch.linspace(-3, 5, 512).reshape(1, 8, 8, 8)
    curves = [intensity_curve(image_CZYX, np.random.default_rng(seed), may_fall=True).flatten() for seed in range(20)]
    directions = set()
    for curve in curves:
        slopes = curve.diff()
        assert (slopes >= -1e-5).all() or (slopes <= 1e-5).all()
        assert curve.min() == pytest.approx(-3, abs=1e-4)
        assert curve.max() == pytest.approx(5, abs=1e-4)
        directions.add(bool(curve[-1] > curve[0]))
    assert directions == {True, False}
    constant_CZYX = torch.full((1, 4, 4, 4), 7.0)
    assert torch.equal(intensity_curve(constant_CZYX, np.random.default_rng(0)), constant_CZYX)


def test_shuffling_moves_voxels_only_within_windows_and_alike_in_all_channels():
    places_ZYX = torch.arange(24**3, dtype=torch.float32).reshape(24, 24, 24)
    image_CZYX = torch.stack([places_ZYX, -places_ZYX])
    result_CZYX = shuffle_windows(image_CZYX, np.random.default_rng(2))
    assert torch.equal(result_CZYX[0], -result_CZYX[1])
    assert torch.equal(result_CZYX[0].flatten().sort().values, places_ZYX.flatten())
    assert not torch.equal(result_CZYX[0], places_ZYX)
    came_from = np.stack(np.unravel_index(result_CZYX[0].long().numpy(), (24, 24, 24)))
    distance = abs(came_from - np.stack(np.unravel_index(np.arange(24**3).reshape(24, 24, 24), (24, 24, 24))))
    assert distance.max() < 24 // 8


@pytest.mark.parametrize("outside", [True, False])
def test_painting_hides_boxes_or_all_but_boxes(outside):
    image_CZYX = torch.full((2, 24, 24, 24), 3.0)
    image_CZYX[:, 0, 0, 0], image_CZYX[:, -1, -1, -1] = 2.0, 4.0
    for seed in range(10):
        painted_CZYX = paint_boxes(image_CZYX, np.random.default_rng(seed), outside=outside)
        kept = (painted_CZYX == image_CZYX).float().mean()
        assert painted_CZYX.min() >= 2
        assert painted_CZYX.max() <= 4
        low, high = ((3 / 7 * 24 - 1) ** 3, 5 * (4 / 7 * 24) ** 3) if outside else (24**3 - 5 * 8**3, 24**3 - 3**3)
        assert low <= kept * 24**3 <= high


def test_restoration_is_judged_against_the_clean_patch():
    model = objective("restoration", curve=1.0, shuffle=1.0, paint=1.0)
    images_BCZYX = smooth_images(0)
    seen = []
    model.reconstruct = lambda corrupted_BCZYX: seen.append(corrupted_BCZYX) or images_BCZYX
    assert model(images_BCZYX, np.random.default_rng(0)) == 0
    assert not torch.equal(seen[0], images_BCZYX)
    still = objective("restoration", curve=0.0, shuffle=0.0, paint=0.0)
    assert torch.equal(still.corrupt(images_BCZYX[0], np.random.default_rng(0)), images_BCZYX[0])


def test_the_mask_covers_the_stated_fraction_in_whole_blocks_and_is_all_that_counts():
    model = objective("masked_autoencoder", spec=SPEC, mask_ratio=0.75)
    mask_ZYX = model.mask(np.random.default_rng(0))
    assert mask_ZYX.float().mean() == 0.75
    a, b, c = SPEC.downsampling_zyx
    blocks = mask_ZYX.unfold(0, a, a).unfold(1, b, b).unfold(2, c, c).flatten(3)
    assert (blocks.all(3) | ~blocks.any(3)).all()
    assert not torch.equal(mask_ZYX, model.mask(np.random.default_rng(1)))

    images_BCZYX, seen = torch.ones(1, 2, *SPEC.patch_size_zyx), []
    model.reconstruct = lambda masked_BCZYX: seen.append(masked_BCZYX) or 5 * masked_BCZYX
    assert model(images_BCZYX, np.random.default_rng(0)) == 1, "0 instead of 1 inside; 5 instead of 1 is outside"
    assert torch.equal(seen[0], (~mask_ZYX).float().expand(1, 2, *SPEC.patch_size_zyx))


@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.001])
def test_a_mask_of_nothing_or_everything_is_refused(ratio):
    with pytest.raises(InputError, match="mask_ratio"):
        objective("masked_autoencoder", mask_ratio=ratio)


def test_overlaps_by_hand():
    assert overlap((0, 0, 0), (0, 0, 0), (8, 8, 8)) == 1
    assert overlap((4, 0, 0), (0, 0, 0), (8, 8, 8)) == 0.5
    assert overlap((4, 6, 0), (0, 8, 8), (8, 8, 8)) == 0
    assert overlap((4, 6, 2), (0, 8, 0), (8, 8, 8)) == 0.5 * 0.75 * 0.75
    grid = [(z, y, x) for z in (0, 8) for y in (0, 8) for x in (0, 8)]
    assert sum(overlap((3, 5, 7), base, (8, 8, 8)) for base in grid) == pytest.approx(1)


def test_losses_of_the_contrast_by_hand():
    """Where crops overlap: -log(1 - gap) weighted by the fraction; where they do not: the mean squared similarity."""
    perfect = overlap_loss(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 0.0]]]))
    assert perfect.item() == pytest.approx(0, abs=1e-5)
    found = overlap_loss(torch.tensor([[[0.5, 0.2, 0.4]]]), torch.tensor([[[0.75, 0.25, 0.0]]]))
    near = -(0.75 * np.log(0.75) + 0.25 * np.log(0.95))
    assert found.item() == pytest.approx(near + 0.4**2, abs=1e-5)
    opposite = similarity(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[-1.0, 0.0], [0.6, 0.8]]]))
    torch.testing.assert_close(opposite, torch.tensor([[[0.0, 0.6]]]))


def test_base_crops_are_separated_and_the_later_of_a_pair_is_constant():
    assert separation_loss(torch.eye(2)[None]) == 0
    assert separation_loss(torch.ones(1, 3, 1)) == 1
    base_BND = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]]).requires_grad_()
    loss = separation_loss(base_BND)
    assert loss.item() == pytest.approx(0.36)
    loss.backward()
    assert base_BND.grad[0, 0].abs().max() > 0
    assert base_BND.grad[0, 1].abs().max() == 0


def test_sixteen_crops_tile_the_patch_and_each_is_embedded_twice():
    model = objective("volume_contrast", crops=3, embedding=8)
    seen = []
    for encoder in (model.encoder, model.teacher[0]):
        encoder.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    images_BCZYX = smooth_images(0)
    model(images_BCZYX, np.random.default_rng(0))
    student, teacher = seen
    assert torch.equal(student, teacher)
    assert student.shape == (2 * (16 + 3), 1, 16, 4, 4)
    rows = [torch.cat(list(student[4 * row : 4 * row + 4]), dim=3) for row in range(4)]
    assert torch.equal(torch.cat(rows, dim=2), images_BCZYX[0])


def test_a_patch_too_small_to_divide_is_refused():
    with pytest.raises(InputError, match="larger patch"):
        objective("volume_contrast", spec=NetworkSpec(**{**CUBE.__dict__, "patch_size_zyx": (4, 8, 8)}))


TEACHERS = {
    "deep_self_distillation": lambda model: [(model.encoder, model.student), (model.projection, model.projections[-1])],
    "volume_contrast": lambda model: list(zip(model.teacher, (model.encoder, model.projection), strict=True)),
}


@pytest.mark.parametrize("name", TEACHERS)
def test_the_teacher_gets_no_gradient_and_follows_by_momentum(name):
    model = objective(name, momentum=0.9)
    pairs = TEACHERS[name](model)
    for teacher, student in pairs:
        assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), student.parameters(), strict=True))
    before = [[own.clone() for own in teacher.parameters()] for teacher, _ in pairs]
    optimiser = sgd(model)
    model(smooth_images(0), np.random.default_rng(0)).backward()
    optimiser.step()
    assert all(own.grad is None for teacher, _ in pairs for own in teacher.parameters())
    for (teacher, _), old in zip(pairs, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), old, strict=True)), "the step leaves it"
    model.after_step()
    for (teacher, student), old in zip(pairs, before, strict=True):
        for own, other, was in zip(teacher.parameters(), student.parameters(), old, strict=True):
            torch.testing.assert_close(own, 0.9 * was + 0.1 * other)
    assert any(not torch.equal(a, b) for a, b in zip(pairs[0][0].parameters(), before[0], strict=True))


def test_every_stage_of_the_student_is_taught():
    model = objective("deep_self_distillation")
    assert len(model.projections) == len(CUBE.pool_kernels_zyx)
    model(smooth_images(0), np.random.default_rng(0)).backward()
    assert all(layer[0].weight.grad.abs().max() > 0 for layer in [*model.projections, *model.predictors])


def test_crops_are_compared_where_they_lie_over_each_other():
    """The deepest voxels of a picture of its own coordinates agree at the cells that both crops share."""
    model = objective("deep_self_distillation")
    grid_ZYX = torch.arange(64.0).reshape(4, 4, 4)
    starts_V3 = np.array([[0, 1, 0], [1, 1, 0]])
    found = []
    for number, start in enumerate(starts_V3.tolist()):
        crop_ZYX = grid_ZYX[tuple(slice(first, first + 3) for first in start)]
        found.append(crop_ZYX[model._shared_cells(starts_V3, number)])
    assert torch.equal(*found)
    assert found[0].shape == (2, 3, 3)
