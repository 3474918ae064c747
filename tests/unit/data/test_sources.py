"""Every data-set card is whole, and every official layout goes from raw to preprocessed without renaming a file."""

import dataclasses
import re

import numpy as np
import pytest
import yaml

from segbench.core import cards
from segbench.core.errors import InputError
from segbench.data.checks import check_task
from segbench.data.ingest import discover, ingest
from segbench.data.intensities import with_intensities
from segbench.data.preprocess import preprocess_case
from segbench.data.preprocessing_recipes import PREPROCESSING_RECIPES, preprocessing_recipe
from segbench.data.readers import read_label
from segbench.data.store import open_case
from segbench.experiment.config import parse_config
from tests.unit.data.miniature import CASES, write_tree

CARDS = cards.dataset_cards()
OFFICIAL = (
    "lits",
    "kits19",
    "msd_hepatic_vessel",
    "msd_pancreas",
    "msd_colon",
    "msd_lung",
    "msd_spleen",
    "verse20",
    "prostate_saml",
    "brats21",
    "autopet22",
    "btcv",
    "btcv_8_organs",
    "vs_seg",
)


@pytest.mark.parametrize("name", CARDS)
def test_a_card_makes_a_task_with_a_known_recipe(name):
    task = cards.task_from_card(name, CARDS[name])
    assert preprocessing_recipe(task, {}).name in PREPROCESSING_RECIPES
    assert all(value <= len(task.classes) for structure in task.structures for value in structure.labels)
    assert set(CARDS[name]["merge"].values()) <= set(range(task.num_classes))


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_layout_goes_from_raw_to_preprocessed(name, tmp_path):
    card = CARDS[name]
    write_tree(tmp_path, name, card)
    task = cards.task_from_card(name, card)
    found = check_task(task, card, tmp_path).problems
    assert [item.found for item in found] == [f"{CASES} labelled cases"], "only the number of cases is short"
    cases = ingest(task, card, tmp_path)
    assert len({case.case_id for case in cases}) == CASES
    coarse = dataclasses.replace(preprocessing_recipe(task, {}), spacing_mm_zyx=(6.0, 4.0, 4.0))
    names = [case.case_id for case in cases[1:]]
    recipe = with_intensities(coarse, cases, task, card, sides={0: names})[0]
    preprocessed = open_case(preprocess_case(cases[0], task, card, recipe, store_root=tmp_path / "store"))
    assert preprocessed.images.shape == (task.num_channels, 12, 18, 20)
    assert set(np.unique(read_label(cases[0], card))) == set(range(task.num_classes))
    assert set(np.unique(preprocessed.labels[:])) == set(range(task.num_classes))


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_absent_data_set_says_how_to_get_it(name, tmp_path):
    with pytest.raises(InputError) as caught:
        discover(name, CARDS[name], tmp_path)
    assert CARDS[name]["obtain"].split()[0] in caught.value.problems[0].fix


@pytest.mark.parametrize("name", OFFICIAL)
def test_hidden_files_of_a_mac_are_no_cases(name, tmp_path):
    write_tree(tmp_path, name, CARDS[name], cases=2)
    for path in list(tmp_path.rglob("*.nii*")):
        path.with_name(f"._{path.name}").write_bytes(b"finder")
    assert len(discover(name, CARDS[name], tmp_path)) == 2


def test_lits_is_read_as_the_decathlon_has_it(tmp_path):
    card = CARDS["lits"]
    write_tree(tmp_path, "task03", card | {"layout": "msd", "folder": "LiTS/Task03_Liver"}, cases=2)
    assert len(ingest(cards.task_from_card("lits", card), card, tmp_path)) == 2


def test_brats_enhancing_tumour_is_merged_to_class_three(tmp_path):
    write_tree(tmp_path, "brats21", CARDS["brats21"], cases=1)
    (case,) = ingest(cards.task_from_card("brats21", CARDS["brats21"]), CARDS["brats21"], tmp_path)
    assert len(case.image_paths) == 4
    assert case.image_paths[1].endswith("_t1ce.nii.gz")
    assert read_label(case, CARDS["brats21"]).max() == 3


def test_an_autopet_case_is_named_by_patient_and_study(tmp_path):
    write_tree(tmp_path, "autopet22", CARDS["autopet22"], cases=2)
    first, second = discover("autopet22", CARDS["autopet22"], tmp_path)
    assert first.case_id == "PETCT_0000000001_01-02-2003-NA-PET-CT"
    assert (first.patient_id, second.patient_id) == ("PETCT_0000000001", "PETCT_0000000002")


def test_a_users_own_data_set_needs_a_card_and_no_code(tmp_path):
    folder = tmp_path / "cards"
    folder.mkdir()
    card = {key: value for key, value in CARDS["msd_spleen"].items() if value not in ({}, None)}
    (folder / "my_spleen.yaml").write_text(yaml.safe_dump(card | {"title": "My spleen", "folder": "mine"}))
    found = cards.dataset_cards([folder])
    write_tree(tmp_path, "my_spleen", found["my_spleen"])
    assert len(discover("my_spleen", found["my_spleen"], tmp_path)) == CASES


def test_a_case_in_whose_id_the_pattern_finds_no_patient_is_refused(tmp_path):
    write_tree(tmp_path, "msd_spleen", CARDS["msd_spleen"], cases=2)
    one, other = (case.case_id for case in discover("msd_spleen", CARDS["msd_spleen"], tmp_path))
    with pytest.raises(InputError, match=f"patient_pattern: found .*, which finds no patient in {other};"):
        discover("msd_spleen", CARDS["msd_spleen"] | {"patient_pattern": f"({one})"}, tmp_path)
    every = CARDS["msd_spleen"] | {"patient_pattern": f"({one}|.+)"}
    assert {case.patient_id for case in discover("msd_spleen", every, tmp_path)} == {one, other}


def test_a_card_with_an_unknown_key_is_refused(tmp_path):
    card = {key: value for key, value in CARDS["msd_spleen"].items() if value not in ({}, None)}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(card | {"licens": "CC0"}))
    with pytest.raises(InputError, match="did you mean 'licence'"):
        cards.dataset_cards([tmp_path])


def test_the_documented_card_and_config_lines_are_enough(tmp_path, monkeypatch):
    """docs/add_a_dataset.md, word by word: its card, its config, its small budget and its structures."""
    page = (cards.ROOT / "docs" / "add_a_dataset.md").read_text()
    card, *parts = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "my_liver.yaml").write_text(card.replace("{total: 40}", f"{{total: {CASES}}}"))
    monkeypatch.chdir(tmp_path)
    config = parse_config({key: value for part in parts for key, value in yaml.safe_load(part).items()}, where="docs")
    found = config.dataset_cards["my_liver"]
    write_tree(tmp_path, "my_liver", found)
    assert not check_task(config.task("my_liver"), found, tmp_path).problems
    assert config.task("my_liver").structures[2].labels == (1, 2)
    assert config.task("lits").structures[0].labels == (1, 2)
