"""The order of rows, columns, models and tasks in a table changes no statistic."""

import random
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segbench.stats.comparison import Options, compare
from segbench.stats.decision import oriented
from segbench.stats.longtable import read_long
from segbench.stats.ranking import rank_distribution

STATUSES = st.sampled_from(["ok"] * 8 + ["prediction_empty", "prediction_missing"])
KEYS = ("experiment", "metric", "task", "method", "model", "structure", "method_a", "method_b", "rank", "handling")
KEYS = (*KEYS, "protocol", "aggregation", "left_out", "choice", "value")


@st.composite
def tables(draw):
    """Draw the rows of two or three models on one or two tasks, with ties, missed structures, seeds and folds."""
    models = [f"m{letter}" for letter in "cab"[: draw(st.integers(2, 3))]]
    seeds, folds = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    rows = []
    for task in ["u", "t"][: draw(st.integers(1, 2))]:
        for case in range(draw(st.integers(1, 5))):
            for model in models:
                for seed in range(seeds):
                    status = draw(STATUSES)
                    value = draw(st.integers(0, 20)) / 20 if status == "ok" else ""
                    named = {"model": model, "task": task, "case": f"c{case}", "patient": f"p{case // 2 * 2}"}
                    scored = {"structure": "organ", "metric": "dice", "value": value, "status": status}
                    rows.append(named | scored | {"seed": seed, "fold": case // 2 % folds, "dataset": "d"})
    return pd.DataFrame(rows)


def statistics(path: Path, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    frame.to_csv(path, index=False)
    return compare(read_long(path), Options(["dice"], resamples=100))


def in_one_order(found: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table by their keys, pairs in the order of their names."""
    if "better" in found:
        pairs = {tuple(sorted(pair)) for pair in zip(found["method_a"], found["method_b"], strict=True)}
        found = pd.concat([oriented(found, *pair) for pair in pairs])
    elif "method_b" in found:
        found[["method_a", "method_b"]] = np.sort(found[["method_a", "method_b"]].astype(str), axis=1)
    keys = [name for name in KEYS if name in found]
    return found.sort_values(keys).reset_index(drop=True)


def joined_names(found: pd.DataFrame) -> pd.DataFrame:
    """Return a table in which winners that tie ('ma and mb') stand in the order of their names."""
    for name in ("default_winner", "winner_alone"):
        if name in found:
            found[name] = [" and ".join(sorted(str(names).split(" and "))) for names in found[name]]
    return found


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frame=tables(), order=st.randoms(use_true_random=False))
def test_the_order_of_rows_columns_models_and_tasks_changes_nothing(frame, order, tmp_path):
    rows, columns = list(frame.index), list(frame.columns)
    order.shuffle(rows)
    order.shuffle(columns)
    plain = statistics(tmp_path / "plain.csv", frame)
    shuffled = statistics(tmp_path / "shuffled.csv", frame.loc[rows, columns])
    assert plain.keys() == shuffled.keys()
    for name, table in plain.items():
        one, other = (joined_names(in_one_order(found.copy())) for found in (table, shuffled[name]))
        pd.testing.assert_frame_equal(one, other, check_like=True, rtol=1e-6, atol=1e-9, obj=name)


def test_the_order_of_methods_does_not_change_the_distribution_of_ranks(tmp_path):
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        [
            {"model": model, "task": "t", "case": f"c{case}", "structure": "s", "metric": "dice", "value": value}
            for model in ("c", "a", "b")
            for case, value in enumerate(draw.uniform(0.4, 0.6, 6).round(3))
        ]
    )
    rows = list(frame.index)
    random.Random(0).shuffle(rows)
    found = []
    for part in (frame, frame.loc[rows]):
        part.to_csv(tmp_path / "t.csv", index=False)
        found.append(rank_distribution(read_long(tmp_path / "t.csv"), metric="dice"))
    one, other = (table.set_index(["task", "method", "rank"])["fraction"].sort_index() for table in found)
    pd.testing.assert_series_equal(one, other)
