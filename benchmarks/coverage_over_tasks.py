"""How often the interval of a difference over tasks holds the true one, where a seed is one training for all tasks.

    python -m benchmarks.coverage_over_tasks

Two methods of equal skill are made up: an effect per patient, one per method and patient, one per method and seed (the
same on every task, or one for each) and noise. Tables of scores go through `paired_table` and `paired_over_tasks`.
Prints a row per design and ends with `result: NAME VALUE TARGET ok|short`; status 1 when one is short.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pandas as pd

from segbench.core.vocabulary import SCORE_COLUMNS
from segbench.stats.paired import paired_over_tasks, paired_table

REPEATS, SEEDS, SEED_SD = 100, 3, 0.02
PATIENT_SD, OWN_SD, NOISE_SD, LEVEL = 0.05, 0.02, 0.01, 0.75
DESIGNS = [(tasks, patients, shared) for shared in (True, False) for tasks, patients in ((2, 20), (4, 20), (11, 20))]
LEAST = 0.9


def score_rows(tasks: int, patients: int, *, shared: bool, rng: np.random.Generator) -> pd.DataFrame:
    """Return made-up Dice of two methods with the same expectation."""
    own_TM = rng.normal(0, SEED_SD, (1 if shared else tasks, 2, SEEDS))
    effects = np.broadcast_to(own_TM, (tasks, 2, SEEDS))[:, None]
    common = rng.normal(0, PATIENT_SD, (tasks, patients, 1, 1)) + rng.normal(0, OWN_SD, (tasks, patients, 2, 1))
    values = LEVEL + common + effects + rng.normal(0, NOISE_SD, (tasks, patients, 2, SEEDS))
    places = np.array(list(itertools.product(*map(range, values.shape))))
    rows = pd.DataFrame(dict.fromkeys(SCORE_COLUMNS, ""), index=range(len(places)))
    names = {name: [f"{name[0]}{place}" for place in places[:, axis]] for axis, name in enumerate(("task", "patient"))}
    return rows.assign(
        **names,
        case=names["patient"],
        dataset=names["task"],
        model=[f"m{place}" for place in places[:, 2]],
        seed=places[:, 3],
        value=values.clip(0, 1).ravel(),
        experiment="upstream",
        initialisation="none",
        recipe="equal",
        protocol="made up",
        structure="organ",
        metric="dice",
        status="ok",
        fold=0,
        diagonal_mm=np.nan,
    )


def main() -> None:
    """Measure every design."""
    print("| tasks | patients per task | seeds | coverage as seen | mean width, points |\n|---:|---:|---|---:|---:|")
    found = {}
    for tasks, patients, shared in DESIGNS:
        held, widths = 0, []
        for repeat in range(REPEATS):
            rows = score_rows(tasks, patients, shared=shared, rng=np.random.default_rng([tasks, patients, repeat]))
            whole = paired_over_tasks(rows, paired_table(rows, metric="dice"), metric="dice").iloc[0]
            held += bool(whole["low_as_seen"] <= 0 <= whole["high_as_seen"])
            widths.append(100 * (whole["high_as_seen"] - whole["low_as_seen"]))
        name = "one training for all tasks" if shared else "a training for each task"
        found[f"coverage_{tasks}_tasks_{name.replace(' ', '_')}"] = held / REPEATS
        print(f"| {tasks} | {patients} | {name} | {100 * held / REPEATS:.1f} % | {np.mean(widths):.1f} |", flush=True)
    for name, value in found.items():
        print(f"result: {name} {value:.3f} {LEAST} {'ok' if value >= LEAST else 'short'}")
    sys.exit(min(found.values()) < LEAST)


if __name__ == "__main__":
    main()
