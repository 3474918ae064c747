"""Sections `upstream` and `downstream`: tasks, models, objectives, controls and initialisations."""

import pytest

from segbench.experiment.config import parse_config
from tests.unit.experiment.configs import changed, demo, lines, only


def with_models(*entries) -> dict:
    content = demo()
    content["upstream"]["models"] += entries
    return content


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "uniseg", "id": "u", "options": {"promt": "none"}}, "did you mean 'prompt'?"),
        ({"name": "uniseg", "id": "u", "options": {"position": "two"}}, "a finite value of type int"),
        ({"name": "uniseg", "id": "u", "options": {"position": True}}, "a finite value of type int"),
        ({"name": "tal", "id": "t", "options": {"share_names": 1}}, "a finite value of type bool"),
        ({"name": "nnformer", "id": "n", "options": {"drop_path": 1}}, "1; expected a number at least 0 and below 1"),
        ({"name": "swin_unetr", "id": "s", "options": {"window_size": 0}}, "window_size: found 0"),
        ("uniseq", "did you mean 'uniseg'?"),
        ("oracle", "'oracle'; expected the name of a model"),
        ("uniseg", "'uniseg' twice"),
        ({"name": "uniseg", "id": "UniSeg"}, "'uniseg' and 'UniSeg'; expected ids that differ in more than case"),
        ({"name": "multi_head", "id": "multi__head"}, "'multi_head' and 'multi__head'; expected ids that differ"),
        ({"name": "uniseg", "id": "empty"}, "'empty'; expected an id that is no control's"),
        ({"name": "uniseg", "id": "a.b"}, "upstream.models.4.id"),
        ({"name": "uniseg", "id": "a/b"}, "upstream.models.4.id"),
        ({"name": "uniseg", "id": ""}, "upstream.models.4.id"),
        ({"name": "uniseg", "id": "a\n"}, "upstream.models.4.id"),
        ({"name": "../uniseg"}, "upstream.models.4.name"),
        ("", "upstream.models.4.name"),
    ],
)
def test_a_model_that_is_not_one_of_its_own_is_refused(entry, message):
    assert message in "\n".join(lines(with_models(entry)))


def test_options_that_a_card_has_are_accepted():
    entry = {"name": "uniseg", "id": "u", "options": {"position": 2, "prompt": "none"}}
    assert parse_config(with_models(entry), where="x").model_entry("u").options == entry["options"]


@pytest.mark.parametrize("run", ["", "a/b", "..", "a b", "a.b", "_a", "é", "a\n"])
def test_a_run_is_one_folder(run):
    assert only(demo() | {"run": run}).startswith("config.yaml: run: found")


@pytest.mark.parametrize("seeds", [[0, 0], [-1], [], ["a"], [0.5], [float("inf")]])
def test_seeds_are_distinct_whole_numbers(seeds):
    assert only(demo() | {"seeds": seeds}).startswith("config.yaml: seeds")


@pytest.mark.parametrize("key", ["upstream.tasks", "downstream.tasks", "upstream.controls", "downstream.controls"])
def test_names_in_a_list_come_once(key):
    section, name = key.split(".")
    value = demo()[section][name]
    assert f"{key}: found {value[0]!r} twice" in only(changed(key, [*value, value[0]]))


@pytest.mark.parametrize("key", ["upstream.controls", "downstream.controls"])
def test_a_network_is_no_control(key):
    assert f"{key}: found 'uniseg'" in only(changed(key, ["uniseg"]))


def test_the_ceiling_is_always_there():
    assert parse_config(changed("upstream.controls", ["empty"]), where="x").upstream.controls == ("oracle", "empty")


CARD = """
title: Mine
layout: msd
folder: Mine
channels: [{name: CT, modality: CT}]
classes: {"1": thing}
structures: [{name: thing, labels: [1], tolerance_mm: 1}]
preprocessing: default
patient_namespace: mine
synthetic: true
licence: none
permits: {commercial: false, show_images: false}
citation: none
url: ""
obtain: ask
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-task", "letters, digits and underscores"),
        ("my task", "letters, digits and underscores"),
        ("joint", "and not joint"),
        ("All_Tasks", "and not joint or all_tasks"),
        ("Phantom_Liver", "a new name"),
    ],
)
def test_a_card_whose_name_cannot_be_a_file_name_everywhere_is_refused(tmp_path, name, message):
    (tmp_path / f"{name}.yaml").write_text(CARD)
    content = changed("data.cards", [str(tmp_path)])
    content["upstream"]["tasks"].append(name)
    assert message in only(content)


def test_a_card_of_ones_own_is_a_task(tmp_path):
    (tmp_path / "my_task.yaml").write_text(CARD)
    content = changed("data.cards", [str(tmp_path)])
    content["upstream"]["tasks"].append("my_task")
    assert parse_config(content, where="x").task("my_task").title == "Mine"


def with_objectives(*entries) -> dict:
    content = demo()
    content["upstream"]["self_supervised"] = list(entries)
    content["downstream"]["initialisations"] += [entry if isinstance(entry, str) else entry["id"] for entry in entries]
    return content


def test_self_supervised_objectives_are_named_with_options_and_ids():
    content = with_objectives(
        "restoration", {"name": "masked_autoencoder", "id": "mae_90", "options": {"mask_ratio": 0.9}}
    )
    config = parse_config(content, where="x")
    assert config.is_self_supervised("mae_90")
    assert not config.is_self_supervised("uniseg")
    assert config.card("mae_90")["title"] == "Masked autoencoder"
    assert config.card("uniseg")["title"] == "UniSeg"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("restorashun", "did you mean 'restoration'?"),
        ({"name": "restoration", "id": "r", "options": {"curves": 1}}, "did you mean 'curve'?"),
        ({"name": "masked_autoencoder", "id": "m", "options": {"mask_ratio": float("nan")}}, "a finite value"),
        ({"name": "restoration", "id": "uniseg"}, "'uniseg' twice"),
        (
            {"name": "restoration", "id": "r", "options": {"curve": 3.0}},
            "3.0; expected a number at least 0 and at most 1",
        ),
        ({"name": "volume_contrast", "id": "v", "options": {"momentum": 1.5}}, "options.momentum: found 1.5"),
        ({"name": "volume_contrast", "id": "v", "options": {"crops": 0}}, "found 0; expected a number at least 1"),
    ],
)
def test_an_objective_that_is_not_known_is_refused(entry, message):
    assert message in "\n".join(lines(with_objectives(entry)))


def test_an_objective_that_is_no_initialisation_is_refused():
    content = demo()
    content["upstream"]["self_supervised"] = ["restoration"]
    assert "add restoration to downstream.initialisations" in only(content)
    del content["downstream"]
    assert "which is no initialisation" in only(content)


def test_an_objective_needs_a_downstream_network_on_the_shared_backbone():
    content = with_objectives("restoration")
    content["downstream"]["models"] = ["unetr"]
    assert "unetr in downstream.models, which has its own backbone" in "\n".join(lines(content))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("scratch", "'scratch' twice"),
        ("Scratch", "'scratch' and 'Scratch'; expected names that differ in more than case"),
        ("single_task", "expected scratch, a universal model of upstream"),
        ({"name": "random", "file": "w.pt"}, "'random' with a file"),
        ({"name": "w", "file": ""}, "downstream.initialisations.4.file"),
        ({"name": "w", "file": "w.pt", "sha256": "12"}, "downstream.initialisations.4.sha256"),
        ({"name": "w", "file": "w.pt", "format": "segbensh"}, "did you mean 'segbench'?"),
        ({"name": "w", "file": "w.pt", "minimum_fraction": float("nan")}, "minimum_fraction"),
        ({"name": "w", "file": "w.pt", "probe": [0, 0, 0, float("inf")]}, "probe"),
        ({"name": "uniseg2", "format": "segbench", "sha256": "0" * 64}, "a file beside format, sha256"),
        ({"name": "a/b", "file": "w.pt"}, "downstream.initialisations.4.name"),
        (
            {"name": "w", "file": "w.pt", "trained_on": {"btcv": "some"}},
            "4.trained_on: found {'btcv': 'some'}; expected unknown, or a mapping",
        ),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(entry, message):
    content = demo()
    content["downstream"]["initialisations"].append(entry)
    assert message in "\n".join(lines(content))


def test_one_id_stands_for_one_network():
    content = demo()
    content["upstream"]["models"][3] = {"name": "single_task", "options": {}}
    parse_config(content, where="config.yaml")
    content["upstream"]["models"][3] = {"name": "swin_unetr", "options": {"window_size": 4}}
    content["downstream"]["models"] = ["swin_unetr"]
    line = only(content)
    assert "downstream.models" in line
    assert "an id of its own" in line


MASKS = {"name": "mine", "title": "Mine", "predictions": "masks/{task}"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions": None}, "both or neither"),
        ({"predict": "x {job}"}, "both or neither"),
        ({"train": "x {job}"}, "a command beside predictions"),
        ({"predictions": "masks"}, "no {task}"),
        ({"predictions": "masks/{task}/{sed}"}, "did you mean 'seed'?"),
        ({"predictions": "masks/{task"}, "fields in braces"),
        ({"predictions": "masks/{task:d}"}, "Unknown format code 'd'"),
        ({"predict": "run {job} {fold:03d}"}, "Unknown format code 'd'"),
        ({"predict": "run {job!x}"}, "fields in braces"),
        ({"predictions": ""}, "predictions"),
        ({"title": ""}, "title"),
        ({"name": "UNISEG"}, "differ in more than case"),
        ({"name": "uniseg"}, "'uniseg' twice"),
        ({"name": "oracle"}, "no control's"),
        ({"tasks": ["phantom_livr"]}, "did you mean 'phantom_liver'?"),
        ({"tasks": ["phantom_liver", "phantom_liver"]}, "'phantom_liver' twice"),
        ({"limit_minutes": float("inf")}, "limit_minutes"),
    ],
)
def test_an_external_model_that_cannot_be_meant_is_refused(change, message):
    assert message in "\n".join(lines(changed("upstream.external", [MASKS | change])))


TEXT = "A computed tomography of a spleen."
TOLD = {"name": "mine", "title": "Mine", "tasks": ["phantom_spleen"], "predict": "x {job}"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": {"phantom_splen": {"spleen": TEXT}}}, "did you mean 'phantom_spleen'?"),
        ({"prompts": {"phantom_liver": {"liver": TEXT}}}, "a task of this model"),
        ({"prompts": {"phantom_spleen": {"splen": TEXT}}}, "did you mean 'spleen'?"),
        ({"prompts": {"phantom_spleen": {}}}, "no text for spleen"),
        ({"prompts": {"phantom_spleen": {"spleen": " "}}}, "prompts.phantom_spleen.spleen"),
        (
            {"prompts": {"phantom_spleen": {"spleen": TEXT}}, "tasks": ["phantom_spleen", "phantom_liver"]},
            "no texts for",
        ),
        ({"support_cases": -1}, "support_cases"),
        ({"support_cases": 1, "predict": None, "predictions": "masks"}, "give predict, or no support_cases"),
    ],
)
def test_prompts_and_support_cases_that_cannot_be_meant_are_refused(change, message):
    assert message in "\n".join(lines(changed("upstream.external", [TOLD | change])))


def test_masks_of_an_external_model_are_accepted():
    assert parse_config(changed("upstream.external", [MASKS]), where="x").external("mine").title == "Mine"
