"""A downstream model with preprocessing and network sizes of its own: jobs, requests, what is refused."""

import json

import pytest

from segbench.core import vocabulary
from segbench.core.provenance import content_hash
from segbench.data.preprocessing_recipes import PREPROCESSING_RECIPES, STATED, PreprocessingRecipe
from segbench.experiment.config.preprocessing import RecipeKeys
from segbench.experiment.graph import Run
from segbench.experiment.identity import prediction_settings_identity, training_settings_identity
from segbench.experiment.jobs import preprocessed_by_entries
from tests.unit.experiment.configs import changed, lines, only
from tests.unit.written_run import CONTENT, SCHWANNOMA, SCRATCH, TRANSFER
from tests.unit.written_run import changed as with_changes

MINE = {"mine": {"spacing_mm_zyx": [4.0, 4.0, 4.0]}}
UNETR = {"name": "unetr", "initialisations": ["scratch"]}
OWN = f"downstream.unetr.scratch.{SCHWANNOMA}.f0.s0"
PROSTATE = "phantom_prostate"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory of its own."""
    monkeypatch.chdir(tmp_path)


def content(tasks=(SCHWANNOMA,), **keys):
    """Return a config in which UNETR has keys of its own beside the single-task network."""
    models = ["single_task", {**UNETR, **keys}]
    return with_changes(
        CONTENT, {"preprocessing_recipes": MINE, "downstream": {"tasks": list(tasks), "models": models}}
    )


def run_of(**keys):
    return Run(content(**keys), warn=lambda line: None)


def settings(run, rule):
    ask = getattr(run, f"request_{rule}")
    names = run.training_ids if rule == "train" else run.evaluation_ids
    return {name: json.loads(ask(name).read_text())["settings"] for name in names}


def test_the_names_that_a_config_may_use_are_those_of_the_recipes():
    assert set(vocabulary.PREPROCESSING_RECIPES) == set(PREPROCESSING_RECIPES)


def test_all_jobs_of_the_entry_read_cases_of_its_recipe_and_no_other_job_does():
    run = run_of(preprocessing="mine", initialisations=["scratch", "scratch_combined"])
    downstream = [job for job in run.job_of.values() if job.experiment == "downstream"]
    found = {(job.model, task.preprocessing) for job in downstream for task in job.tasks(run.config)}
    assert found == {("unetr", "mine"), ("single_task", "phantom_mr"), ("oracle", "phantom_mr")}
    own = run.paths.preprocessed(SCHWANNOMA, "mine")
    assert own.name == f"{SCHWANNOMA}.mine.json"
    for name in run.training_ids:
        assert (own in run.preprocessed_of(name)) == name.startswith("downstream.unetr."), name
    assert run.preprocessed_of(SCRATCH) == [run.paths.preprocessed(SCHWANNOMA)]
    assert [(task.name, task.preprocessing) for task in preprocessed_by_entries(run.config)] == [(SCHWANNOMA, "mine")]


@pytest.mark.parametrize("rule", ["train", "evaluate"])
def test_a_recipe_of_its_own_asks_for_the_jobs_of_the_entry_alone(rule):
    before, after = settings(run_of(), rule), settings(run_of(preprocessing="mine"), rule)
    assert {name for name in before if after[name] != before[name]} == {OWN}


@pytest.mark.parametrize("rule", ["train", "evaluate"])
def test_the_task_s_own_recipe_changes_no_request(rule):
    assert settings(run_of(preprocessing="phantom_mr"), rule) == settings(run_of(), rule)


def test_a_request_without_the_keys_holds_the_identity_and_nothing_else():
    run = run_of()
    asked = settings(run, "train")
    for name, job in run.job_of.items():
        assert all(task is run.config.task(task.name) for task in job.tasks(run.config))
        if name in asked:
            parts = training_settings_identity(run.config, job).parts
            assert asked[name] == content_hash(sorted(parts.items()))[:16]


def test_the_request_for_cases_holds_the_recipe_of_the_entry():
    run = run_of(preprocessing="mine")
    own, plain = run.request_preprocess(SCHWANNOMA, "mine"), run.request_preprocess(SCHWANNOMA)
    assert own != plain
    first = own.read_bytes()
    other = content(preprocessing="mine") | {"preprocessing_recipes": {"mine": {"spacing_mm_zyx": [3, 3, 3]}}}
    changed_run = Run(other, warn=print)
    assert changed_run.request_preprocess(SCHWANNOMA, "mine").read_bytes() != first
    before = plain.read_bytes()
    assert changed_run.request_preprocess(SCHWANNOMA).read_bytes() == before


def test_recipes_and_sizes_differ_by_task():
    both = (SCHWANNOMA, PROSTATE)
    wide = {SCHWANNOMA: {"patch_size_zyx": [16, 32, 32]}}
    run = run_of(tasks=both, task_preprocessing={PROSTATE: "mine"}, task_network=wide, network={"base_features": 6})
    own = [job for job in run.job_of.values() if job.model == "unetr"]
    recipes = {job.scope: next(iter(job.tasks(run.config))).preprocessing for job in own}
    assert recipes == {SCHWANNOMA: "phantom_mr", PROSTATE: "mine"}
    sizes = {job.scope: run.config.network_of("downstream", job.entry(run.config), job.scope) for job in own}
    assert sizes[SCHWANNOMA].patch_size_zyx == (16, 32, 32)
    assert sizes[PROSTATE].patch_size_zyx == (16, 16, 16)
    assert {size.base_features for size in sizes.values()} == {6}
    plain = run_of(tasks=both, task_preprocessing={PROSTATE: "mine"}, network={"base_features": 6}).config
    for job in own:
        tasks = job.tasks(plain)
        changes = [
            training_settings_identity(run.config, job) != training_settings_identity(plain, job),
            prediction_settings_identity(run.config, job, tasks) != prediction_settings_identity(plain, job, tasks),
        ]
        assert changes == [job.scope == SCHWANNOMA] * 2


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"preprocessing": "mind"}, "unetr.preprocessing: found 'mind'; expected a named preprocessing recipe, or one"),
        ({"preprocessing": "mind"}, "did you mean 'mine'?"),
        (
            {"task_preprocessing": {SCHWANNOMA: "phantom_m"}},
            f"unetr.task_preprocessing.{SCHWANNOMA}: found 'phantom_m'",
        ),
        (
            {"task_preprocessing": {PROSTATE: "mine"}},
            f"task_preprocessing: found '{PROSTATE}'; expected a task of down",
        ),
        ({"task_network": {PROSTATE: {}}}, f"unetr.task_network: found '{PROSTATE}'; expected a task of downstream"),
        ({"task_network": {SCHWANNOMA: {"patch_size": [16, 16, 16]}}}, "patch_size: found an unknown key"),
        (
            {"task_network": {SCHWANNOMA: {"patch_size_zyx": [10, 16, 16]}}},
            f"task_network.{SCHWANNOMA}.patch_size_zyx: found 10 along z",
        ),
        ({"preprocessing": "a/b"}, "preprocessing"),
    ],
)
def test_what_cannot_be_is_refused_with_the_config(keys, words):
    (line,) = lines(content(**keys))
    assert words in line


def test_an_unknown_recipe_of_a_task_is_refused_with_the_config():
    line = only(changed("task_preprocessing", {"phantom_liver": "phantom_cd"}))
    assert "task_preprocessing.phantom_liver: found 'phantom_cd'" in line
    assert "did you mean 'phantom_ct'?" in line


def test_the_keys_that_a_config_may_state_are_those_of_the_recipes():
    assert tuple(RecipeKeys.model_fields) == STATED
    defaults = PreprocessingRecipe("default")
    assert RecipeKeys().model_dump() == {key: getattr(defaults, key) for key in STATED}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"spacing": [1, 1, 1]},
            "mine.spacing: found an unknown key; expected a known key; did you mean",
        ),
        ({"spacing_mm_zyx": [0, 1, 1]}, "preprocessing_recipes.mine.spacing_mm_zyx.0"),
        ({"spacing_mm_zyx": [1, 1]}, "preprocessing_recipes.mine.spacing_mm_zyx"),
        (
            {"clip_hu": [100, -100]},
            "mine.clip_hu: found 100 to -100; expected the lower end first",
        ),
        ({"training": {}}, "preprocessing_recipes.mine.training: found an unknown key"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_with_the_config(values, words):
    found = lines(content() | {"preprocessing_recipes": {"mine": values}})
    assert words in found[0]


def test_entries_in_one_table_keep_their_starts():
    """Both networks stand beside their own training from scratch, each with its preprocessing."""
    run = run_of(preprocessing="mine")
    assert {SCRATCH, TRANSFER, OWN} <= set(run.training_ids)
