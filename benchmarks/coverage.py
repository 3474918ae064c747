"""Measure how often 95 % intervals cover the truth and how often equal methods are called different.

`python -m benchmarks.coverage` rewrites segbench/stats/measured_coverage.csv, from which every table takes the coverage
that it prints, benchmarks/false_positives.csv, and the tables of docs/statistics.md that are made from both
(`benchmarks.coverage_page`). It ends with lines `result: NAME VALUE TARGET ok|short`. `--repeats` trades time for
Monte-Carlo error (1000 repeats: standard error 0.7 points at 95 %).

Legend of suffixes: P patients, K structures, R repeats, S seeds, F folds.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special, stats

from benchmarks.coverage_page import BOOTSTRAP_T, FALSE_POSITIVES, SIGN_FLIPS, result_lines, update_page
from segbench.core.cards import ROOT
from segbench.core.files import write_text
from segbench.core.progress import Progress
from segbench.data.parallel import mapped
from segbench.stats.aggregate import fold_spread, mean_over_tasks
from segbench.stats.coverage import CELLS, CELLS_AS_SEEN, DIFFERENCE, DIFFERENCE_AS_SEEN, TABLE
from segbench.stats.decision import RULES, decide, directions, rule_p
from segbench.stats.intervals import Scale, SeedSpread, cell_limits, interval, seed_spread, sums_of_values, with_seeds
from segbench.stats.paired import Limits, Seeds, pair_limits, pool_seeds

SIZES = (4, 9, 13, 27, 52, 100)
DICE = Scale(0.0, 1.0, 0.0)
HD95 = Scale(0.0, np.inf, 300.0)
MISSED_BY = ((0.0, 0.0), (0.05, 0.0), (0.1, 0.0), (0.05, 0.05), (0.1, 0.05), (0.1, 0.1))
"""Fractions of structures that the first and the second method miss."""
SAME_MEAN = {
    "nothing missed": (0.0, 0.0),
    "5 % missed by both": (0.05, 0.05),
    "10 % missed by both": (0.1, 0.1),
    "5 % missed by a, whose hits are better": (0.05, 0.0),
    "10 % missed by a, whose hits are better": (0.1, 0.0),
}
"""Designs with one true mean: fractions that a and b miss. In the first three a and b can be exchanged."""
REAL_SCORES = ROOT / "reports" / "real_small" / "scores.csv"
REAL = {
    "real Dice of hippocampus": ("upstream", "task04_hippocampus", ("multi_head", "random"), ("single_task", "random")),
    "real Dice of hippocampus, one structure missed": (
        "upstream",
        "task04_hippocampus",
        ("dodnet", "random"),
        ("uniseg", "random"),
    ),
    "real Dice of cine MR": ("downstream", "acdc_cine_mr", ("single_task", "dodnet"), ("single_task", "scratch")),
    "real Dice of head and neck": (
        "upstream",
        "openkbp_head_neck_ct",
        ("multi_head", "random"),
        ("single_task", "random"),
    ),
}
"""Title -> experiment, task and two methods (model, initialisation) of the report whose Dice values are drawn again."""
Work = tuple[str, Callable[..., Iterable[dict]]]
"""Title of a design and the function that measures it, called with `repeats` and `rng`."""
Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Design:
    """A population: `draw(rng, patients)` returns values (patients, structures); `truth` is the cell's true mean."""

    name: str
    missed_fraction: float
    truth: float
    draw: Draw
    scale: Scale = DICE


@functools.cache
def _beta(mean: float, sd: float) -> stats.rv_continuous:
    total = mean * (1 - mean) / sd**2 - 1
    return stats.beta(mean * total, (1 - mean) * total)


def one_structure(name: str, mean: float, *, sd: float, missed: float) -> Design:
    """Return a bounded Dice design: a Beta distribution of the hits, and zeros with the probability `missed`."""
    hits = _beta(mean, sd)

    def draw(rng: np.random.Generator, patients: int) -> np.ndarray:
        return hits.rvs((patients, 1), random_state=rng) * (rng.random((patients, 1)) >= missed)

    return Design(name, missed, (1 - missed) * mean, draw)


def organ_and_tumour(missed: float) -> Design:
    """Return two structures whose hits depend on the patient (correlation about 0.5); only the tumour is missed."""
    organ, tumour = _beta(0.95, 0.03), _beta(0.65, 0.2)

    def draw(rng: np.random.Generator, patients: int) -> np.ndarray:
        level = stats.norm.cdf(0.7 * rng.normal(size=(patients, 1)) + np.sqrt(0.51) * rng.normal(size=(patients, 2)))
        hit = rng.random(patients) >= missed
        return np.stack([organ.ppf(level[:, 0]), tumour.ppf(level[:, 1]) * hit], axis=1)

    return Design("organ and tumour, tumour missed", missed, (0.95 + 0.65 * (1 - missed)) / 2, draw)


def thirteen_organs(missed: float) -> Design:
    """Return thirteen organs (0.70 to 0.95, patient effect sd 0.02, residual sd 0.02); all or none missed."""
    levels_K = np.linspace(0.70, 0.95, 13)

    def draw(rng: np.random.Generator, patients: int) -> np.ndarray:
        noise_PK = 0.02 * rng.uniform(-1.7, 1.7, (patients, 1)) + 0.02 * rng.uniform(-0.8, 0.8, (patients, 13))
        return (levels_K + noise_PK) * (rng.random((patients, 1)) >= missed)

    return Design("thirteen organs, whole case missed", missed, (1 - missed) * levels_K.mean(), draw)


def distance(missed: float) -> Design:
    """Return a log-normal HD95 (median 4.5 mm, log sd 0.8); a missed structure counts as 300 mm."""

    def draw(rng: np.random.Generator, patients: int) -> np.ndarray:
        hits = rng.lognormal(1.5, 0.8, (patients, 1))
        return np.where(rng.random((patients, 1)) < missed, 300.0, hits)

    return Design(
        "HD95 log-normal, penalty 300 mm", missed, (1 - missed) * np.exp(1.5 + 0.32) + missed * 300, draw, HD95
    )


def designs() -> Iterator[Design]:
    """Yield the stated designs of docs/statistics.md."""
    for name, mean, sd in (
        ("organ 0.95 sd 0.02", 0.95, 0.02),
        ("organ 0.90 sd 0.08", 0.90, 0.08),
        ("tumour 0.70 sd 0.20", 0.70, 0.20),
        ("hard 0.50 sd 0.28", 0.50, 0.28),
    ):
        for missed in (0.0, 0.05, 0.1, 0.2):
            yield one_structure(name, mean, sd=sd, missed=missed)
    for missed in (0.0, 0.1):
        yield organ_and_tumour(missed)
        yield thirteen_organs(missed)
        yield distance(missed)


def real_values(experiment: str, task: str, method: tuple[str, str]) -> np.ndarray:
    """Return the Dice values (patients, structures) of one method, first seed, 0 where nothing was predicted."""
    rows = pd.read_csv(REAL_SCORES)
    chosen = rows[
        (rows["experiment"] == experiment)
        & (rows["task"] == task)
        & (rows["model"] == method[0])
        & (rows["initialisation"] == method[1])
        & (rows["metric"] == "dice")
    ]
    chosen = chosen[chosen["seed"] == chosen["seed"].min()]
    return chosen.set_index(["patient", "structure"])["value"].unstack().fillna(0.0).to_numpy(float)


def real_designs() -> Iterator[Design]:
    """Yield populations that are the patients of a real report, drawn with replacement."""
    for name, (experiment, task, first, _) in REAL.items():
        values_PK = real_values(experiment, task, first)
        yield Design(name, float((values_PK == 0).mean().round(3)), float(values_PK.mean()), partial(_again, values_PK))


def _again(values_PK: np.ndarray, rng: np.random.Generator, patients: int) -> np.ndarray:
    return values_PK[rng.integers(0, len(values_PK), patients)]


def percentile(values_PK: np.ndarray, rng: np.random.Generator, resamples: int) -> tuple[float, float]:
    """Return the plain percentile bootstrap over patients."""
    chosen = rng.integers(0, len(values_PK), (resamples, len(values_PK)))
    return interval(values_PK.mean(axis=1)[chosen].mean(axis=1))


def student(values_PK: np.ndarray) -> tuple[float, float]:
    """Return Student's interval over patients."""
    values_P = values_PK.mean(axis=1)
    half = special.stdtrit(len(values_P) - 1, 0.975) * values_P.std(ddof=1) / np.sqrt(len(values_P))
    return values_P.mean() - half, values_P.mean() + half


def bootstrap_t(values_P: np.ndarray, rng: np.random.Generator, resamples: int) -> tuple[float, float]:
    """Return the bootstrap-t interval of the mean (Efron and Tibshirani 1993), without resamples of one value."""
    patients, mean = len(values_P), float(values_P.mean())
    drawn_BP = values_P[rng.integers(0, patients, (resamples, patients))]
    errors_B = drawn_BP.std(axis=1, ddof=1) / np.sqrt(patients)
    known = errors_B > 0
    if not known.any():
        return mean, mean
    quantiles = np.quantile((drawn_BP.mean(axis=1) - mean)[known] / errors_B[known], (0.025, 0.975))
    error = values_P.std(ddof=1) / np.sqrt(patients)
    return mean - quantiles[1] * error, mean - quantiles[0] * error


def inverted_sign_flips(values_P: np.ndarray, rng: np.random.Generator, resamples: int) -> tuple[float, float]:
    """Return all means that the sign-flip permutation test does not refuse at 5 %.

    A flip is as extreme as what was seen for the means between that of the flipped values and that of the others.
    """
    flipped_BP = rng.random((resamples, len(values_P))) < 0.5
    counts_B = flipped_BP.sum(axis=1)
    some_B = (counts_B > 0) & (counts_B < len(values_P))
    flipped_BP, counts_B = flipped_BP[some_B], counts_B[some_B]
    sums_B = flipped_BP @ values_P
    means_2B = np.stack([sums_B / counts_B, (values_P.sum() - sums_B) / (len(values_P) - counts_B)])
    return float(np.quantile(means_2B.min(axis=0), 0.05)), float(np.quantile(means_2B.max(axis=0), 0.95))


def measure(
    design: Design, patients: int, *, repeats: int, rng: np.random.Generator, resamples: int = 1000
) -> list[dict]:
    """Return one record per method: coverage, fraction of truths below and above the interval, mean width."""
    limits: dict[str, list[tuple[float, float]]] = {
        name: [] for name in (CELLS, CELLS_AS_SEEN, "percentile", "student")
    }
    for _ in range(repeats):
        values_PK = design.draw(rng, patients)
        sums = sums_of_values(values_PK, design.scale)
        own, seen = cell_limits(sums, design.scale, rng_seeds=[int(rng.integers(2**31))], resamples=resamples)
        limits[CELLS].append(own)
        limits[CELLS_AS_SEEN].append(seen)
        limits["percentile"].append(percentile(values_PK, rng, resamples))
        limits["student"].append(student(values_PK))
    key = {"design": design.name, "n": patients, "missed_fraction": design.missed_fraction}
    return [key | {"method": method} | summary(np.array(found), design.truth) for method, found in limits.items()]


def summary(limits_R2: np.ndarray, truth: float) -> dict[str, float]:
    """Return coverage, errors on either side and mean width of repeated intervals."""
    below, above = truth < limits_R2[:, 0] - 1e-12, truth > limits_R2[:, 1] + 1e-12
    return {
        "coverage": round(1 - float((below | above).mean()), 4),
        "truth_below": round(float(below.mean()), 4),
        "truth_above": round(float(above.mean()), 4),
        "width": round(float(np.diff(limits_R2, axis=1).mean()), 4),
        "repeats": len(limits_R2),
    }


def seeds_interval(values_PS: np.ndarray, rng: np.random.Generator, resamples: int) -> dict[str, object]:
    """Return the parts of a cell with several seeds: limits with and without the spread of seeds."""
    sums = sums_of_values(values_PS.mean(axis=1, keepdims=True), DICE)
    patient, _ = cell_limits(sums, DICE, rng_seeds=[int(rng.integers(2**31))], resamples=resamples)
    spread = seed_spread(values_PS)
    mean = float(values_PS.mean())
    low, high = with_seeds(mean, patient, spread, DICE)
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "patient_low": patient[0],
        "patient_high": patient[1],
        "seed_means": dict(enumerate(spread.means_S.tolist())),
        "seed_noise": spread.noise,
        "fold_means": {},
        "fold_noise": 0.0,
    }


def draw_seeds(rng: np.random.Generator, patients: int, *, seeds_S: np.ndarray) -> np.ndarray:
    """Return Dice (patients, seeds): 0.7, patient sd 0.08, given seed effects, patient-by-seed sd 0.04."""
    noise_PS = rng.normal(0, 0.04, (patients, len(seeds_S)))
    return np.clip(0.7 + rng.normal(0, 0.08, (patients, 1)) + seeds_S + noise_PS, 0.001, 1)


def measure_seeds(
    patients: int, *, seed_sd: float, repeats: int, rng: np.random.Generator, seeds: int = 3
) -> list[dict]:
    """Return the one record of a cell with a few seeds whose effects have standard deviation `seed_sd`."""
    found = []
    for _ in range(repeats):
        parts = seeds_interval(draw_seeds(rng, patients, seeds_S=rng.normal(0, seed_sd, seeds)), rng, 1000)
        found.append((parts["low"], parts["high"]))
    key = {
        "design": f"{seeds} seeds, seed sd {seed_sd}",
        "n": patients,
        "missed_fraction": 0.0,
        "method": "segbench with seeds",
    }
    return [key | summary(np.array(found), 0.7)]


def measure_tasks(*, repeats: int, rng: np.random.Generator, missed: float) -> list[dict]:
    """Return the one record of the mean over eleven tasks (9 to 251 patients), hits Beta(0.8, sd 0.12).

    The mean over tasks takes eleven times as long as a cell, so that a quarter of the repeats is made.
    """
    sizes = (27, 42, 61, 57, 26, 13, 9, 43, 25, 251, 101)
    design = one_structure("eleven tasks, 9 to 251 patients", 0.8, sd=0.12, missed=missed)
    found = []
    for _ in range(max(repeats // 4, 1)):
        cells = pd.DataFrame([seeds_interval(design.draw(rng, size), rng, 1000) for size in sizes])
        cells = cells.assign(
            experiment="e",
            task=[f"task {size}" for size in sizes],
            model="m",
            initialisation="i",
            metric="dice",
            n_scored=1,
            n_expected=1,
            n_failed=0,
            n_skipped=0,
            n_missed=0,
            all_missed=False,
        )
        found.append(tuple(mean_over_tasks(cells)[["low", "high"]].iloc[0]))
    key = {"design": design.name, "n": sum(sizes), "missed_fraction": missed, "method": "segbench over tasks"}
    return [key | summary(np.array(found), design.truth)]


def two_methods(rng: np.random.Generator, patients: int, missed: tuple[float, float]) -> np.ndarray:
    """Return Dice (patients, 2): Beta(0.85, sd 0.08), correlation about 0.7, and missed structures."""
    return _beta(0.85, 0.08).ppf(correlated_levels(rng, patients)) * (rng.random((patients, 2)) >= missed)


def correlated_levels(rng: np.random.Generator, patients: int) -> np.ndarray:
    """Return uniform levels (patients, 2) with a correlation of about 0.7 between both columns."""
    level = np.sqrt(0.7) * rng.normal(size=(patients, 1)) + np.sqrt(0.3) * rng.normal(size=(patients, 2))
    return stats.norm.cdf(level)


def two_limits(
    values_P2K: np.ndarray,
    rng: np.random.Generator,
    seeds: tuple[Seeds, Seeds] = (Seeds(), Seeds()),
    folds: SeedSpread | None = None,
) -> Limits:
    """Return the limits of the mean difference of two methods from Dice (patients, 2, structures)."""
    sums = (sums_of_values(values_P2K[:, 0], DICE), sums_of_values(values_P2K[:, 1], DICE))
    differences_P = values_P2K.mean(axis=2) @ [1.0, -1.0]
    entropy = [int(rng.integers(2**31))]
    return pair_limits(
        differences_P,
        sums,
        DICE,
        seeds=seeds,
        folds=folds,
        alpha=0.05,
        rng_seeds=entropy,
        bound=1.0,
        resamples=1000,
    )


def difference_records(key: dict, found: list[Limits], truth: float) -> Iterator[dict]:
    """Yield the records of both intervals of repeated differences."""
    yield key | {"method": DIFFERENCE} | summary(np.array([(own.low, own.high) for own in found]), truth)
    seen = np.array([(own.low_as_seen, own.high_as_seen) for own in found])
    yield key | {"method": DIFFERENCE_AS_SEEN} | summary(seen, truth)


OTHERS = {BOOTSTRAP_T: bootstrap_t, SIGN_FLIPS: inverted_sign_flips}
"""Known intervals of a mean difference that only know the seen values."""


def measure_difference(
    patients: int, *, missed: tuple[float, float], repeats: int, rng: np.random.Generator
) -> Iterator[dict]:
    """Yield the records of a paired difference with one seed; structures are missed independently.

    Two known intervals of the mean difference stand beside ours, on the same samples.
    """
    found: list[Limits] = []
    others: dict[str, list[tuple[float, float]]] = {name: [] for name in OTHERS}
    for _ in range(repeats):
        values_P2 = two_methods(rng, patients, missed)
        found.append(two_limits(values_P2[:, :, None], rng))
        for name, limits in OTHERS.items():
            others[name].append(limits(values_P2 @ [1.0, -1.0], rng, 500))
    design = f"paired difference, {100 * missed[0]:g} % and {100 * missed[1]:g} % missed"
    key = {"design": design, "n": patients, "missed_fraction": missed[0]}
    truth = 0.85 * (missed[1] - missed[0])
    yield from difference_records(key, found, truth)
    for name, limits_R2 in others.items():
        yield key | {"method": name} | summary(np.array(limits_R2), truth)


def measure_real_difference(name: str, patients: int, *, repeats: int, rng: np.random.Generator) -> Iterator[dict]:
    """Yield the records of the difference of two real methods whose patients are drawn again."""
    experiment, task, *both = REAL[name]
    values_P2K = np.stack([real_values(experiment, task, method) for method in both], axis=1)
    found = [two_limits(_again(values_P2K, rng, patients), rng) for _ in range(repeats)]
    key = {
        "design": f"paired difference, {name}",
        "n": patients,
        "missed_fraction": float((values_P2K[:, 0] == 0).mean().round(3)),
    }
    yield from difference_records(key, found, float((values_P2K[:, 0] - values_P2K[:, 1]).mean()))


def measure_seed_difference(
    patients: int, *, seeds: int, methods: int, seed_sd: float, repeats: int, rng: np.random.Generator
) -> Iterator[dict]:
    """Yield the records of the paired difference of two of several methods with a few seeds each."""
    found = []
    for _ in range(repeats):
        level_P1 = rng.normal(0.7, 0.08, (patients, 1))
        values = {
            str(m): level_P1
            + rng.normal(0, 0.02, (patients, 1))
            + rng.normal(0, seed_sd, seeds)
            + rng.normal(0, 0.02, (patients, seeds))
            for m in range(methods)
        }
        pooled = pool_seeds({name: seed_spread(values_PS) for name, values_PS in values.items()})
        values_P2 = np.stack([values[name].mean(axis=1) for name in ("0", "1")], axis=1).clip(0.001, 1.0)
        found.append(two_limits(values_P2[:, :, None], rng, (pooled["0"], pooled["1"])))
    design = f"paired difference, {seeds} seeds, seed sd {seed_sd}, {methods} methods"
    yield from difference_records({"design": design, "n": patients, "missed_fraction": 0.0}, found, 0.0)


def measure_fold_difference(patients: int, *, fold_sd: float, repeats: int, rng: np.random.Generator) -> Iterator[dict]:
    """Yield the records of a paired difference pooled over five folds whose models differ with `fold_sd` each."""
    found = []
    fold_P = np.arange(patients) % 5
    for _ in range(repeats):
        level_P1 = rng.normal(0.7, 0.08, (patients, 1))
        models_F2 = rng.normal(0, fold_sd, (5, 2))
        values_P2 = (level_P1 + models_F2[fold_P] + rng.normal(0, 0.03, (patients, 2))).clip(0.001, 1.0)
        folds = fold_spread(fold_P, values_P2 @ [1.0, -1.0])
        found.append(two_limits(values_P2[:, :, None], rng, folds=folds))
    design = f"paired difference, five folds, fold sd {fold_sd}"
    yield from difference_records({"design": design, "n": patients, "missed_fraction": 0.0}, found, 0.0)


def measure_false_positives(patients: int, *, design: str, repeats: int, rng: np.random.Generator) -> Iterator[dict]:
    """Yield per decision rule how often one of two methods with the same mean is named better, at alpha 5 %.

    Hits have a standard deviation of 0.08 and a correlation of about 0.7; those of a method that alone has missed
    structures have the mean that makes up for them.
    """
    missed = SAME_MEAN[design]
    level = 0.8 * (1 - max(missed)) if missed[0] == missed[1] else 0.8 * (1 - missed[0])
    hits = [_beta(level / (1 - own), 0.08) for own in missed]
    named = dict.fromkeys(RULES, 0)
    for _ in range(repeats):
        both_P2 = correlated_levels(rng, patients)
        values_P2 = np.stack([own.ppf(both_P2[:, i]) for i, own in enumerate(hits)], axis=1)
        values_P2 *= rng.random((patients, 2)) >= missed
        differences_P = (values_P2 @ [1.0, -1.0]).round(12)
        signs = directions(differences_P)
        for rule in RULES:
            p_value = rule_p(differences_P, rule)
            named[rule] += decide(p_value, signs, rule=rule, alpha=0.05, lower_is_better=False) in ("a", "b")
    for rule, count in named.items():
        yield {"design": design, "n": patients, "rule": rule, "rate": round(count / repeats, 4), "repeats": repeats}


def cell_work() -> Iterator[Work]:
    """Yield the cells: every design and real population at every size."""
    for design, size in itertools.product((*designs(), *real_designs()), SIZES):
        yield f"{design.name}, n = {size}", partial(measure, design, size)


def seed_work() -> Iterator[Work]:
    """Yield cells with a few seeds."""
    for size, seeds, seed_sd in itertools.product((9, 27), (2, 3), (0.0, 0.02)):
        yield f"{seeds} seeds, n = {size}", partial(measure_seeds, size, seeds=seeds, seed_sd=seed_sd)


def task_work() -> Iterator[Work]:
    """Yield means over tasks."""
    for missed in (0.0, 0.1):
        yield "means over tasks", partial(measure_tasks, missed=missed)


def difference_work() -> Iterator[Work]:
    """Yield differences of two methods: drawn, real, with seeds and with folds."""
    for size, missed in itertools.product(SIZES, MISSED_BY):
        yield f"difference, n = {size}", partial(measure_difference, size, missed=missed)
    for size, name in itertools.product(SIZES, REAL):
        yield f"difference, {name}, n = {size}", partial(measure_real_difference, name, size)
    for size, seeds, methods, seed_sd in itertools.product((9, 27), (2, 3), (2, 6), (0.0, 0.02)):
        work = partial(measure_seed_difference, size, seeds=seeds, methods=methods, seed_sd=seed_sd)
        yield f"difference, {seeds} seeds, n = {size}", work
    for size, fold_sd in itertools.product((27, 52), (0.0, 0.02)):
        yield f"difference, five folds, n = {size}", partial(measure_fold_difference, size, fold_sd=fold_sd)


def false_positive_work() -> Iterator[Work]:
    """Yield the designs in which both methods have the same mean."""
    for size, design in itertools.product(SIZES[:-1], SAME_MEAN):  # the exact test of 100 patients takes long
        yield f"false positives, n = {size}", partial(measure_false_positives, size, design=design)


PARTS: dict[str, Callable[[], Iterator[Work]]] = {
    "cells": cell_work,
    "seeds": seed_work,
    "tasks": task_work,
    "differences": difference_work,
    "false positives": false_positive_work,
}


def measured_part(part: str, repeats: int, workers: int) -> list[dict]:
    """Return the records of one part, in order; its random numbers depend neither on other parts nor on `workers`."""
    work = list(PARTS[part]())
    root = np.random.SeedSequence([2023, list(PARTS).index(part)])
    items = [(own, repeats, child) for (_, own), child in zip(work, root.spawn(len(work)), strict=True)]
    records: list[dict] = []
    with Progress(total=len(work), title=part, unit="design") as bar:
        for (title, _), found in zip(work, mapped(_measured, items, workers=workers), strict=True):
            records += found
            bar.advance(title)
    return records


def _measured(item: tuple[Callable[..., Iterable[dict]], int, np.random.SeedSequence]) -> list[dict]:
    measure_one, repeats, child = item
    return list(measure_one(repeats=repeats, rng=np.random.default_rng(child)))


def main() -> None:
    """Measure every design; write both tables, and the page when the tables are the shipped ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the two tables into this folder and leave the page as it is")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = {part: measured_part(part, args.repeats, args.workers) for part in PARTS}
    rates = pd.DataFrame(found.pop("false positives"))
    table = pd.DataFrame([record for records in found.values() for record in records])
    for path, content in ((TABLE, table), (FALSE_POSITIVES, rates)):
        target = path if args.out is None else args.out / path.name
        write_text(target, content.to_csv(index=False, lineterminator="\n"))
    if args.out is None:
        update_page(table, rates)
    for line in result_lines(table, rates):
        print(line)


if __name__ == "__main__":
    from benchmarks import coverage  # worker processes find the functions by this name

    coverage.main()
