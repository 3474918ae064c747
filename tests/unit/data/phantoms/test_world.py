"""The phantom world: reproducible, valid Decathlon layout, varied, and not solved by an intensity window."""

import hashlib
import json
from functools import cache

import nibabel as nib
import numpy as np
import pytest

from segbench.cli import main
from segbench.core.errors import InputError
from segbench.data.phantoms import world as phantoms
from segbench.data.phantoms.shapes import Tissues, ellipsoid, random_grid, tube
from segbench.data.phantoms.world import card_of, make_case, task_names, write_world

TRAINING, TEST = (1, 2), (3, 5)
SEED = 2023


@cache
def case(task, index):
    return make_case(task, index, seed=SEED)


def channels_of(image):
    return np.atleast_2d(image.reshape(-1, image.shape[3]).T if image.ndim == 4 else image.ravel())


def best_window(cases, labels):
    """Return (channel, low, high) of the intensity window [low, high) with the highest pooled Dice on the cases."""
    target = np.concatenate([np.isin(found, labels).ravel() for _, found, _ in cases])
    volumes = np.concatenate([channels_of(image) for image, _, _ in cases], axis=1)
    best = (-1.0, 0, 0.0, 0.0)
    for channel, values in enumerate(volumes):
        edges = np.unique(np.append(np.quantile(values[target], np.linspace(0, 1, 31)), values.max() + 1))
        bins = np.searchsorted(edges, values, side="right")
        inside = np.bincount(bins, minlength=len(edges) + 1).cumsum()
        hits = np.bincount(bins[target], minlength=len(edges) + 1).cumsum()
        dice = 2 * (hits[None] - hits[:, None]) / np.maximum(inside[None] - inside[:, None] + target.sum(), 1)
        low, high = np.unravel_index(np.argmax(dice[: len(edges), : len(edges)]), (len(edges), len(edges)))
        best = max(best, (float(dice[low, high]), channel, edges[low], edges[high]))
    return best[1:]


def window_dice(task):
    """Return the mean Dice over structures and test cases of the best windows of the training cases."""
    scores = []
    for structure in card_of(task)["structures"]:
        channel, low, high = best_window([case(task, index) for index in TRAINING], structure["labels"])
        for image, labels, _ in (case(task, index) for index in TEST):
            values = channels_of(image)[channel]
            predicted, reference = (values >= low) & (values < high), np.isin(labels, structure["labels"]).ravel()
            scores.append(2 * (predicted & reference).sum() / (predicted.sum() + reference.sum()))
    return np.mean(scores)


def test_there_are_eleven_upstream_and_two_downstream_tasks():
    assert len(task_names()) == 13
    assert {"phantom_abdomen13", "phantom_schwannoma", "phantom_petct"} <= set(task_names())


@pytest.mark.parametrize("task", task_names())
def test_no_intensity_window_solves_a_task(task):
    assert window_dice(task) < 0.6


@pytest.mark.parametrize("task", task_names())
def test_every_case_shows_every_class_and_no_other(task):
    for index in (*TRAINING, *TEST):
        image, labels, _ = case(task, index)
        assert image.shape[:3] == labels.shape
        assert set(np.unique(labels)) == {0, *map(int, card_of(task)["classes"])}
        assert min(np.bincount(labels.ravel())) >= 12


def test_every_fourth_pet_patient_has_no_lesion():
    with_lesion = [bool(make_case("phantom_petct", index, seed=SEED)[1].any()) for index in (3, 4, 7, 8)]
    assert with_lesion == [True, False, True, False]


def test_a_pet_scan_without_lesion_still_shows_hot_organs():
    _, pet = channels_of(make_case("phantom_petct", 4, seed=SEED)[0])
    assert pet.max() > 400


def test_orientation_spacing_and_field_of_view_vary():
    found = [case(task, index) for task in task_names() for index in (*TRAINING, *TEST)]
    codes = {"".join(nib.aff2axcodes(affine)) for _, _, affine in found}
    assert len(codes) >= 6
    assert any(code[2] in "RLAP" for code in codes), "axes are permuted, not only flipped"
    spacings = {tuple(np.sort(nib.affines.voxel_sizes(affine)).round(2)) for _, _, affine in found}
    assert len(spacings) > 30
    assert any(spacing[2] / spacing[0] > 1.3 for spacing in spacings), "anisotropic"
    assert len({image.shape for image, _, _ in found}) > 40


def test_prostates_come_from_sites_of_different_contrast():
    medians = [np.median(case("phantom_prostate", index)[0]) for index in (1, 2, 3)]
    assert max(medians) > 4 * min(medians)


@pytest.mark.parametrize("task", task_names())
def test_decathlon_layout(task, tmp_path):
    write_world(tmp_path, seed=SEED, cases_per_task=1, tasks=[task])
    folder, card = tmp_path / card_of(task)["folder"], card_of(task)
    listed = json.loads((folder / "dataset.json").read_text())
    assert listed["labels"] == {"0": "background", **card["classes"]}
    assert listed["numTraining"] == len(listed["training"]) == 1
    image, label = (nib.load(folder / listed["training"][0][part]) for part in ("image", "label"))
    assert image.shape[:3] == label.shape
    assert image.shape[3:] == (() if len(card["channels"]) == 1 else (len(card["channels"]),))
    np.testing.assert_array_equal(image.affine, label.affine)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
    expected_image, expected_labels, _ = case(task, 1)
    np.testing.assert_array_equal(np.asarray(image.dataobj), expected_image)
    np.testing.assert_array_equal(np.asarray(label.dataobj), expected_labels)
    record = json.loads((folder / "phantom.json").read_text())
    assert record["seed"] == SEED
    assert record["synthetic"] is True
    for name, digest in record["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert set(record["sha256"]) == {str(path.relative_to(folder)) for path in folder.rglob("*.nii.gz")}


def world_bytes(root, *, seed, workers=1):
    tasks = ["phantom_schwannoma", "phantom_petct"]
    write_world(root, seed=seed, cases_per_task=1, tasks=tasks, workers=workers)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_same_seed_same_bytes_and_another_seed_another_world(tmp_path):
    first, again, other = (world_bytes(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first == again == world_bytes(tmp_path / "d", seed=1, workers=2)
    assert first.keys() == other.keys()
    assert not [name for name in first if name.endswith(".nii.gz") and first[name] == other[name]]


def test_a_patient_does_not_depend_on_how_many_there_are(tmp_path):
    write_world(tmp_path, seed=SEED, cases_per_task=2, tasks=["phantom_schwannoma"])
    second = nib.load(tmp_path / "phantom_schwannoma/imagesTr/schwannoma_002.nii.gz")
    np.testing.assert_array_equal(np.asarray(second.dataobj), case("phantom_schwannoma", 2)[0])


def test_surplus_cases_of_an_earlier_world_are_removed(tmp_path):
    for count in (2, 1):
        write_world(tmp_path, seed=SEED, cases_per_task=count, tasks=["phantom_schwannoma"])
    assert [path.name for path in tmp_path.rglob("*.nii.gz")] == ["schwannoma_001.nii.gz"] * 2


def test_a_damaged_list_of_an_earlier_world_is_none(tmp_path):
    def write(count: int) -> None:
        write_world(tmp_path, seed=SEED, cases_per_task=count, tasks=["phantom_schwannoma"])

    write(2)
    (record,) = tmp_path.rglob("phantom.json")
    good = record.read_bytes()
    record.write_bytes(good[:40])
    with pytest.raises(InputError, match=r"schwannoma_002\.nii\.gz: found a volume that was not generated"):
        write(1)
    write(2)
    assert record.read_bytes() == good


def test_volumes_of_unknown_origin_stop_the_generator_before_it_writes(tmp_path):
    stranger = tmp_path / "phantom_liver" / "imagesTr" / "patient.nii.gz"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"kept")
    with pytest.raises(InputError, match=r"patient\.nii\.gz"):
        write_world(tmp_path, seed=SEED, cases_per_task=1, tasks=["phantom_schwannoma", "phantom_liver"])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [stranger]
    assert stranger.read_bytes() == b"kept"


@pytest.mark.parametrize(("count", "tasks"), [(0, ["phantom_liver"]), (1, [])])
def test_an_empty_world_is_refused(tmp_path, count, tasks):
    with pytest.raises(InputError, match="at least 1"):
        write_world(tmp_path, seed=SEED, cases_per_task=count, tasks=tasks)


def test_the_command_writes_train_plus_test_cases(tmp_path, capsys):
    arguments = ["phantom", "--out", str(tmp_path), "--seed", "5", "--train", "1", "--test", "1"]
    assert main([*arguments, "--tasks", "phantom_schwannoma"]) == 0
    assert "synthetic" in capsys.readouterr().out
    assert len(list(tmp_path.rglob("imagesTr/*.nii.gz"))) == 2


def test_the_command_suggests_a_near_miss(tmp_path, capsys):
    assert main(["phantom", "--out", str(tmp_path), "--tasks", "phantom_livr"]) == 2
    assert "did you mean 'phantom_liver'?" in capsys.readouterr().err


def test_every_class_is_a_tissue_that_the_generator_paints():
    for task in task_names():
        for name in card_of(task)["classes"].values():
            assert phantoms.CLASS_TISSUES.get(name, (name,))
    liver_class = phantoms.CLASS_TISSUES["liver"]
    assert "hepatic vessel" in liver_class, "the liver's own vessels belong to the liver"


def test_levels_of_shapes_are_distances_in_radii():
    points = np.array([[5.0, 0, 0], [0, 3, 0], [12, 0, 4]])
    np.testing.assert_allclose(ellipsoid(points, (0, 0, 0), (10, 6, np.inf)), [0.5, 0.5, 1.2])
    # the line runs along x from 0 to 10; the third point is (2, 0, 4) past its end, sqrt(20) away
    np.testing.assert_allclose(tube(points, [(0, 0, 0), (10, 0, 0)], 6), [0, 0.5, np.sqrt(20) / 6], atol=1e-7)


def test_a_tissue_painted_over_named_ones_leaves_others_alone():
    tissues = Tissues(np.zeros((3, 1, 1, 3)))
    tissues.paint("fat", np.array([True, True, False])[:, None, None])
    tissues.paint("lesion", np.array([False, True, True])[:, None, None], over=("fat",))
    assert tissues.mask("lesion").ravel().tolist() == [False, True, False]
    assert not tissues.mask("never painted").any()
    assert tissues.values({"outside": 0, "fat": 1, "lesion": 2}).ravel().tolist() == [1, 2, 0]


def test_a_grid_covers_the_asked_box_whatever_its_orientation():
    for seed in range(8):
        grid = random_grid(
            np.random.default_rng(seed),
            centre_mm=(10, -20, 30),
            extent_mm=(200, 150, 100),
            in_plane_mm=(4, 4),
            slice_mm=(8, 8),
        )
        points = grid.points().reshape(-1, 3)
        np.testing.assert_allclose(points.min(0) + points.max(0), (20, -40, 60), atol=1e-6)
        size = points.max(0) - points.min(0) + (4, 4, 8)
        assert np.all(np.abs(size / (200, 150, 100) - 1) < 0.14)
