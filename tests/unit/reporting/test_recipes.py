"""Equal and published recipes: two tables with two families of tests; budgets; gains over the own scratch control."""

import csv
import json

import pandas as pd
import pytest

from segbench.core.files import sha256_of
from segbench.core.vocabulary import KEY_COLUMNS, SCORE_COLUMNS
from segbench.reporting.gains import gains_table
from segbench.reporting.recipes import budget_sentence, chosen_rates, recipes_of_methods
from segbench.reporting.run import Run
from segbench.reporting.sections import published_table
from segbench.reporting.statistics import compared, statistics_of, trained_rows
from segbench.reporting.tables import build_table
from segbench.stats.published import COLUMNS
from segbench.stats.ranking import rank_table
from segbench.stats.recipes import comparison_name, experiment_of
from tests.unit.reporting.synthetic_run import write_run

SMALL = {"cases": 4, "upstream": 3}
ADAMW = "adamw, poly, initial_learning_rate 0.0001"


def again(folder, experiment, models, **changes):
    """Add the rows, methods, jobs and skipped cells of models once more, with changed keys such as `recipe`."""
    with open(folder / "scores.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    named = {name: value for name, value in changes.items() if name in KEY_COLUMNS}
    rows += [row | named for row in rows if row["model"] in models and row["experiment"] == experiment]
    rows.sort(key=lambda row: tuple(row[name] for name in KEY_COLUMNS))
    with open(folder / "scores.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, SCORE_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    record = json.loads((folder / "run.json").read_text())
    for part in ("methods", "jobs", "skipped"):
        for item in [item for item in record[part] if item["model"] in models and item["experiment"] == experiment]:
            new = item | {name: value for name, value in changes.items() if name in item}
            if part == "jobs":
                new["job"] += f".{changes.get('recipe', '')}{changes.get('model', '')}"
            record[part].append(new)
    record["scores_sha256"] = sha256_of(folder / "scores.csv")
    (folder / "run.json").write_text(json.dumps(record))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in which three models are trained by the published recipe too."""
    folder = write_run(tmp_path_factory.mktemp("recipes"), **SMALL)
    again(folder, "upstream", ["uniseg", "dodnet", "single_task"], recipe="published", recipe_text=ADAMW, batch_size=1)
    return Run(folder)


def test_each_recipe_is_a_comparison_of_its_own(run):
    assert run.experiments == ["upstream", "upstream_published", "downstream"]
    equal = {method.key for method in run.methods_of("upstream") if method.trained}
    published = {method.key for method in run.methods_of("upstream_published") if method.trained}
    assert published == {("uniseg", "random"), ("dodnet", "random"), ("single_task", "random")}
    assert published < equal
    controls = [[m.key for m in run.methods_of(name) if not m.trained] for name in run.experiments[:2]]
    assert controls[0] == controls[1] != []


def test_published_values_stand_beside_each_recipe(run):
    cell = dict.fromkeys(COLUMNS, 0.5) | {"model": "dodnet", "initialisation": "random", "status": "not seen"}
    own = [cell | {"experiment": task.experiment, "task": task.name} for task in run.record.tasks]
    table = published_table(run, pd.DataFrame(own[:6]), "published.csv")
    title = run.method("upstream", ("dodnet", "random")).title
    named = [row[table.head.index("Measured method")] for row in table.rows]
    assert named == [title] * 3 + [f"{title}, published recipe"] * 3


@pytest.mark.slow
def test_no_test_compares_two_recipes_and_each_has_its_own_family(run):
    equal, published = (compared(run, name, "dice") for name in run.experiments[:2])
    count = len({*published["method_a"], *published["method_b"]})
    assert count == 3
    assert len(published[["method_a", "method_b"]].drop_duplicates()) == 3
    assert set(published["experiment"]) == {"upstream_published"}
    assert set(equal["experiment"]) == {"upstream"}
    assert published["family"].max() < equal["family"].max()
    ranks = rank_table(trained_rows(run, "upstream_published"), metric="dice")
    assert ranks["method"].nunique() == 3


def test_the_equal_table_is_the_one_without_the_other_recipe(run, tmp_path):
    alone = Run(write_run(tmp_path, **SMALL))
    before, after = build_table(alone, "upstream", "dice"), build_table(run, "upstream", "dice")
    assert repr(before) == repr(after), "by their text, because a value that is none equals nothing"


def test_costs_belong_to_their_recipe_and_no_job_counts_twice(run, tmp_path):
    alone = Run(write_run(tmp_path, **SMALL))
    key = ("uniseg", "random")
    assert [job.job for job in run.jobs("upstream", key)] == [job.job for job in alone.jobs("upstream", key)]
    assert all(job.job.endswith(".published") for job in run.jobs("upstream_published", key))
    control = ("oracle", "none")
    assert run.jobs("upstream", control) == run.jobs("upstream_published", control) != []
    names = [job.job for job in run.record.jobs]
    assert len(set(names)) == len(names)


def test_captions_state_recipe_and_budget_in_both_readings(run):
    equal, published = build_table(run, "upstream", "dice"), build_table(run, "upstream_published", "dice")
    tasks = len(run.tasks("upstream"))
    assert "Recipe: equal, one for all models." in equal.caption
    assert " Recipe of all: sgd, poly, initial_learning_rate 0.01." in equal.legend
    assert "Recipe: published, each model by that of its card." in published.caption
    assert f" Recipe of all: {ADAMW}." in published.legend
    assert "Budget of a network: per task 150 steps, 300 patches," in equal.caption
    total = f"joint {150 * tasks:,} steps, {300 * tasks:,} patches (150 and 300 per task),"
    assert total in equal.caption
    assert "per task 150 steps, 150 patches," in published.caption


def test_tuned_is_a_table_of_its_own_with_the_chosen_rates(tmp_path):
    folder = write_run(tmp_path, **SMALL)
    text = "sgd, poly, initial_learning_rate tuned over 2 values"
    again(folder, "upstream", ["dodnet", "multi_head"], recipe="published", recipe_text=ADAMW)
    again(folder, "upstream", ["uniseg", "single_task"], recipe="tuned", recipe_text=text)
    record = json.loads((folder / "run.json").read_text())
    tuned = [job for job in record["jobs"] if job["recipe"] == "tuned"]
    for number, job in enumerate(tuned):
        job |= {"tuned_learning_rate": 0.01 if number % 2 else 0.1, "iterations": 3 * job["iterations"]}
    (folder / "run.json").write_text(json.dumps(record))
    run = Run(folder)
    assert run.experiments == ["upstream", "upstream_published", "upstream_tuned", "downstream"]
    pairs = compared(run, "upstream_tuned", "dice")
    keys = {method.key for method in run.methods_of("upstream_tuned") if method.trained}
    assert {*pairs["method_a"], *pairs["method_b"]} == {"uniseg", "single_task"}
    assert keys == {("uniseg", "random"), ("single_task", "random")}
    assert set(pairs["experiment"]) == {"upstream_tuned"}
    equal, table = (build_table(run, name, "dice") for name in ("upstream", "upstream_tuned"))
    assert "Recipe: tuned, equal but for the learning rate that each job chose by trials on" in table.caption
    assert "per task 450 steps, 900 patches," in table.caption, "the trials are charged"
    assert f" Recipe of all: {text}. Chosen learning rates: " in table.legend
    title = next(method.title for method in run.methods if method.key == ("single_task", "random"))
    assert f"{title} 0.01 to 0.1" in table.legend
    assert "Chosen" not in equal.legend


def test_without_tuning_no_rate_was_chosen(run):
    assert chosen_rates({"UniSeg": run.jobs("upstream", ("uniseg", "random"))}) == ""


def test_a_budget_without_a_trained_job_has_no_sentence(run):
    assert budget_sentence(run.jobs("upstream", ("oracle", "none")), 3) == ""


def test_names_of_comparisons_lead_back_to_their_experiment():
    assert comparison_name("downstream", "equal") == comparison_name("downstream", "none") == "downstream"
    assert experiment_of(comparison_name("downstream", "own")) == "downstream"


def test_gains_are_over_the_own_scratch_control(tmp_path):
    folder = write_run(tmp_path, **SMALL)
    again(folder, "downstream", ["single_task"], model="unetr", title="Again")
    run = Run(folder)
    table, statistics = build_table(run, "downstream", "dice"), statistics_of(run, "downstream", "dice")
    gains = gains_table(run, table, statistics)
    assert gains.head[0] == "Gain over own scratch"
    assert len(gains.rows) == 8
    by_key = {row.method.key: row.mean.mean for row in table.rows}
    for model in ("single_task", "unetr"):
        own = [row for row in gains.rows if row[2] == model]
        assert [row[0] for row in own][-1] == "control"
    found = next(row for row in gains.rows if row[3].endswith("[unetr/uniseg]"))
    expected = 100 * (by_key["unetr", "uniseg"] - by_key["unetr", "scratch"])
    assert float(found[0].replace("\u2212", "-")) == pytest.approx(expected, abs=0.06)
    assert found[6] != found[5], "the training that made the weights is charged"


def test_work_is_stated_where_every_network_counted_it(run):
    jobs = [job for job in run.record.jobs if job.model in ("uniseg", "single_task") and job.experiment == "upstream"]
    counted = [job.model_copy(update={"forward_flops": 10**12}) for job in jobs]
    tasks = len(run.tasks("upstream"))
    words = budget_sentence(counted, tasks)
    assert "0.3 PFLOPs forward; joint" in words or "0.15 to 0.3 PFLOPs forward; joint" in words
    assert "PFLOPs forward (" in words
    assert "PFLOPs" not in budget_sentence(jobs, tasks)


def test_a_legend_says_which_methods_were_preprocessed_otherwise(run):
    methods = run.methods_of("downstream")
    assert "reprocessing" not in recipes_of_methods(methods)
    other = methods[0].model_copy(update={"preprocessing": "Spleen: mine, 6x6x6 mm", "title": "Mine"})
    words = recipes_of_methods([other, *methods[1:]])
    assert " Preprocessing other than the tasks' own: Mine: Spleen: mine, 6x6x6 mm. All are scored" in words
