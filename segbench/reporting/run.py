"""A finished run as the report sees it: score rows, the record beside them, and cells computed once per metric."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from segbench.core.errors import input_error
from segbench.stats.aggregate import cells, read_scores

CONFIDENCE = 0.95
MethodKey = tuple[str, str]
_NEEDED = (
    "run",
    "synthetic",
    "protocol",
    "methods",
    "tasks",
    "audit",
    "jobs",
    "policies",
    "provenance",
    "config_sha256",
)


@dataclass(frozen=True)
class Method:
    """One row of a table; kind is universal, single_task, external, transfer or control.

    A self-supervised objective has kind self_supervised: it is trained and never scored, so it is no row of a table.
    """

    experiment: str
    model: str
    initialisation: str
    title: str
    kind: str
    fidelity: str
    options_text: str = ""
    citation: str = ""
    url: str = ""

    @property
    def key(self) -> MethodKey:
        """Model and initialisation: the method's name within an experiment."""
        return self.model, self.initialisation

    @property
    def trained(self) -> bool:
        """True for methods that compete; controls bound the scale and are not ranked."""
        return self.kind != "control"


class Run:
    """Score rows and record of one run; `cells` are computed once per metric."""

    def __init__(self, folder: Path):
        """Read scores.csv and run.json of `folder`; raises `InputError` when one is missing or not readable."""
        self.record = _read_record(folder / "run.json")
        self.rows = read_scores(folder / "scores.csv")
        self.methods = _with_distinct_titles([Method(**_fields(item)) for item in self.record["methods"]])
        self.self_supervised = _with_distinct_titles(
            [Method(**_fields(item)) for item in self.record.get("self_supervised", [])]
        )
        self.cells = functools.cache(self._cells)

    def _cells(self, metric: str) -> pd.DataFrame:
        return cells(self.rows, metric=metric, policies=self.record["policies"], confidence=CONFIDENCE)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.record["run"]

    @property
    def metrics(self) -> list[str]:
        """Metrics of the score table, Dice first."""
        found = list(dict.fromkeys(self.rows["metric"]))
        return sorted(found, key=lambda name: (name not in ("dice", "hd95"), name))

    @property
    def experiments(self) -> list[str]:
        """'upstream' and, where the run has one, 'downstream'."""
        return list(dict.fromkeys(task["experiment"] for task in self.record["tasks"]))

    def tasks(self, experiment: str) -> list[dict]:
        """Return the tasks of an experiment in table order."""
        return [task for task in self.record["tasks"] if task["experiment"] == experiment]

    def methods_of(self, experiment: str) -> list[Method]:
        """Return the methods of an experiment in table order, controls last."""
        listed = [method for method in self.methods if method.experiment == experiment]
        return sorted(listed, key=lambda method: not method.trained)

    def self_supervised_of(self, experiment: str) -> list[Method]:
        """Return the self-supervised objectives that were trained in an experiment."""
        return [method for method in self.self_supervised if method.experiment == experiment]

    def method(self, experiment: str, key: MethodKey) -> Method:
        """Return the method with this model and initialisation."""
        return next(method for method in self.methods_of(experiment) if method.key == tuple(key))

    def synthetic(self, experiment: str | None = None) -> bool:
        """Return whether any task of the experiment, or of the run, is synthetic."""
        return any(task["synthetic"] for task in self.record["tasks"] if experiment in (None, task["experiment"]))

    def data_word(self, experiment: str | None = None) -> str:
        """Return 'Synthetic data. ' for captions where it applies, otherwise nothing."""
        return "Synthetic data. " if self.synthetic(experiment) else ""

    def jobs(self, experiment: str, key: MethodKey) -> list[dict]:
        """Return the job records of a method."""
        return [
            job
            for job in self.record["jobs"]
            if (job["experiment"], job["model"], job["initialisation"]) == (experiment, *key)
        ]

    def seeds(self, experiment: str) -> int:
        """Return the largest number of seeds that any method of the experiment was trained with."""
        rows = self.rows[self.rows["experiment"] == experiment]
        return int(rows.groupby(["model", "initialisation"])["seed"].nunique().max())


def _read_record(path: Path) -> dict:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise input_error(
            path,
            found=error.strerror,
            expected="the record of a finished run",
            fix="name a folder results/<run> that `segbench gather` has filled",
        ) from error
    except ValueError as error:
        raise input_error(
            path, found=f"not JSON ({error})", expected="JSON", fix="run `segbench gather` again"
        ) from error
    missing = [key for key in _NEEDED if key not in record]
    missing += ["curve of a job"] if any("curve" not in job for job in record.get("jobs", [])) else []
    if missing:
        raise input_error(
            path,
            found=f"no {', '.join(missing)}",
            expected="the record that `segbench gather` writes",
            fix="run `segbench gather` again",
        )
    return record


def _fields(item: dict) -> dict:
    return {name: item[name] for name in Method.__dataclass_fields__ if name in item}


def _with_distinct_titles(methods: list[Method]) -> list[Method]:
    """Name the model's id behind a title that an experiment has twice."""
    titles = [(method.experiment, method.title) for method in methods]
    return [
        method
        if titles.count((method.experiment, method.title)) == 1
        else Method(**{**method.__dict__, "title": f"{method.title} [{'/'.join(method.key)}]"})
        for method in methods
    ]
