"""A folder with results/RUN as the workflow leaves it, from synthetic scores: tables, config, splits, audit."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from segbench.core.provenance import content_hash
from tests.unit.reporting.synthetic_run import write_run


def write_finished_run(root: Path, run: str, *, seed: int = 0, rng_seed: int = 7) -> Path:
    """Write the results of a small finished run with one seed below a folder; return results/RUN."""
    folder = root / "results" / run
    write_run(folder, seeds=(seed,), cases=3, upstream=2, methods=2, curves=False, rng_seed=rng_seed)
    config = {
        "run": run,
        "seeds": [seed],
        "data": {"folds": [0]},
        "training": {"iterations_per_task": 150},
        "upstream": {"models": [{"name": "uniseg", "recipe": "equal"}, {"name": "dodnet", "recipe": "equal"}]},
    }
    record = json.loads((folder / "run.json").read_text())
    record |= {"run": run, "config_sha256": content_hash(config)}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "config.json").write_text(json.dumps(config))
    with open(folder / "scores.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    tests: dict[str, dict] = {}
    for row in rows:
        sides = tests.setdefault(row["task"], {"train": ["other_case"], "test": []})
        if row["case"] not in sides["test"]:
            sides["test"].append(row["case"])
    splits = {"protocol": "seeded", "task_protocols": {}, "folds": {"0": tests}, "changes": []}
    (folder / "splits.json").write_text(json.dumps(splits | {"sha256": content_hash(splits)}))
    findings = [list(item.values()) for item in record["audit"]["findings"]]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([["header"], *findings])
    (folder / "audit.csv").write_text(stream.getvalue())
    return folder
