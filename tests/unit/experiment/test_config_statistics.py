"""Sections `metrics`, `missing_masks`, `statistics` and `structures`: what is measured and compared."""

import pytest

from segbench.experiment.config import parse_config
from tests.unit.experiment.configs import changed, demo, lines, only


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("metrics", ["dise"], "did you mean 'dice'?"),
        ("metrics", ["dice", "dice"], "'dice' twice"),
        ("metrics", [], "metrics"),
        ("missing_masks", {"dise": {}}, "did you mean 'dice'?"),
        ("missing_masks", {"dice": {"both_emty": 1}}, "did you mean 'both_empty'?"),
        ("missing_masks", {"dice": {"both_empty": "drop"}}, "expected a finite number, 'exclude' or 'diagonal'"),
        ("missing_masks", {"dice": {"both_empty": float("nan")}}, "expected a finite number, 'exclude' or 'diagonal'"),
        ("statistics", {"decision_rule": "votes"}, "statistics.decision_rule"),
        ("statistics", {"decision_rules": "mean"}, "did you mean 'decision_rule'?"),
        ("policies", {}, "policies: found an unknown key"),
        ("missing_masks", {"dice": {"failed": "diagonal"}}, "missing_masks.dice: found 'diagonal'"),
        ("missing_masks", {"dice": {"failed": 100}}, "missing_masks.dice.failed: found 100; expected 0 to 1"),
        ("missing_masks", {"hd95": {"failed": -1}}, "missing_masks.hd95.failed: found -1; expected at least 0"),
    ],
)
def test_what_is_not_measured_is_refused(key, value, message):
    assert message in only(demo() | {key: value})


def test_a_metric_of_lesions_needs_a_lesion():
    content = demo() | {"metrics": ["dice", "lesion_f1"]}
    content["upstream"]["tasks"] = ["phantom_spleen"]
    content["downstream"]["tasks"] = ["phantom_brain"]
    content["structures"] = {"phantom_brain": [{"name": "tumour", "labels": [1], "tolerance_mm": 1.0, "lesion": False}]}
    line = only(content)
    assert line.startswith("config.yaml: metrics: found 'lesion_f1'; expected a metric that a structure of the run")
    content["structures"]["phantom_brain"][0]["lesion"] = True
    assert parse_config(content, where="x").metrics == ("dice", "lesion_f1")


def test_a_case_without_a_score_counts_as_asked():
    config = parse_config(demo() | {"missing_masks": {"dice": {"both_empty": "exclude", "failed": 0}}}, where="x")
    assert config.missing_masks == {"dice": {"both_empty": "exclude", "failed": 0.0}}


def test_models_are_ordered_by_their_mean_unless_asked_for_ranks():
    assert parse_config(demo(), where="x").statistics.decision_rule == "mean"
    assert parse_config(changed("statistics.decision_rule", "ranks"), where="x").statistics.decision_rule == "ranks"


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
        ({"phantom_liver": [LIVER_WITH_TUMOUR | {"tolerance_mm": float("inf")}]}, "tolerance_mm"),
        ({"phantom_liver": [{"name": "liver", "labels": [1]}]}, "tolerance_mm"),
        ({"phantom_liver": []}, "structures.phantom_liver"),
    ],
)
def test_structures_that_do_not_fit_are_problems(structures, words):
    assert words in "\n".join(lines(demo() | {"structures": structures}))


def test_wrong_structures_hide_no_other_problem():
    content = demo() | {"structures": {"phantom_liver": []}}
    content["upstream"]["tasks"][1] = "phantom_kidny"
    found = "\n".join(lines(content))
    assert "structures.phantom_liver" in found
    assert "did you mean 'phantom_kidney'?" in found
