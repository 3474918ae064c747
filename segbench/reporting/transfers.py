"""Pre-trained weights: where they came from and which tensors matched, from the jobs' match reports."""

from __future__ import annotations

import pandas as pd

from segbench.reporting.frames import groups_of
from segbench.reporting.run import Run
from segbench.reporting.sections import SmallTable

KEYS = ("experiment", "model", "initialisation", "scope", "fold", "seed")
COUNTS = ("matched", "resized", "missing", "unused")
HEAD = ["Method", "Source", "Format", "Fraction of the parameters", "Matched", "Resized", "Missing", "Unused", "Probe"]


def transfer_frame(run: Run) -> pd.DataFrame:
    """Return one row per job with pre-trained weights: source, checksum, fraction (0..1), tensors by outcome, probe."""
    rows = [
        {name: getattr(job, name) for name in KEYS}
        | {name: getattr(job.match, name) for name in ("source", "format", "sha256", "fraction")}
        | {name: len(getattr(job.match, name)) for name in COUNTS}
        | {"probe": " ".join(f"{value:g}" for value in job.match.probe)}
        for job in run.record.jobs
        if job.match
    ]
    return pd.DataFrame(rows)


def transfer_table(run: Run, frame: pd.DataFrame, csv: str) -> SmallTable:
    """One row per method; values that differ between its tasks, folds and seeds are given as a range."""
    rows = []
    for (experiment, model, initialisation), part in groups_of(frame, list(KEYS[:3])):
        sources, probes = part["source"].unique(), part["probe"].unique()
        rows.append(
            [
                run.method(experiment, (model, initialisation)).title,
                sources[0] if len(sources) == 1 else f"{len(sources)} sources",
                part["format"].iloc[0],
                _range([f"{100 * fraction:.1f} %" for fraction in part["fraction"].sort_values()]),
                *(_range([str(count) for count in part[name].sort_values()]) for name in COUNTS),
                probes[0] if len(probes) == 1 else f"{len(probes)} answers",
            ]
        )
    return SmallTable(
        "Pre-trained weights",
        f"{run.data_word()}Tensors of the network by outcome when its weights were loaded: matched as they are, "
        "resized, missing in the source (new heads among them); unused ones are the source's. Probe: mean, standard "
        "deviation, smallest and largest logit on a fixed input after loading (docs/pretrained_weights.md).",
        HEAD,
        rows,
        csv,
    )


def _range(texts: list[str]) -> str:
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"
