"""How often the interval of a difference over tasks holds the true one, where one training serves all tasks.

    python -m benchmarks.coverage_over_tasks

Two methods of equal skill are made up: an effect per patient, one per method and patient, one per method and training
(the same on every task, or one for each) and noise. Trainings are three seeds, or the models of five folds. Tables of
scores go through `paired_table` and `paired_over_tasks`.
Prints a row per design and ends with `result: NAME VALUE TARGET ok|short`; status 1 when one is short.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pandas as pd

from segbench.core.vocabulary import SCORE_COLUMNS
from segbench.stats.paired import paired_over_tasks, paired_table

REPEATS, TRAINING_SD = 100, 0.02
TRAININGS = {"seeds": 3, "folds": 5}
PATIENT_SD, OWN_SD, NOISE_SD, LEVEL = 0.05, 0.02, 0.01, 0.75
DESIGNS = list(itertools.product(TRAININGS, (True, False), (2, 4, 11)))
PATIENTS = 20
LEAST = 0.9


def score_rows(unit: str, tasks: int, *, shared: bool, rng: np.random.Generator) -> pd.DataFrame:
    """Return made-up Dice of two methods with the same expectation."""
    own_TMU = rng.normal(0, TRAINING_SD, (1 if shared else tasks, 2, TRAININGS[unit]))
    effects = np.broadcast_to(own_TMU, (tasks, 2, TRAININGS[unit]))[:, None]
    fold_P = np.arange(PATIENTS) % TRAININGS[unit]
    if unit == "folds":  # each patient is tested by the model of one fold
        effects = effects[:, 0, :, fold_P].transpose(1, 0, 2)[..., None]
    common = rng.normal(0, PATIENT_SD, (tasks, PATIENTS, 1, 1)) + rng.normal(0, OWN_SD, (tasks, PATIENTS, 2, 1))
    values = LEVEL + common + effects + rng.normal(0, NOISE_SD, (*common.shape[:3], effects.shape[3]))
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
        fold=fold_P[places[:, 1]] if unit == "folds" else 0,
        diagonal_mm=np.nan,
    )


def main() -> None:
    """Measure every design."""
    print("| tasks | trainings | coverage as seen | mean width, points |\n|---:|---|---:|---:|")
    found = {}
    for unit, shared, tasks in DESIGNS:
        held, widths = 0, []
        for repeat in range(REPEATS):
            rows = score_rows(unit, tasks, shared=shared, rng=np.random.default_rng([tasks, PATIENTS, repeat]))
            whole = paired_over_tasks(rows, paired_table(rows, metric="dice"), metric="dice").iloc[0]
            held += bool(whole["low_as_seen"] <= 0 <= whole["high_as_seen"])
            widths.append(100 * (whole["high_as_seen"] - whole["low_as_seen"]))
        name = f"{TRAININGS[unit]} {unit}, {'one training for all tasks' if shared else 'a training for each task'}"
        found[f"coverage_{tasks}_tasks_{name.replace(',', '').replace(' ', '_')}"] = held / REPEATS
        print(f"| {tasks} | {name} | {100 * held / REPEATS:.1f} % | {np.mean(widths):.1f} |", flush=True)
    for name, value in found.items():
        print(f"result: {name} {value:.3f} {LEAST} {'ok' if value >= LEAST else 'short'}")
    sys.exit(min(found.values()) < LEAST)


if __name__ == "__main__":
    main()
