"""Cards are literals that are read without importing; names and values that a schema cannot see are checked."""

import re

import pytest
import yaml

from segbench.core import cards
from segbench.core.errors import InputError
from segbench.core.paths import JOB_PATTERN, NAME_PATTERN
from tests.paths import ROOT

SPLEEN = cards.dataset_cards()["msd_spleen"]


def test_every_name_of_a_card_is_a_wildcard_of_the_workflow():
    for known in (cards.dataset_cards(), cards.model_cards(), cards.objective_cards()):
        for name in known:
            assert re.fullmatch(NAME_PATTERN, name)
            assert re.fullmatch(JOB_PATTERN, f"upstream.{name}.random.{name}.f0.s0")


def test_the_workflow_takes_its_wildcards_from_one_home():
    text = (ROOT / "workflow" / "Snakefile").read_text()
    constraints = text.split("wildcard_constraints:")[1].split("\n\n")[0]
    assert "task=NAME_PATTERN" in constraints
    assert "job=JOB_PATTERN" in constraints


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("X = 1\n", "no CARD"),
        ("CARD = dict(a=1)\n", "a CARD that computes"),
        ("CARD = {\n", "a Python file with a CARD"),
    ],
)
def test_a_file_without_a_literal_card_is_refused(tmp_path, text, message):
    (tmp_path / "model.py").write_text(text)
    with pytest.raises(InputError, match=message):
        cards.read_card(tmp_path / "model.py")


def test_reading_a_card_runs_nothing(tmp_path):
    (tmp_path / "model.py").write_text("raise SystemExit\nCARD = {'title': 'x'}\n")
    assert cards.read_card(tmp_path / "model.py") == {"title": "x"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": {"1": "a", "3": "b"}}, r"class values \[1, 3\]"),
        ({"classes": {"spleen": "1"}}, r"class values \['spleen'\]"),
        ({"classes": {"0": "background", "1": "a"}}, "class values .*leave 0, the background, out"),
        ({"classes": {"²": "a"}}, r"class values \['²'\]"),
        ({"classes": {"01": "a"}}, "the class value '01'; expected a number without zeros before it; write 1$"),
        ({"classes": {"1": "a", "2": "a"}}, "the class 'a' twice"),
        ({"structures": [{"name": "s", "labels": [2], "tolerance_mm": 1.0}]}, r"labels \[2\]"),
        ({"structures": [{"name": "s", "labels": [1], "tolerance_mm": 1.0}] * 2}, "the structure 's' twice"),
        (
            {"structures": [{"name": name, "labels": [1], "tolerance_mm": 1.0} for name in ("the organ", "The_organ")]},
            "the structures 'The_organ' and 'the organ'; expected names that differ",
        ),
        ({"patient_pattern": "("}, "a regular expression"),
        ({"patient_pattern": "a"}, "0 groups"),
        ({"patient_pattern": "(a{99999999999})"}, "a regular expression"),
    ],
)
def test_values_that_the_schema_cannot_see(change, message):
    with pytest.raises(InputError, match=message):
        cards.task_from_card("msd_spleen", SPLEEN | change)


@pytest.mark.parametrize(
    "change",
    [
        {"structures": [{"name": "s", "labels": [1], "tolerance_mm": float("nan")}]},
        {"structures": [{"name": "s", "labels": [1], "tolerance_mm": float("inf")}]},
        {"version": "1"},
        {"permits": {"commercial": True, "show_images": True, "redistribute": True}},
        {"layout": "other"},
    ],
)
def test_departures_from_the_schema_are_refused(change):
    with pytest.raises(InputError):
        cards.checked(SPLEEN | change, cards.DatasetCard, "card")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"licenses": "x"}, "card: licenses: found an unknown key; expected a known key; did you mean 'licence'?"),
        (
            {"structures": [{"name": "s", "labels": [1], "tolerance": 1.0}]},
            "card: structures.0.tolerance_mm: found nothing; expected a value; see docs/add_a_dataset.md\n"
            "card: structures.0.tolerance: found an unknown key; expected a known key; did you mean 'tolerance_mm'?",
        ),
        (
            {"classes": {"spleen": 1}},
            'card: classes: found {\'spleen\': 1}; expected value: name; write {"1": liver, "2": tumour}',
        ),
        (
            {"merge": {"3-a": 1}},
            "card: merge: found '3-a'; expected a label value, or a range of them; write 3: 2, or \"1-28\": 1",
        ),
    ],
)
def test_a_departure_is_named_by_its_key_with_the_fix(change, line):
    with pytest.raises(InputError) as error:
        cards.checked(SPLEEN | change, cards.DatasetCard, "card")
    assert str(error.value) == line


def test_a_card_without_a_key_names_it_and_not_the_whole_card():
    card = {key: value for key, value in SPLEEN.items() if key != "licence"}
    with pytest.raises(InputError) as error:
        cards.checked(card, cards.DatasetCard, "card")
    assert str(error.value) == "card: licence: found nothing; expected a value; see docs/add_a_dataset.md"


def write_card(folder, text):
    (folder / "mine.yaml").write_text(text)
    return cards.dataset_cards([folder])["mine"]


def test_a_class_value_that_yaml_reads_as_a_number_is_taken(tmp_path):
    text = yaml.safe_dump(SPLEEN | {"classes": {1: "spleen"}})
    assert write_card(tmp_path, text)["classes"] == {"1": "spleen"}


def test_a_key_that_a_card_has_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="the key 'title' in lines"):
        write_card(tmp_path, yaml.safe_dump(SPLEEN) + "title: again\n")


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"mine\.yaml: found list; expected a mapping of keys"):
        write_card(tmp_path, "- title\n")


NETWORK = cards.read_card(cards.MODEL_FOLDER / "swin_unetr.py")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": " "}, "title: found ' '"),
        ({"channels": []}, "channels"),
        ({"patch_multiple": [32, 32]}, "patch_multiple"),
        ({"patch_multiple": [0, 0, 0]}, "patch_multiple"),
        ({"options": {"width": 0.1}}, "options.width"),
        ({"options": {"width": {"default": 0.1}}}, "options: found width: .*and a help"),
        ({"options": {"width": {"help": "how wide"}}}, "options: found width: .*a default that is"),
        ({"options": {"width": {"default": [1], "help": "how wide"}}}, "options: found width: .*a default that is"),
        ({"options": {"width": {"default": 1, "help": "how wide", "lable": "x"}}}, "did you mean 'label'"),
    ],
)
def test_a_model_card_that_would_fail_later_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        cards.checked(NETWORK | change, cards.ModelCard, "models/baselines/mine.py")


@pytest.mark.parametrize("name", ["oracle", "uniseg"])
def test_a_baseline_with_the_name_of_another_model_is_not_passed_over(name, tmp_path, monkeypatch):
    (tmp_path / f"{name}.py").write_text(f"CARD = {NETWORK!r}\n")
    monkeypatch.setattr(cards, "MODEL_FOLDER", tmp_path)
    monkeypatch.setattr(cards, "ROOT", tmp_path)
    monkeypatch.setattr(cards, "CONTROL_FOLDER", tmp_path / "controls")
    monkeypatch.setattr(cards, "UNISEG_FILE", tmp_path / "uniseg" / "__init__.py")
    (tmp_path / "controls").mkdir()
    (tmp_path / "controls" / "oracle.py").write_text('CARD = {"title": "Oracle", "predicts": "the reference"}\n')
    with pytest.raises(InputError, match=f"{name}.py: found the name of .*rename the file"):
        cards.model_cards()


def test_what_a_model_cannot_serve():
    task = cards.task_from_card("msd_spleen", SPLEEN)
    card = {"title": "Net", "channels": [2, 4], "max_classes": None}
    assert "accepts 2, 4 channel(s), the task has 1" in (cards.supports(card, task) or "")
    assert cards.supports(card | {"channels": "any"}, task) is None
    assert "has 0 foreground" in (cards.supports(card | {"channels": [1], "max_classes": 0}, task) or "")


def test_a_patient_is_the_group_of_the_pattern():
    assert cards.patient_of({"patient_pattern": r"^(P\d+)_"}, "P7_a") == "P7"
    assert cards.patient_of({"patient_pattern": r"^(P\d+)_"}, "Q7") == "Q7"
    assert cards.patient_of({}, "Q7") == "Q7"
    assert cards.patient_of({"patient_pattern": r"^Q(a?)"}, "Q7") == "Q7"


@pytest.mark.parametrize(("pattern", "patient"), [(r"P\d+", "P7"), (r"P(\d+)", "7"), ("Q", None), ("Q*", None)])
def test_a_pattern_finds_its_group_or_its_whole_match(pattern, patient):
    assert cards.matched_patient(pattern, "P7_a") == patient


def test_a_published_recipe_is_stated_once_and_completed_from_the_card_that_it_names():
    found = {name: card["published_recipe"] for name, card in cards.model_cards().items() if card["kind"] != "control"}
    assert found["single_task"] == found["nnunet_plain"]
    assert found["multitalent"]["keys"] == found["nnunet_plain"]["keys"] | {"schedule": "sqrt"}
    assert found["multitalent"]["source"] != found["nnunet_plain"]["source"]


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"as": "nnunet_plian"}, "did you mean 'nnunet_plain'?"),
        ({"as": "single_task"}, "a model whose card states a recipe itself"),
        ({"source": "a paper"}, "without source or keys"),
    ],
)
def test_a_recipe_that_cannot_be_completed_is_refused(recipe, words, tmp_path, monkeypatch):
    text = (cards.MODEL_FOLDER / "nnunet_resenc.py").read_text(encoding="utf-8")
    for name in ("nnunet_plain", "single_task"):
        (tmp_path / f"{name}.py").write_text((cards.MODEL_FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    (tmp_path / "other.py").write_text(text.replace('{"as": "nnunet_plain"}', repr(recipe)))
    monkeypatch.setattr(cards, "MODEL_FOLDER", tmp_path)
    monkeypatch.setattr(cards, "ROOT", tmp_path)
    monkeypatch.setattr(cards, "CONTROL_FOLDER", tmp_path / "controls")
    monkeypatch.setattr(cards, "UNISEG_FILE", tmp_path / "uniseg")
    with pytest.raises(InputError, match=re.escape(words)):
        cards.model_cards()
