"""Variants whose winner is known beforehand, and the transfer map."""

import numpy as np
import pandas as pd
import pytest

from segbench.core.vocabulary import HANDLED_STATUSES
from segbench.stats.aggregate import cells, mean_over_tasks
from segbench.stats.decision import oriented
from segbench.stats.methods import undefined_tasks
from segbench.stats.paired import paired_table
from segbench.stats.ranking_variants import (
    AGGREGATIONS,
    handling_sensitivity,
    handling_variants,
    ranking_variants,
    ranking_variants_summary,
)
from segbench.stats.transfer import ALL_STRUCTURES, transfer_map

from .score_tables import by_case, methods, table


def summary_of(rows, **options):
    found = ranking_variants(rows, metrics=["dice"], **options)
    return found, ranking_variants_summary(found).set_index(["choice", "value"])


def test_a_model_that_improves_by_failing_flips_with_the_policy():
    """two of five cases are missed by a, which is better on the rest; excluding them makes it the winner."""
    rows = methods({"a": [0.95, 0.95, 0.95, None, None], "b": [0.9] * 5})
    found, summary = summary_of(rows, aggregations=AGGREGATIONS[:1])
    assert summary.loc[("any", "all variants"), "default_winner"] == "b"
    assert summary.loc[("handling", "empty and missing excluded"), "flips_alone"] == "yes"
    assert summary.loc[("handling", "empty and missing excluded"), "winner_alone"] == "a"
    assert summary.loc[("handling", "missing and failed excluded"), "flips_alone"] == "yes"
    assert summary.loc[("any", "all variants"), "winner_changes"] == pytest.approx(2 / 4)
    assert found["default"].sum() == 2


def test_dropping_a_task_can_flip_the_winner():
    rows = pd.concat(
        [
            methods({"a": [0.9, 0.9], "b": [0.5, 0.5]}, task="S"),
            methods({"a": [0.6, 0.6], "b": [0.8, 0.8]}, task="T"),
        ],
        ignore_index=True,
    )
    _, summary = summary_of(rows, aggregations=AGGREGATIONS[:1])
    assert summary.loc[("left_out", "S"), "winner_alone"] == "b"
    assert summary.loc[("left_out", "T"), "flips_alone"] == "no"


def test_aggregations_by_hand():
    """Task S: 3 cases, task T: 1 case. a: S 0.5, T 1.0; b: S 0.7 0.7 0.4, T 0.85."""
    rows = pd.concat(
        [
            methods({"a": [0.5] * 3, "b": [0.7, 0.7, 0.4]}, task="S"),
            methods({"a": [1.0], "b": [0.85]}, task="T"),
        ],
        ignore_index=True,
    )
    found = ranking_variants(rows, metrics=["dice"])
    plain = found[(found["left_out"] == "none") & (found["handling"] == "as stated")]
    values = plain.set_index(["aggregation", "method"])["value"]
    assert values["mean of task means"].to_dict() == pytest.approx({"a": 0.75, "b": 0.725})
    assert values["mean of task ranks"].to_dict() == {"a": 1.5, "b": 1.5}
    assert values["mean over all cases"].to_dict() == pytest.approx({"a": 2.5 / 4, "b": 2.65 / 4})
    assert values["mean of case ranks"].to_dict() == pytest.approx({"a": (5 / 3 + 1) / 2, "b": (4 / 3 + 2) / 2})
    assert values["median of cases"].to_dict() == pytest.approx({"a": 0.75, "b": (0.7 + 0.85) / 2})


def test_metric_and_protocol_are_choices_too():
    dice = methods({"a": [0.9, 0.9], "b": [0.8, 0.8]})
    distance = methods({"a": [9.0, 9.0], "b": [2.0, 2.0]}, metric="hd95", unit_of_value="mm")
    other = methods({"a": [0.7, 0.7], "b": [0.8, 0.8]}, protocol="corrected")
    found = ranking_variants(pd.concat([dice, distance, other], ignore_index=True), metrics=["dice", "hd95"])
    summary = ranking_variants_summary(found).set_index(["choice", "value"])
    assert summary.loc[("metric", "hd95"), ["flips_alone", "winner_alone"]].tolist() == ["yes", "b"]
    assert summary.loc[("protocol", "corrected"), ["flips_alone", "winner_alone"]].tolist() == ["yes", "b"]


def test_methods_that_skip_a_task_take_no_part():
    rows = pd.concat(
        [
            methods({"a": [0.9, 0.9], "b": [0.5, 0.5], "c": [0.99, 0.99]}, task="S"),
            methods({"a": [0.6, 0.6], "b": [0.8, 0.8]}, task="T"),
        ],
        ignore_index=True,
    )
    assert set(ranking_variants(rows, metrics=["dice"])["method"]) == {"a", "b"}


def test_variants_of_the_handling_start_from_the_stated_one():
    rows = methods({"a": [3.0, None]}, metric="hd95")
    variants = handling_variants("hd95", {"hd95": {"failed": 500.0}}, rows)
    assert variants["as stated"]["failed"] == 500
    assert set(variants["empty and missing excluded"].values()) == {"exclude"}
    assert set(variants["every empty mask counts as missed"].values()) == {"diagonal"}
    numbers = dict.fromkeys(HANDLED_STATUSES, 400.0) | {"failed": 500.0}
    missed = handling_variants("hd95", {"hd95": numbers}, rows)["every empty mask counts as missed"]
    assert set(missed.values()) == {500.0}


def test_no_variant_needs_a_diagonal_that_no_row_states():
    """The user has excluded the missing masks, because the table does not state the diagonal."""
    rows = methods({"a": [3.0, 4.0, None], "b": [5.0, 6.0, 7.0]}, metric="hd95", diagonal_mm=np.nan)
    found = ranking_variants(rows, metrics=["hd95"], missing_masks={"hd95": {"prediction_missing": "exclude"}})
    assert len(found["handling"].unique()) == 3
    sensitivity = handling_sensitivity(rows, metric="hd95", missing_masks={"hd95": {"prediction_missing": "exclude"}})
    assert len(sensitivity["handling"].unique()) == 3


def test_sensitivity_shows_rank_and_counts_per_handling():
    rows = methods({"a": [0.95, 0.95, None], "b": [0.9, 0.9, 0.9]})
    found = handling_sensitivity(rows, metric="dice").set_index(["handling", "method"])
    assert found.loc[("as stated", "a"), ["rank", "n_scored", "n_expected"]].tolist() == [2, 3, 3]
    assert found.loc[("empty and missing excluded", "a"), ["rank", "n_scored", "n_expected"]].tolist() == [1, 2, 3]


def test_transfer_map_signs_and_structures():
    rng = np.random.default_rng(31)
    organ, tumour = rng.uniform(0.8, 0.9, 12), rng.uniform(0.4, 0.6, 12)
    rows = table(
        *by_case(organ, model="universal", structure="organ"),
        *by_case(organ, model="single", structure="organ"),
        *by_case(tumour + 0.1 + rng.normal(0, 0.01, 12), model="universal", structure="tumour"),
        *by_case(tumour, model="single", structure="tumour"),
    )
    found = transfer_map(rows, metric="dice", universal=["universal"], single=["single"]).set_index("structure")
    assert found["transfer"].to_dict() == {"organ": "not shown", "tumour": "positive", ALL_STRUCTURES: "positive"}
    assert found.loc["tumour", "difference"] == pytest.approx(0.1, abs=0.01)
    assert found.loc["tumour", "low_as_seen"] > 0
    assert found.loc["organ", "family"] == 2
    assert found.loc[ALL_STRUCTURES, "family"] == 1
    reverse = transfer_map(rows, metric="dice", universal=["single"], single=["universal"]).set_index("structure")
    assert reverse.loc["tumour", "transfer"] == "negative"
    assert transfer_map(rows, metric="dice", universal=[], single=["single"]).empty
    three = pd.concat([rows, rows[rows["model"] == "single"].assign(model="third")], ignore_index=True)
    paired = paired_table(three, metric="dice")
    whole = transfer_map(three, metric="dice", universal=["universal"], single=["single"], paired=paired)
    whole = whole.set_index("structure").loc[ALL_STRUCTURES]
    assert whole["p_holm"] == oriented(paired, "universal", "single")["p_holm"].iloc[0]
    assert whole["family"] == 3


def test_a_metric_without_meaning_on_one_task_ranks_over_the_others_and_says_so():
    """HD95 is not defined on T (nominal spacing); on S b is better by HD95, a by Dice."""
    undefined = {"metric": "hd95", "unit_of_value": "mm", "value": np.nan, "status": "not_defined", "task": "T"}
    rows = pd.concat(
        [
            methods({"a": [0.9, 0.9], "b": [0.8, 0.8]}, task="S"),
            methods({"a": [0.9, 0.9], "b": [0.8, 0.8]}, task="T"),
            methods({"a": [9.0, 9.0], "b": [2.0, 2.0]}, task="S", metric="hd95", unit_of_value="mm"),
            table(*({**undefined, "model": model, "case": case} for model in "ab" for case in ("c00", "c01"))),
        ],
        ignore_index=True,
    )
    found = ranking_variants(rows, metrics=["dice", "hd95"])
    by_distance = found[found["metric"] == "hd95"]
    assert set(by_distance["left_out"]) == {"none"}
    assert set(zip(by_distance["n_tasks"], by_distance["n_tasks_expected"], strict=True)) == {(1, 2)}
    summary = ranking_variants_summary(found).set_index(["choice", "value"])
    assert summary.loc[("metric", "hd95"), ["tasks", "flips_alone", "winner_alone"]].tolist() == ["1 of 2", "yes", "b"]
    assert summary.loc[("metric", "dice"), "tasks"] == "2 of 2"
    ranked = handling_sensitivity(rows, metric="hd95")
    assert ranked[ranked["handling"] == "as stated"].set_index("method")["rank"].to_dict() == {"a": 2, "b": 1}
    assert undefined_tasks(rows, "hd95") == ["T"]
    means = mean_over_tasks(cells(rows, metric="hd95"))
    assert means["complete"].all()
    assert set(means["n_tasks"]) == {1}
