"""The config refuses what it does not know, names every problem at once and suggests the fix."""

from pathlib import Path

import pytest
import yaml

from segbench.core.errors import InputError
from segbench.experiment.config import load_config, parse_config, schema
from tests.paths import ROOT


def demo() -> dict:
    return yaml.safe_load((ROOT / "config" / "config.yaml").read_text())


def lines(content: dict) -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_config(content, where="config.yaml")
    return [problem.line() for problem in caught.value.problems]


def test_an_unknown_key_is_refused_with_a_suggestion():
    content = demo()
    content["training"]["iteration_per_task"] = 5
    (line,) = lines(content)
    assert "training.iteration_per_task" in line
    assert "did you mean 'iterations_per_task'?" in line


def test_all_problems_come_at_once():
    content = demo()
    content["upstream"]["tasks"][0] = "phantom_livr"
    content["upstream"]["models"][0] = "uniseq"
    content["network"]["patch_size_zyx"] = [30, 32, 32]
    content["metrics"] = ["dise"]
    found = "\n".join(lines(content))
    for part in ("did you mean 'phantom_liver'?", "did you mean 'uniseg'?", "30 along z", "did you mean 'dice'?"):
        assert part in found


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("patch_size_zyx", [8, 8, 8], "pooled to one position"),
        ("conv_kernels_zyx", [[3, 3, 3], [3, 3, 3], [3, 2, 3], [3, 3, 3]], "odd sizes"),
        ("pool_kernels_zyx", [[2, 2, 2], [0, 2, 2], [2, 2, 2]], "greater than 0"),
    ],
)
def test_a_network_that_cannot_run_is_refused(key, value, expected):
    content = demo()
    content["network"][key] = value
    (line,) = lines(content)
    assert f"network.{key}" in line
    assert expected in line


def test_an_impossible_value_names_key_and_rule():
    content = demo()
    content["training"]["momentum"] = 1.5
    assert "training.momentum: found 1.5" in lines(content)[0]


def test_a_wrong_downstream_key_is_refused():
    content = demo()
    content["downstream"]["training"] = {"momentun": 0.9}
    assert "did you mean 'momentum'?" in lines(content)[0]


def test_a_missing_data_root_is_named(monkeypatch):
    monkeypatch.delenv("SEGBENCH_DATA", raising=False)
    content = demo()
    del content["data"]["root"]
    assert "SEGBENCH_DATA" in lines(content)[0]


def test_the_environment_gives_the_data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path))
    content = demo()
    del content["data"]["root"]
    assert parse_config(content, where="x").data_root == tmp_path


def test_a_model_option_that_its_card_lacks_is_refused():
    content = demo()
    content["upstream"]["models"][0] = {"name": "uniseg", "options": {"promt": "none"}}
    assert "did you mean 'prompt'?" in lines(content)[0]


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
        ({"name": "restoration", "id": "uniseg"}, "'uniseg' twice"),
    ],
)
def test_an_objective_that_is_not_known_is_refused(entry, message):
    assert message in "\n".join(lines(with_objectives(entry)))


def test_an_objective_from_which_nothing_starts_is_refused():
    content = demo()
    content["upstream"]["self_supervised"] = ["restoration"]
    (line,) = lines(content)
    assert "add restoration to downstream.initialisations" in line
    del content["downstream"]
    assert "from which nothing starts" in lines(content)[0]


def test_an_objective_needs_a_downstream_network_on_the_shared_backbone():
    content = with_objectives("restoration")
    content["downstream"]["model"] = "unetr"
    assert "unetr as downstream.model, which has its own backbone" in "\n".join(lines(content))


def test_a_file_that_is_not_yaml_is_a_problem(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("run: [")
    with pytest.raises(InputError, match="not YAML"):
        load_config(path)


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "config").glob("*.yaml")))
def test_every_shipped_config_is_valid(name, monkeypatch, tmp_path):
    monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path))
    assert load_config(ROOT / "config" / name).run == ("demo" if name == "config.yaml" else Path(name).stem)


def test_the_schema_file_and_the_key_list_are_in_step():
    from segbench.documentation.config import keys_page, schema_text

    remedy = "run: python -m segbench.documentation.config"
    assert (ROOT / "config" / "schema.json").read_text() == schema_text(), remedy
    assert (ROOT / "config" / "README.md").read_text() == keys_page(), remedy
    assert "upstream" in schema()["properties"]


LIVER_WITH_TUMOUR = {"name": "liver with tumour", "labels": [1, 2], "tolerance_mm": 3.0}


def test_an_organ_may_include_its_tumour_by_config():
    content = demo() | {"structures": {"phantom_liver": [LIVER_WITH_TUMOUR]}}
    (structure,) = parse_config(content, where="x").task("phantom_liver").structures
    assert structure.labels == (1, 2)


@pytest.mark.parametrize(
    ("structures", "words"),
    [
        ({"phantom_livr": [LIVER_WITH_TUMOUR]}, "did you mean 'phantom_liver'?"),
        ({"phantom_liver": [LIVER_WITH_TUMOUR | {"labels": [1, 7]}]}, "labels [7]"),
        ({"phantom_liver": [{"name": "liver", "labels": [1]}]}, "tolerance_mm"),
        ({"phantom_liver": []}, "structures.phantom_liver"),
    ],
)
def test_structures_that_do_not_fit_are_problems(structures, words):
    assert words in "\n".join(lines(demo() | {"structures": structures}))


@pytest.mark.parametrize("key", ["accept_partial", "task_protocols"])
def test_names_of_tasks_below_data_are_checked(key):
    content = demo()
    content["data"][key] = {"phantom_livr": "kfold"} if key == "task_protocols" else ["phantom_livr"]
    assert "did you mean 'phantom_liver'?" in "\n".join(lines(content))


def test_one_id_stands_for_one_network():
    content = demo()
    content["upstream"]["models"][3] = {"name": "single_task", "options": {}}
    parse_config(content, where="config.yaml")
    content["upstream"]["models"][3] = {"name": "swin_unetr", "options": {"window_size": 4}}
    content["downstream"]["model"] = "swin_unetr"
    (line,) = lines(content)
    assert "downstream.model" in line
    assert "an id of its own" in line
