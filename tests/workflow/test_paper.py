"""config/paper.yaml, its budgets cut, from miniature trees of the 13 official layouts to its tables."""

import copy
import json
import pickle
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from segbench.core.cards import dataset_cards
from segbench.core.files import sha256_of
from segbench.core.vocabulary import KEY_COLUMNS
from segbench.experiment.config import load_config
from segbench.experiment.jobs import expected_keys
from segbench.experiment.splits import read_splits
from tests.unit.data.miniature import write_tree
from tests.workflow.tiny import ROOT, Workflow

PAPER = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())
UPSTREAM, DOWNSTREAM = PAPER["upstream"]["tasks"], PAPER["downstream"]["tasks"]
NUMBERS = {"btcv": [*range(1, 11), *range(21, 41)]}  # those of the protocol btcv_21_9
FEW = [1, 2, 3]
RELEASED_NAME = {  # of the case with a number, in the form of the released lists
    "lits": "liver_{}",
    "kits19": "kidney_{}",
    "msd_hepatic_vessel": "hepaticvessel_{}",
    "msd_pancreas": "pancreas_{}",
    "msd_colon": "colon_{}",
    "msd_lung": "lung_{}",
    "msd_spleen": "spleen_{}",
    "verse20": "sub-verse{:03d}",
    "prostate_saml": "prostate_{:02d}",
    "brats21": "BraTS2021_{:05d}",
    "autopet22": "PETCT_{:010x}_0",
    "vs_seg": "vs_gk_{}",
}
STARTS = ["scratch", "multi_head", "dodnet", {"name": "uniseg", "upstream_recipe": "equal"}]
FIRST = {"verse20": 501, "prostate_saml": 0}  # the number that a released name gives to our case 1
CUTS = {
    "network": {
        "patch_size_zyx": [16, 32, 32],
        "base_features": 4,
        "max_features": 8,
        "pool_kernels_zyx": [[1, 2, 2], [2, 2, 2]],
        "conv_kernels_zyx": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    },
    "training": {"iterations_per_task": 1},
    "upstream": {
        "models": ["uniseg", {"name": "uniseg", "recipe": "published"}, "dodnet", "multi_head", "single_task"],
        "self_supervised": [],
    },
    "inference": {"step": 1.0, "mirror_axes": []},
}


def released(task: str, number: int) -> str:
    return RELEASED_NAME[task].format(number - 1 + FIRST.get(task, 1))


def sides(tasks: list[str]) -> dict[str, list[str]]:
    """Two training cases and one test case of every task, the first kidney on both sides as in the released lists."""
    found = {
        "train": [released(task, number) for task in tasks for number in FEW[:2]],
        "val": [released(task, number) for task in tasks for number in FEW[2:]],
    }
    if "kits19" in tasks:
        found["val"].append(released("kits19", 1))
    if "autopet22" in tasks:
        found["val"].append(released("autopet22", 2).removesuffix("_0") + "_1")
    return found


def write_world(root: Path) -> list[str]:
    """Write the trees and the lists; return the hashes of the lists. One PET/CT patient has two studies."""
    known = dataset_cards()
    for task in UPSTREAM + DOWNSTREAM:
        card = known[task]
        write_tree(root, task, card, numbers=NUMBERS.get(task, FEW))
    study = root / known["autopet22"]["folder"] / "PETCT_0000000002" / "01-02-2003-NA-PET-CT"
    shutil.copytree(study, study.with_name("02-02-2004-NA-PET-CT"))
    hashes = []
    for name, tasks in zip(PAPER["data"]["split_files"], (UPSTREAM, ["vs_seg"]), strict=True):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps([sides(tasks)]))
        hashes.append(sha256_of(path))
    return hashes


pytestmark = pytest.mark.slow  # minutes: 13 data sets from raw files to tables


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> Workflow:
    """The finished run."""
    folder = tmp_path_factory.mktemp("paper")
    hashes = write_world(folder / "data")
    config = copy.deepcopy(PAPER)
    for section, cut in CUTS.items():
        config[section] |= cut
    config["downstream"] |= {"training": {"iterations_per_task": 1}, "initialisations": STARTS}
    for entry in config["downstream"]["models"]:
        entry["task_network"] = {task: {"patch_size_zyx": [16, 16, 32]} for task in entry["task_network"]}
    config["data"] |= {
        "accept_partial": [t for t in UPSTREAM + DOWNSTREAM if t != "btcv"],
        "accept_split_files": hashes,
    }
    workflow = Workflow(folder, config)
    workflow.environment["SEGBENCH_DATA"] = str(folder / "data")
    result = workflow.run(limit_seconds=1800)
    assert result.returncode == 0, result.stdout[-4000:]
    return workflow


def table(paper: Workflow) -> pd.DataFrame:
    return pd.read_csv(paper.results / "scores.csv", dtype=str, keep_default_na=False)


def test_every_expected_row_of_all_13_tasks_is_scored(paper):
    rows = table(paper)
    splits = read_splits(paper.results / "splits.json")
    expected = set(expected_keys(load_config(paper.results / "config.json"), splits))
    assert set(map(tuple, rows[list(KEY_COLUMNS)].to_numpy())) == expected
    assert len(rows) == len(expected)
    assert "failed" not in set(rows.status)
    assert set(rows.task) == set(UPSTREAM + DOWNSTREAM)
    assert set(rows.model) >= {"uniseg", "dodnet", "multi_head", "single_task", "oracle", "mean_shape", "empty"}
    assert set(rows[rows.task == "vs_seg"].initialisation) == {"none", "scratch", "multi_head", "dodnet", "uniseg"}
    assert set(rows[rows.model == "uniseg"].recipe) == {"equal", "published"}
    assert rows[rows.task == "btcv"].structure.nunique() == 13


def test_the_lists_are_followed_and_repaired(paper):
    splits = json.loads((paper.results / "splits.json").read_text())
    fold = splits["folds"]["0"]
    assert {task: len(fold[task]["test"]) for task in fold} == dict.fromkeys(UPSTREAM + DOWNSTREAM, 1) | {"btcv": 9}
    said = "; ".join(splits["changes"])
    assert "kits19: kidney_1: on both sides" in said
    assert "autopet22: PETCT_0000000002_1: patient PETCT_0000000002 is on both sides, moved to training" in said
    assert len(fold["autopet22"]["train"]) == 3
    assert set(table(paper).protocol) == {"corrected", "btcv_21_9"}
    assert len((paper.results / "audit.csv").read_text().splitlines()) == 1, "no leak is left"


def test_the_oracle_walks_every_layout_back_to_its_own_grid(paper):
    rows = table(paper)
    oracle = rows[(rows.model == "oracle") & (rows.metric == "dice")]
    worst = oracle.assign(value=oracle.value.astype(float)).groupby("task").value.mean()
    assert worst.min() > 0.5, worst


def test_the_tables_name_every_task_and_what_is_partial(paper):
    report = paper.results / "report"
    page = (report / "index.html").read_text()
    for task in UPSTREAM + DOWNSTREAM:
        assert dataset_cards()[task]["title"] in page
    assert "Only 3 of 210 labelled cases" in page
    assert "is not a released file" in page
    assert list(report.rglob("*.csv"))
