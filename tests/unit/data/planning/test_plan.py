"""The planner: spacing, patch and kernels by nnU-Net's rules; the proposal is config, and test cases are not opened."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from segbench.cli import main
from segbench.core.errors import InputError
from segbench.data.planning.entry import patch_for_poolings
from segbench.data.planning.plan import fit_network, target_spacing, topology
from segbench.data.preprocessing_recipes import preprocessing_recipe
from segbench.data.splitting.folds import make_splits
from segbench.experiment.config import parse_config
from tests.paths import ROOT

CARD = {
    "title": "Made up",
    "layout": "msd",
    "folder": "Made",
    "channels": [{"name": "CT", "modality": "CT"}],
    "classes": {"1": "ball"},
    "structures": [{"name": "ball", "labels": [1], "tolerance_mm": 2.0}],
    "preprocessing": "ct",
    "patient_namespace": "made",
    "licence": "",
    "citation": "",
    "url": "",
    "obtain": "generate it",
    "permits": {"commercial": True, "show_images": True},
}


def test_the_spacing_is_the_median():
    spacings = np.array([[2.0, 1.0, 1.0], [3.0, 1.5, 1.5], [9.0, 1.0, 1.0]])
    assert target_spacing(spacings, np.full((3, 3), 100))[0] == (3.0, 1.0, 1.0)


def test_a_coarse_axis_with_few_voxels_gets_its_tenth_percentile():
    spacings = np.tile([10.0, 1.5, 1.5], (11, 1))
    spacings[:2, 0] = 5.0
    few, many = np.tile([10, 200, 200], (11, 1)), np.tile([100, 200, 200], (11, 1))
    found, reason = target_spacing(spacings, few)
    assert found == (5.0, 1.5, 1.5)  # rank 1 of 0..10
    assert "10th percentile" in reason
    assert target_spacing(spacings, many)[0] == (10.0, 1.5, 1.5)


def test_a_coarse_axis_never_gets_finer_than_the_others():
    spacings = np.tile([10.0, 1.5, 1.5], (11, 1))
    spacings[:2, 0] = 0.5
    assert target_spacing(spacings, np.tile([10, 200, 200], (11, 1)))[0] == (1.5, 1.5, 1.5)


def test_the_patch_of_the_hippocampus_is_that_of_nnunet():
    plan = fit_network((1.0, 1.0, 1.0), (36, 50, 35), patch_voxels=128**3)
    assert plan.patch_size_zyx == (40, 56, 40)
    assert plan.pool_kernels_zyx == ((2, 2, 2),) * 3
    assert plan.conv_kernels_zyx == ((3, 3, 3),) * 4


def test_a_coarse_axis_is_pooled_and_convolved_later():
    plan = topology((5.0, 1.0, 1.0), (16, 160, 160))
    assert plan.pool_kernels_zyx == ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    assert plan.conv_kernels_zyx == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert plan.patch_size_zyx == (16, 160, 160)


def test_poolings_kernels_and_patch_are_those_of_nnunet():
    """40 random spacings and sizes through `get_pool_and_conv_props` of nnunetv2 2.8.1, least edge 4, no limit."""
    cases = json.loads((Path(__file__).parent / "nnunet_topology.json").read_text())
    assert len(cases) == 40
    for case in cases:
        plan = topology(case["spacing_mm"], case["size"])
        assert [list(kernel) for kernel in plan.pool_kernels_zyx] == case["pools"]
        assert [list(kernel) for kernel in plan.conv_kernels_zyx] == case["convs"]
        assert list(plan.patch_size_zyx) == case["patch"]


@pytest.mark.parametrize("budget", [32**3, 96**3, 128**3])
def test_the_patch_keeps_to_its_budget_and_fits_the_poolings(budget):
    plan = fit_network((3.0, 0.8, 0.8), (120, 480, 500), patch_voxels=budget)
    factors = np.prod(plan.pool_kernels_zyx, axis=0)
    assert np.prod(plan.patch_size_zyx) <= budget
    assert not np.any(np.array(plan.patch_size_zyx) % factors)
    assert np.all(np.array(plan.patch_size_zyx) // factors >= 4)


@pytest.fixture
def made(tmp_path):
    """A CT task of ten cases whose test cases have another spacing, and a config that splits them."""
    folder = tmp_path / "Made"
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "made.yaml").write_text(yaml.safe_dump(CARD))
    content = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    content["data"] = {"root": str(tmp_path), "cards": [str(tmp_path / "cards")], "test_fraction": 0.3}
    content["upstream"] |= {"tasks": ["made"]}
    del content["downstream"]
    names = [f"case{number}" for number in range(10)]
    listing = [{"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"} for name in names]
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    write_listing(folder, listing)
    test = split_of(content)["test"]
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        labels = np.zeros((24, 20, 12), dtype=np.uint8)
        labels[5:15, 5:15, 3:9] = 1
        image = np.where(labels > 0, 80, -500) + rng.normal(0, 5, labels.shape)
        affine = np.diag([9.0, 9.0, 9.0, 1.0] if name in test else [1.0, 1.5, 2.0, 1.0])
        for kind, data in (("imagesTr", image.astype(np.int16)), ("labelsTr", labels)):
            nib.save(nib.Nifti1Image(data, affine), folder / kind / f"{name}.nii.gz")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path, content


def write_listing(folder: Path, listing: list) -> None:
    """Write dataset.json."""
    (folder / "dataset.json").write_text(
        json.dumps({"modality": {"0": "CT"}, "labels": {"0": "background", "1": "ball"}, "training": listing})
    )


def split_of(content: dict) -> dict:
    """Return the split that the config makes of the task."""
    from segbench.data.ingest import discover

    config = parse_config(content, where="config")
    cases = {"made": discover("made", config.dataset_cards["made"], config.data_root)}
    return make_splits(cases, {"made": "made"}, config.data)["folds"]["0"]["made"]


def merged(base: dict, other: dict) -> dict:
    """Merge as Snakemake merges two config files."""
    result = dict(base)
    for key, value in other.items():
        result[key] = merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return result


def test_the_proposal_is_config_and_comes_from_training_cases_alone(made, tmp_path, capsys):
    path, content = made
    for name in split_of(content)["test"]:
        (tmp_path / "Made" / "imagesTr" / f"{name}.nii.gz").write_bytes(b"must not be opened")
    assert main(["plan", "--config", str(path), "--out", str(tmp_path / "plan.yaml")]) == 0
    assert "made: 7 of 10 cases, the training side of protocol seeded, fold 0" in capsys.readouterr().out
    text = (tmp_path / "plan.yaml").read_text()
    config = parse_config(merged(content, yaml.safe_load(text)), where="merged")
    recipe = preprocessing_recipe(config.task("made"), config.preprocessing_recipes)
    assert recipe.spacing_mm_zyx == (2.0, 1.5, 1.0)
    assert config.network.patch_size_zyx == (12, 20, 24)
    assert recipe.clip_hu is None
    low, high, mean = (int(number) for number in re.search(r"here (\d+) to (\d+) and (\d+) \+-", text).groups())
    assert (low, high, mean) == pytest.approx((67, 93, 80), abs=4)  # 80 +- 2.58 * 5, in whole numbers


def test_a_plan_is_not_written_over_without_force(made, tmp_path, capsys):
    path, _ = made
    out = tmp_path / "plan.yaml"
    out.write_text("mine")
    assert main(["plan", "--config", str(path), "--out", str(out)]) == 2
    assert "add --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main(["plan", "--config", str(path), "--out", str(out), "--force"]) == 0
    assert "plan_made" in out.read_text()


def test_a_folder_without_a_split_says_so(made, tmp_path, capsys):
    assert main(["plan", "--data", str(tmp_path / "Made"), "--out", str(tmp_path / "plan.yaml"), "--workers", "2"]) == 0
    assert "made: all 10 cases of the folder; no split is known" in capsys.readouterr().out
    assert "task_preprocessing" not in yaml.safe_load((tmp_path / "plan.yaml").read_text())


def test_cases_that_cannot_be_read_come_in_one_message_and_nothing_is_written(made, tmp_path, capsys):
    path, content = made
    for name in split_of(content)["train"][:2]:
        (tmp_path / "Made" / "imagesTr" / f"{name}.nii.gz").write_bytes(b"not an image")
    assert main(["plan", "--config", str(path), "--out", str(tmp_path / "plan.yaml")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) >= 2
    assert not (tmp_path / "plan.yaml").exists()


def test_an_unknown_task_is_refused(made, tmp_path):
    from segbench.data.planning.inputs import planned_of_config

    with pytest.raises(InputError, match="did you mean 'made'"):
        planned_of_config(made[0], ["mad"], None)


UNISEG_POOLINGS = ((1, 2, 2), *((2, 2, 2),) * 4)


@pytest.mark.parametrize(
    ("proposed", "expected"),
    [
        ((48, 192, 192), (48, 192, 192)),  # nnU-Net's patch for BTCV fits
        ((40, 170, 180), (32, 160, 192)),
        ((6, 200, 30), (16, 192, 32)),
        ((12, 20, 24), (16, 32, 64)),
    ],
)
def test_a_patch_for_fixed_poolings_is_the_nearest_that_they_allow(proposed, expected):
    assert patch_for_poolings(proposed, UNISEG_POOLINGS) == expected


def test_an_entry_of_downstream_is_planned_for_each_of_its_targets(made, tmp_path, capsys):
    """The network keeps its poolings; patch, spacing and intensities are those of the plan for the target."""
    path, content = made
    models = ["unetr", {"name": "single_task", "id": "tuned", "network": {"base_features": 6}}]
    content["downstream"] = {"tasks": ["made"], "models": models, "initialisations": ["scratch"]}
    path.write_text(yaml.safe_dump(content))
    command = ["plan", "--config", str(path), "--out", str(tmp_path / "plan.yaml"), "--entry"]
    assert main([*command, "tuned"]) == 0
    config = parse_config(merged(content, yaml.safe_load((tmp_path / "plan.yaml").read_text())), where="merged")
    other, tuned = config.downstream.models
    assert (other.name, tuned.key, tuned.network) == ("unetr", "tuned", {"base_features": 6})
    size = config.network_of("downstream", tuned, "made")
    assert size.pool_kernels_zyx == config.network.pool_kernels_zyx
    factors = np.prod(size.pool_kernels_zyx, axis=0)
    assert np.all(np.abs(np.subtract(size.patch_size_zyx, (12, 20, 24))) <= factors / 2)
    assert config.network_of("downstream", other, "made") == config.network
    task = config.task_of(tuned, config.task("made"))
    recipe = preprocessing_recipe(task, config.preprocessing_recipes)
    assert (recipe.name, recipe.spacing_mm_zyx, recipe.clip_hu) == ("plan_made", (2.0, 1.5, 1.0), None)
    assert config.task("made").preprocessing == "ct", "other networks keep the task's own recipe"
    capsys.readouterr()
    assert main([*command[:-1], "--force", "--entry", "tune"]) == 2
    assert "did you mean 'tuned'?" in capsys.readouterr().err
