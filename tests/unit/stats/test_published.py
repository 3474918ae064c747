import hashlib

import numpy as np
import pandas as pd
import pytest

from segbench.stats.published import FOLDER, check_published, published_cells
from segbench.stats.scores import read_csv_text
from tests.paths import SHARED

from .score_tables import by_case, table

PUBLISHED = SHARED / "reference" / "published"


def prostate(values, **common):
    """Rows of the prostate task as the paper has it: 25 test cases, the released convention and split."""
    base = {"model": "uniseg", "task": "prostate_saml", "metric": "uniseg_dice", "protocol": "as_published"}
    return table(*by_case(values), **(base | common))


def status_of(rows, **options):
    found = check_published(rows, **({"budgets": {"upstream": 50000}} | options))
    row = found[(found["published_method"] == "UniSeg") & (found["published_task"] == "Prostate")].iloc[0]
    return row["status"], row["reason"]


def around(mean, spread=0.03):
    return mean + spread * np.linspace(-1, 1, 25)


def test_published_prostate_cell_is_read_with_its_source():
    cells = published_cells()
    cell = cells[(cells["method"] == "UniSeg") & (cells["task"] == "Prostate")].iloc[0]
    assert cell["published"] == pytest.approx(0.897)
    assert cell["n_test"] == 25
    assert cell["source_url"].startswith("https://")


@pytest.mark.parametrize(
    ("mean", "expected"),
    [(0.897, "reproduced"), (0.893, "reproduced"), (0.891, "within noise"), (0.87, "not reproduced")],
)
def test_verdicts(mean, expected):
    assert status_of(prostate(around(mean)))[0] == expected


@pytest.mark.parametrize(
    ("common", "options", "reason"),
    [
        ({"protocol": "seeded"}, {}, "protocol: seeded, published as_published"),
        ({"metric": "dice"}, {}, "convention: dice, published uniseg_dice"),
        ({}, {"budgets": {"upstream": 600}}, "budget: 600 iterations per task, published 50000"),
        ({}, {"budgets": None}, "budget: that of the measurement is not known"),
        ({}, {"synthetic": ["prostate_saml"]}, "synthetic data"),
    ],
)
def test_not_comparable_says_why(common, options, reason):
    assert status_of(prostate(around(0.897), **common), **options) == ("not comparable", reason)


def test_another_number_of_cases_is_another_protocol():
    assert status_of(prostate([0.9] * 24))[1] == "protocol: 24 test cases, published 25"


def test_reasons_add_up_and_unknown_budgets_are_said():
    rows = table(*by_case([0.9] * 9), model="dodnet", task="phantom_spleen", metric="dice", protocol="seeded")
    found = check_published(rows, synthetic=["phantom_spleen"])
    assert set(found["status"]) == {"not comparable"}
    own = found[found["paper"] == "DoDNet"].iloc[0]
    assert own["reason"].startswith("synthetic data; protocol: seeded")
    assert own["reason"].endswith("budget: that of the publication is not known")


def test_cells_that_nobody_measured_are_left_out():
    assert check_published(prostate(around(0.9), model="somebody_else")).empty
    assert check_published(prostate(around(0.9), task="another_task")).empty


def test_downstream_methods_are_initialisations():
    base = {"experiment": "downstream", "model": "single_task", "initialisation": "uniseg", "task": "btcv"}
    rows = table(*by_case([0.85] * 9), **base, metric="uniseg_dice", protocol="as_published")
    row = check_published(rows, budgets={"downstream": 25000}).iloc[0]
    assert (row["published_method"], row["published"], row["status"]) == ("UniSeg", 0.846, "reproduced")


def test_a_network_trained_by_its_published_recipe_is_compared_too():
    rows = pd.concat([prostate(around(0.897)), prostate(around(0.85), experiment="upstream_published")])
    found = check_published(rows, budgets={"upstream": 50000})
    own = found[(found["published_method"] == "UniSeg") & (found["published_task"] == "Prostate")]
    assert dict(zip(own["experiment"], own["status"], strict=True)) == {
        "upstream": "reproduced",
        "upstream_published": "not reproduced",
    }


def test_an_empty_published_cell_stays_empty(tmp_path):
    for path in FOLDER.glob("*.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    name = "uniseg_table2_upstream_partial.csv"
    part = read_csv_text(FOLDER / name)
    part.loc[(part["method"] == "UniSeg") & (part["task"] == "Prostate"), "value"] = ""
    part.to_csv(tmp_path / name, index=False)
    found = check_published(prostate(around(0.9)), budgets={"upstream": 50000}, folder=tmp_path)
    row = found[(found["published_method"] == "UniSeg") & (found["table"].str.startswith("Table 2"))].iloc[0]
    assert np.isnan(row["published"])
    assert np.isnan(row["difference"])
    assert row["status"] == "not seen"


def test_names_and_tables_point_at_what_exists():
    tables, names = read_csv_text(FOLDER / "tables.csv"), read_csv_text(FOLDER / "names.csv")
    assert all((FOLDER / name).is_file() for name in tables["file"])
    cells = published_cells()
    assert set(names.loc[names["kind"] == "task", "published"]) <= set(cells["task"]) | {"AutoPET2022", "VS"}
    assert not names.duplicated().any()
    assert pd.to_numeric(cells["published"]).between(0, 1).sum() == cells["published"].notna().sum()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of reference tables is not beside the checkout")
def test_tables_are_unchanged_copies():
    for path in SHARED.glob("*.csv"):
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256((FOLDER / path.name).read_bytes()).digest()
