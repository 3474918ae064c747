"""A folder with results/RUN as the workflow leaves it, from synthetic scores: tables, config, splits, audit."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from segbench.core.case import Case, write_manifest
from segbench.core.provenance import content_hash
from segbench.core.run_record import Finding
from tests.unit.reporting.synthetic_run import write_run


def write_finished_run(root: Path, run: str, *, seed: int = 0, rng_seed: int = 7) -> Path:
    """Write the results of a small finished run with one seed below a folder; return results/RUN."""
    folder = root / "results" / run
    write_run(folder, seeds=(seed,), cases=3, upstream=2, methods=2, curves=False, rng_seed=rng_seed)
    config = {
        "run": run,
        "seeds": [seed],
        "data": {"folds": [0], "protocol": "seeded"},
        "training": {"iterations_per_task": 150},
        "missing_masks": {},
        "statistics": {"decision_rule": "mean"},
        "upstream": {"models": [{"name": "uniseg", "recipe": "equal"}, {"name": "dodnet", "recipe": "equal"}]},
    }
    record = json.loads((folder / "run.json").read_text())
    record |= {"run": run, "config_sha256": content_hash(config)}
    (folder / "config.json").write_text(json.dumps(config))
    with open(folder / "scores.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    n_train = record["tasks"][0]["n_train"]
    trained = ["other_case", *(f"other_case_{number}" for number in range(1, n_train))]
    tests: dict[str, dict] = {}
    patients = {row["case"]: row["patient"] for row in rows}
    for row in rows:
        sides = tests.setdefault(row["task"], {"train": trained, "test": []})
        if row["case"] not in sides["test"]:
            sides["test"].append(row["case"])
    for task, sides in tests.items():
        write_manifest(
            folder / "manifest" / f"{task}.csv",
            (
                Case(task, case, patients.get(case, case), ("image.nii.gz",), "", "", "", (1, 1, 1), (1, 1, 1), "RAS")
                for case in (*sides["train"], *sides["test"])
            ),
        )
    record["audit"]["cases"] = sum(len(sides["train"]) + len(sides["test"]) for sides in tests.values())
    (folder / "run.json").write_text(json.dumps(record))
    splits = {"protocol": "seeded", "task_protocols": {}, "folds": {"0": tests}, "changes": []}
    (folder / "splits.json").write_text(json.dumps(splits | {"sha256": content_hash(splits)}))
    findings = [Finding.model_validate(item).model_dump().values() for item in record["audit"]["findings"]]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([list(Finding.model_fields), *findings])
    (folder / "audit.csv").write_text(stream.getvalue())
    return folder
