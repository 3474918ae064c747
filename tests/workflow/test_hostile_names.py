"""Values of the config reach the shell as they are: none is split, expanded or executed."""

import copy

import pytest
from pydantic import TypeAdapter, ValidationError

from segbench.experiment.config.section import Name
from tests.workflow.tiny import CONFIG, Workflow

HOSTILE = "raw 'one' \"two\" $(touch hostile) `touch hostile` $HOME; touch hostile & *"


@pytest.mark.slow
def test_a_data_folder_with_blanks_quotes_and_commands_is_written_and_read(tmp_path):
    config = copy.deepcopy(CONFIG)
    config["data"] |= {"root": HOSTILE, "phantom": {"seed": 5, "train_cases": 2, "test_cases": 1}}
    config["upstream"] = {"tasks": ["phantom_spleen"], "models": ["single_task"], "controls": ["empty"]}
    del config["downstream"]
    ended = Workflow(tmp_path, config).run("--until", "ingest")
    assert ended.returncode == 0, ended.stdout
    assert list((tmp_path / HOSTILE).glob("*/imagesTr/*.nii.gz"))
    assert (tmp_path / "results" / "tiny" / "manifest" / "phantom_spleen.csv").exists()
    assert not list(tmp_path.rglob("hostile"))


@pytest.mark.parametrize("root", ["raw/{braces}", "raw\nsecond line"])
def test_a_data_folder_that_the_workflow_cannot_name_is_refused(tmp_path, root):
    config = copy.deepcopy(CONFIG)
    config["data"]["root"] = root
    ended = Workflow(tmp_path, config).run("-n")
    assert ended.returncode == 2, ended.stdout
    assert "data.root" in ended.stdout


@pytest.mark.parametrize(
    "text", ["a b", "a'b", 'a"b', "$(touch x)", "`x`", "{x}", "a\n", "a\nb", "a;b", "a/b", "../a", "-a"]
)
def test_names_that_a_shell_would_change_are_refused(text):
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(text)
