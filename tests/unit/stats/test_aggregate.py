"""Cells by hand: every value below can be redone on paper."""

import numpy as np
import pandas as pd
import pytest

from segbench.core.errors import InputError
from segbench.core.metric_facts import METRIC_NAMES
from segbench.stats.aggregate import apply_handling, cells, handling_text, mean_over_tasks, structure_cells
from segbench.stats.missing_masks import lower_is_better, scale_of

from .score_tables import by_case, methods, table


def cell(rows, metric="dice", **options):
    return cells(rows, metric=metric, **options).iloc[0]


def test_cell_is_mean_over_structures_of_means_over_cases():
    """organ (0.9 + 0.7) / 2 = 0.8; tumour 0.2 of the one case that has it; cell (0.8 + 0.2) / 2 = 0.5, not 1.8 / 3."""
    rows = table(
        *by_case([0.9, 0.7], structure="organ"),
        {"case": "c00", "structure": "tumour", "value": 0.2},
        {"case": "c01", "structure": "tumour", "value": np.nan, "status": "not_defined"},
    )
    found = cell(rows)
    assert found["mean"] == pytest.approx(0.5)
    assert (found["n_scored"], found["n_expected"]) == (3, 4)
    assert found["low"] < 0.5 < found["high"]


def test_a_missed_structure_counts_and_is_counted():
    rows = table(*by_case([0.9, None, 0.6]), {"case": "c03", "value": 0.0, "status": "prediction_empty"})
    found = cell(rows)
    assert found["mean"] == pytest.approx(1.5 / 4)
    assert (found["n_scored"], found["n_expected"], found["n_failed"]) == (4, 4, 1)


def test_handling_is_applied_at_aggregation_only():
    rows = table(*by_case([0.9, None]), {"case": "c02", "value": np.nan, "status": "both_empty"})
    assert cell(rows)["mean"] == pytest.approx((0.9 + 0 + 1) / 3)
    excluded = {"dice": {"both_empty": "exclude", "prediction_missing": "exclude"}}
    found = cell(rows, missing_masks=excluded)
    assert found["mean"] == pytest.approx(0.9)
    assert (found["n_scored"], found["n_expected"]) == (1, 3)
    assert rows["value"].isna().sum() == 2


def test_distance_penalty_and_published_sentinels():
    common = {"status": "prediction_empty", "value": np.nan}
    rows = table(*({"metric": name, **common} for name in ("hd95", "uniseg_hd95", "dodnet_hd95")))
    scored = apply_handling(rows).set_index("metric")["scored"]
    assert scored.to_dict() == {"hd95": 300.0, "uniseg_hd95": 998.0, "dodnet_hd95": 373.12866}


@pytest.mark.parametrize(
    ("row", "not_found"),
    [
        ({"value": 0.4}, False),
        ({"value": 0.0}, True),
        ({"value": np.nan, "status": "prediction_empty"}, True),
        ({"value": np.nan, "status": "failed"}, True),
        ({"value": np.nan, "status": "reference_empty"}, False),
        ({"value": np.nan, "status": "both_empty"}, False),
        ({"value": np.nan, "status": "skipped"}, False),
        ({"value": 0.0, "metric": "hd95"}, False),
        ({"value": np.nan, "metric": "hd95", "status": "prediction_missing"}, True),
        ({"value": np.nan, "metric": "hd95", "status": "reference_empty"}, False),
    ],
)
@pytest.mark.parametrize("rule", [None, "exclude"])
def test_a_missed_structure_is_one_of_the_reference_without_a_mask_or_with_the_worst_value(row, not_found, rule):
    rows = table(row, {"case": "d", "value": 0.5, "metric": row.get("metric", "dice")})
    metric, status = rows["metric"][0], rows["status"][0]
    handling = {metric: {status: rule}} if rule and status not in ("ok", "skipped") else None
    assert apply_handling(rows, handling)["not_found"].tolist() == [not_found, False]
    assert cell(rows, metric=metric, missing_masks=handling)["n_missed"] == not_found


def test_a_missing_distance_is_the_diagonal_of_its_own_image():
    rows = table(
        {"metric": "hd95", "value": 250.0},
        {"metric": "hd95", "case": "d", "value": np.nan, "status": "failed", "diagonal_mm": 500.0},
        {"metric": "hd95", "case": "e", "value": np.nan, "status": "failed", "diagonal_mm": np.nan},
        {"metric": "hd95", "case": "e", "value": 7.0, "model": "b", "diagonal_mm": 450.0},
    )
    assert apply_handling(rows)["scored"].tolist() == [250, 500, 450, 7]
    with pytest.raises(InputError, match="diagonal_mm"):
        apply_handling(rows.iloc[:3])


def test_a_penalty_below_a_measured_distance_is_refused_once_it_is_used():
    rows = table(
        {"metric": "hd95", "value": 350.0},
        {"metric": "hd95", "case": "d", "value": np.nan, "status": "failed"},
        diagonal_mm=400.0,
    )
    with pytest.raises(InputError, match="300 mm, and a measured distance of 350 mm"):
        apply_handling(rows, {"hd95": {"failed": 300}})
    assert apply_handling(rows, {"hd95": {"failed": 400}})["scored"].tolist() == [350, 400]
    assert apply_handling(rows.iloc[:1], {"hd95": {"failed": 300}})["scored"].tolist() == [350]


def test_a_failed_volume_error_is_the_whole_reference():
    """A failed case of 3,000 mm3 counts as 3 ml, as an empty mask would; its volume is read off another method."""
    rows = table(
        {"value": np.nan, "status": "failed", "reference_volume_mm3": np.nan},
        {"value": 0.5, "model": "b", "reference_volume_mm3": 3000.0, "prediction_volume_mm3": 2500.0},
        metric="volume_error_ml",
    )
    assert apply_handling(rows)["scored"].tolist() == [3, 0.5]
    assert apply_handling(rows)["counted"].all()


def test_a_failed_false_positive_volume_leaves_its_cell_without_a_value():
    """No number is right for it, and a mean over the other cases would count fewer of them."""
    found = {"value": 0.5, "prediction_volume_mm3": 700.0}
    rows = table(found, {"case": "d", "value": np.nan, "status": "failed"}, metric="false_positive_volume_ml")
    found = cell(rows, metric="false_positive_volume_ml")
    assert np.isnan(found["mean"])
    assert (found["n_scored"], found["n_expected"], found["n_failed"]) == (0, 2, 1)
    stated = cell(rows, metric="false_positive_volume_ml", missing_masks={"false_positive_volume_ml": {"failed": 9}})
    assert stated["mean"] == pytest.approx(4.75)


def test_an_empty_mask_has_its_own_volume():
    rows = table(
        {"metric": "volume_error_ml", "value": 12.5, "status": "prediction_empty", "reference_volume_mm3": 12500}
    )
    assert apply_handling(rows)["scored"].tolist() == [12.5]
    skipped = table({"value": np.nan, "status": "skipped"})
    assert apply_handling(skipped)["scored"].isna().all()


def test_every_metric_has_a_direction_and_a_printable_handling():
    for name in METRIC_NAMES:
        assert isinstance(lower_is_better(name), bool)
        assert handling_text(name, None).startswith(f"{name}: ")
    assert "prediction missing counts as 0" in handling_text("dice", None)
    assert "both empty excluded" in handling_text("dice", {"dice": {"both_empty": "exclude"}})
    with pytest.raises(InputError, match="unknown direction"):
        lower_is_better("HD95 of somebody")


def test_a_missed_structure_of_a_distance_is_its_largest_penalty():
    assert scale_of("hd95").worst is None
    rows = table({"metric": "hd95", "diagonal_mm": 200.0}, {"metric": "hd95", "case": "d", "diagonal_mm": 400.0})
    assert scale_of("hd95", None, rows).worst == 300
    numbers = dict.fromkeys(("prediction_empty", "prediction_missing"), 300) | {"failed": 500}
    assert scale_of("hd95", {"hd95": numbers}).worst == 500
    assert scale_of("dice", None).worst == 0
    excluded = dict.fromkeys(("prediction_empty", "prediction_missing", "failed"), "exclude")
    assert scale_of("hd95", {"hd95": excluded}).worst is None


def test_an_uncounted_cell_has_no_values_but_its_counts():
    rows = table({"value": np.nan, "status": "skipped"}, {"case": "d", "value": np.nan, "status": "skipped"})
    found = cell(rows)
    assert np.isnan(found[["mean", "low", "high"]].astype(float)).all()
    assert (found["n_scored"], found["n_expected"], found["n_skipped"]) == (0, 2, 2)


def test_patients_with_several_cases_are_one_unit():
    """Ten copies of every patient's case must not narrow the interval."""
    values = [0.9, 0.5, 0.7, 0.8, 0.6]
    once = table(*({"case": f"p{i}", "patient": f"p{i}", "value": v} for i, v in enumerate(values)))
    tenfold = table(
        *({"case": f"p{i}x{j}", "patient": f"p{i}", "value": v} for i, v in enumerate(values) for j in range(10))
    )
    narrow, wide = cell(tenfold, resamples=20_000), cell(once, resamples=20_000)
    assert narrow["mean"] == pytest.approx(wide["mean"])
    assert narrow["n_patients"] == 5
    assert narrow["high_as_seen"] - narrow["low_as_seen"] == pytest.approx(
        wide["high_as_seen"] - wide["low_as_seen"], rel=0.03
    )


def test_adding_a_model_moves_no_other_interval():
    first = {"a": [0.9, 0.8, 0.7, 0.4]}
    alone = cells(methods(first), metric="dice")
    beside = cells(methods({"b": [0.1, 0.2, 0.3, 0.4], **first}), metric="dice")
    assert alone.iloc[0]["low"] == beside[beside["model"] == "a"].iloc[0]["low"]


def test_seeds_widen_the_interval_by_their_spread():
    """Two seeds 0.2 apart on every patient: per-seed means 0.6 and 0.8, no residual."""
    values = [0.55, 0.6, 0.65, 0.6]
    rows = table(*by_case(values, seed=0), *by_case([v + 0.2 for v in values], seed=1))
    found = cell(rows)
    assert found["seed_means"] == pytest.approx({0: 0.6, 1: 0.8})
    assert found["seed_noise"] == pytest.approx(0)
    assert found["mean"] == pytest.approx(0.7)
    assert found["n_seeds"] == 2
    assert found["high"] > found["patient_high"]


def test_pooled_folds_add_the_spread_of_their_models():
    """Fold means 0.6 and 0.8 with patients 0.01 apart: nearly all of the spread is that of the two models."""
    low, high = [0.59, 0.6, 0.61, 0.6], [0.79, 0.8, 0.81, 0.8]
    rows = table(*by_case([*low, *high]))
    one, two = cell(rows), cell(rows.assign(fold=[0] * 4 + [1] * 4))
    assert (one["n_folds"], two["n_folds"]) == (1, 2)
    assert two["mean"] == pytest.approx(one["mean"]) == pytest.approx(0.7)
    assert two["high"] > one["high"] + 0.02


def test_a_method_whose_masks_are_all_empty_is_known():
    rows = methods({"a": [0.0, 0.0, 0.0], "b": [0.9, 0.0, 0.8]})
    rows.loc[rows["value"] == 0, "status"] = "prediction_empty"
    found = cells(rows, metric="dice").set_index("model")
    assert found["n_missed"].to_dict() == {"a": 3, "b": 1}
    assert found["all_missed"].to_dict() == {"a": True, "b": False}


def test_no_limit_lies_beyond_the_worst_value_where_everything_is_missed():
    rows = table(
        *by_case([None] * 5, metric="hd95", diagonal_mm=200.0),
        *by_case([None] * 5, metric="hd95", task="U", diagonal_mm=200.0),
    )
    cell_table = cells(rows, metric="hd95")
    for found in (cell_table, mean_over_tasks(cell_table)):
        assert set(found["mean"]) == set(found["high"]) == {200.0}
    assert set(cell_table["patient_high"]) == set(cell_table["high_as_seen"]) == {200.0}


def test_equal_values_have_equal_intervals_whatever_the_name():
    found = cells(methods({"a": [0.9, 0.7, 0.8, 0.6], "b": [0.9, 0.7, 0.8, 0.6]}), metric="dice")
    assert found["low"].nunique() == found["high"].nunique() == found["low_as_seen"].nunique() == 1


def test_as_seen_is_never_wider():
    values = [[0.9, 0.8, 0.7, 0.6, 0.9], [0.9, None, 0.7, 0.6, 0.9], [None] * 5]
    for own in values:
        found = cell(methods({"a": own}))
        assert found["low"] <= found["low_as_seen"] <= found["high_as_seen"] <= found["high"]


def test_protocols_are_never_mixed():
    rows = table({}, {"case": "d", "protocol": "as_published"})
    with pytest.raises(InputError, match="several protocols"):
        cells(rows, metric="dice")


def test_structures_apart():
    rows = table(*by_case([0.9, 0.7], structure="organ"), *by_case([0.3, 0.1], structure="tumour"))
    found = structure_cells(rows, metric="dice").set_index("structure")["mean"]
    assert found.to_dict() == pytest.approx({"organ": 0.8, "tumour": 0.2})
    assert structure_cells(rows, metric="hd95").empty
    assert cells(rows, metric="hd95").empty


def test_mean_over_tasks_adds_limits_in_squares():
    columns = {
        "experiment": "e",
        "model": "m",
        "initialisation": "i",
        "metric": "hd95",
        "n_scored": 2,
        "n_expected": 3,
        "n_failed": 1,
        "n_skipped": 0,
        "n_missed": 0,
        "all_missed": False,
        "seed_noise": 0.0,
        "fold_means": {},
        "fold_noise": 0.0,
    }
    parts = pd.DataFrame(
        [
            columns | {"task": "A", "mean": 10.0, "patient_low": 7.0, "patient_high": 14.0, "seed_means": {0: 10.0}},
            columns | {"task": "B", "mean": 20.0, "patient_low": 16.0, "patient_high": 23.0, "seed_means": {0: 20.0}},
        ]
    )
    found = mean_over_tasks(parts).iloc[0]
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((15.0, 15 - 5 / 2, 15 + 5 / 2))
    assert (found["n_tasks"], found["n_scored"], found["n_expected"], found["n_failed"]) == (2, 4, 6, 2)
    assert found["complete"]
    parts = parts.assign(low=6.5, high=14.5)
    parts.loc[1, ["mean", "low", "high", "patient_low", "patient_high"]] = np.nan
    only = mean_over_tasks(parts).iloc[0]
    assert (only["mean"], only["low"], only["high"]) == (10.0, 6.5, 14.5), "that of its only cell"
    assert mean_over_tasks(parts)["complete"].all()  # nobody has a value on B
    parts = pd.concat([parts, parts.assign(model="n", mean=12.0)], ignore_index=True)
    partial = mean_over_tasks(parts).iloc[0]
    assert not partial["complete"]
    assert (partial["n_tasks"], partial["n_tasks_expected"]) == (1, 2)


def test_a_fold_that_tasks_share_counts_once():
    """The model of a fold serves every task: its effect on the mean over tasks does not shrink with their number."""
    shifted = [value + shift for shift in (-0.1, 0.1) for value in (0.5, 0.51, 0.49, 0.5)]

    def width(count, *, turned=False):
        tasks = [table(*by_case(shifted[:: -1 if turned and i % 2 else 1], task=f"t{i}")) for i in range(count)]
        rows = pd.concat(tasks, ignore_index=True).assign(fold=([0] * 4 + [1] * 4) * count)
        found = mean_over_tasks(cells(rows, metric="dice")).iloc[0]
        return found["high"] - found["low"]

    assert width(4) == pytest.approx(width(1), rel=0.2)
    assert width(4, turned=True) < width(4) / 4, "effects that cancel over tasks are no spread of the mean"
