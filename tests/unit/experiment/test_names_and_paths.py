"""Names that config accepts pass through the workflow's wildcards; the path of a checkout may hold any character."""

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from snakemake.io import regex_from_filepattern

from segbench.core.errors import InputError
from segbench.core.paths import JOB_PATTERN, NAME_PATTERN, RunPaths
from segbench.experiment import graph
from segbench.experiment.config.section import Name

SETTINGS = settings(max_examples=200, deadline=None, derandomize=True)


@SETTINGS
@given(text=st.one_of(st.text(max_size=12), st.from_regex(NAME_PATTERN, fullmatch=True)))
def test_a_name_is_refused_by_config_or_passes_through_the_wildcard_of_the_workflow(text):
    try:
        name = TypeAdapter(Name).validate_python(text)
    except ValidationError:
        return
    pattern = str(RunPaths("demo").manifest("{task," + NAME_PATTERN + "}"))
    match = re.match(regex_from_filepattern(pattern), str(RunPaths("demo").manifest(name)))
    assert match is not None
    assert match.group("task") == name


def test_a_name_is_short_enough_for_a_path():
    names = TypeAdapter(Name)
    assert names.validate_python("a" * 60) == "a" * 60
    with pytest.raises(ValidationError, match="at most 60"):
        names.validate_python("a" * 61)


@SETTINGS
@given(parts=st.lists(st.from_regex(NAME_PATTERN, fullmatch=True), min_size=4, max_size=4), numbers=st.integers(0, 9))
def test_the_id_of_a_job_passes_through_the_wildcard_of_the_workflow(parts, numbers):
    job = ".".join([*parts, f"f{numbers}", f"s{numbers}"])
    pattern = str(RunPaths("demo").train("{job," + JOB_PATTERN + "}") / "outcome.json")
    match = re.match(regex_from_filepattern(pattern), str(RunPaths("demo").train(job) / "outcome.json"))
    assert match is not None
    assert match.group("job") == job


@settings(max_examples=30, deadline=None, derandomize=True)
@given(name=st.text(st.characters(exclude_characters=":/\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_the_shell_gets_the_path_of_the_checkout_as_it_is(name):
    path = Path("/my {a} 'projects'") / name
    prefix = graph.shell_prefix(path).format()  # Snakemake replaces words in braces once
    printed = subprocess.run(
        ["bash", "-c", f'unset PYTHONPATH; {prefix} printf %s "$PYTHONPATH"'], capture_output=True, check=True
    )
    assert printed.stdout.decode() == str(path)


def test_a_colon_in_the_path_of_the_checkout_is_refused():
    with pytest.raises(InputError, match="a colon in the path"):
        graph.shell_prefix(Path("/a:b"))
