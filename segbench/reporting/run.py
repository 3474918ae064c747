"""A finished run as the report sees it: score rows, the record beside them, and cells computed once per metric."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from segbench.core.errors import Problem, input_error, raise_problems
from segbench.core.files import sha256_of
from segbench.core.paths import RUN_RECORD, SCORES
from segbench.core.run_record import JobRecord, Method, RunRecord, ScoredTask, read_run_record
from segbench.reporting.recipes import belongs, split_record
from segbench.stats.aggregate import apply_handling, cells, read_scores
from segbench.stats.methods import check_complete
from segbench.stats.recipes import split_rows

__all__ = ["ALPHA", "Method", "MethodKey", "Run"]

ALPHA = 0.05
MethodKey = tuple[str, str]


class Run:
    """Score rows and record of one run; `cells` and `counted_rows` are computed once for their arguments.

    `alpha` is the level of tests and one minus that of intervals. `reference` is the label of the method that the
    others are held against; None leaves the choice to `statistics.reference_method`. `equivalence` has metrics whose
    region of practical equivalence is not the default one. `seed` is that of all draws.
    """

    def __init__(self, folder: Path):
        """Read scores.csv and run.json of a folder.

        Args:
            folder: results/<run> after `gather`, or a rendered report, which carries both files.

        Raises:
            InputError: a file is missing, damaged or of another version, or the two do not belong together.
        """
        record = read_run_record(folder / RUN_RECORD)
        rows = read_scores(folder / SCORES)
        _same_run(folder, record, rows)
        self._take(record, rows)

    @classmethod
    def of_table(
        cls,
        rows: pd.DataFrame,
        record: RunRecord,
        *,
        alpha: float,
        reference: str | None,
        equivalence: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> Run:
        """Return a run made of checked rows and a record without jobs; see `segbench.reporting.comparison`."""
        run = cls.__new__(cls)
        run._take(record, rows, alpha=alpha, reference=reference, equivalence=equivalence, seed=seed)
        return run

    def _take(
        self,
        record: RunRecord,
        rows: pd.DataFrame,
        *,
        alpha: float = ALPHA,
        reference: str | None = None,
        equivalence: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        self.record, self.rows = split_record(record), split_rows(rows)
        self.alpha, self.reference, self.equivalence, self.seed = alpha, reference, equivalence or {}, seed
        self.scores_sha256 = self.record.scores_sha256
        self.methods = _with_distinct_titles(self.record.methods)
        self.self_supervised = _with_distinct_titles(self.record.self_supervised)
        self.cells = functools.cache(self._cells)
        self.counted_rows = functools.cache(self._counted_rows)

    def _cells(self, metric: str) -> pd.DataFrame:
        handling, confidence = self.record.missing_masks, 1 - self.alpha
        return cells(self.rows, metric=metric, missing_masks=handling, confidence=confidence, seed=self.seed)

    def _counted_rows(self, experiment: str, metric: str) -> pd.DataFrame:
        """Return the rows of an experiment and a metric that enter its means, `scored` as in the tables."""
        rows = self.rows[(self.rows["experiment"] == experiment) & (self.rows["metric"] == metric)]
        rows = apply_handling(rows, self.record.missing_masks)
        return rows[rows["counted"]]

    @property
    def level(self) -> str:
        """The level of the intervals, such as '95 %'."""
        return f"{100 * (1 - self.alpha):g} %"

    @property
    def from_jobs(self) -> bool:
        """Whether jobs of this project made the scores; a table of other origin has no cost, audit or provenance."""
        return bool(self.record.jobs)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.record.run

    @property
    def metrics(self) -> list[str]:
        """Metrics of the score table, Dice first."""
        return self._ordered(self.rows)

    def metrics_of(self, experiment: str) -> list[str]:
        """Return the metrics of an experiment, Dice first."""
        return self._ordered(self.rows[self.rows["experiment"] == experiment])

    @staticmethod
    def _ordered(rows: pd.DataFrame) -> list[str]:
        found = list(dict.fromkeys(rows["metric"]))
        return sorted(found, key=lambda name: (name not in ("dice", "hd95"), name))

    @property
    def experiments(self) -> list[str]:
        """'upstream' and, where the run has one, 'downstream'; each recipe but the equal one under its own name."""
        return list(dict.fromkeys(task.experiment for task in self.record.tasks))

    def tasks(self, experiment: str) -> list[ScoredTask]:
        """Return the tasks of an experiment in table order."""
        return [task for task in self.record.tasks if task.experiment == experiment]

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
        return any(task.synthetic for task in self.record.tasks if experiment in (None, task.experiment))

    def data_word(self, experiment: str | None = None) -> str:
        """Return 'Synthetic data. ' for captions where it applies, otherwise nothing."""
        return "Synthetic data. " if self.synthetic(experiment) else ""

    def jobs(self, experiment: str, key: MethodKey) -> list[JobRecord]:
        """Return the job records of a method."""
        return [
            job
            for job in self.record.jobs
            if (job.model, job.initialisation) == key and belongs(job.experiment, job.recipe, experiment)
        ]

    def seeds(self, experiment: str) -> int:
        """Return the largest number of seeds that any method of the experiment was trained with."""
        rows = self.rows[self.rows["experiment"] == experiment]
        return int(rows.groupby(["model", "initialisation"])["seed"].nunique().max())


def _same_run(folder: Path, record: RunRecord, rows: pd.DataFrame) -> None:
    """Refuse rows and a record that do not describe each other, so that nothing of a table is silently left out."""
    methods = {(method.experiment, *method.key, method.recipe) for method in record.methods}
    tasks = {(task.experiment, task.name) for task in record.tasks}
    names = ("experiment", "model", "initialisation", "recipe")
    seen_methods = set(zip(*(rows[name] for name in names), strict=True))
    seen_tasks = set(zip(rows["experiment"], rows["task"], strict=True))
    raise_problems(
        Problem(str(folder / SCORES), found, expected, "run `segbench gather` again")
        for found, expected in [
            *_strangers("rows of the method", seen_methods - methods, "methods of run.json only"),
            *_strangers("no row of the method", methods - seen_methods, "rows of every method of run.json"),
            *_strangers("rows of the task", seen_tasks - tasks, "tasks of run.json only"),
            *_strangers("no row of the task", tasks - seen_tasks, "rows of every task of run.json"),
        ]
    )
    check_complete(rows, where=str(folder / SCORES))
    tested = rows.groupby(["experiment", "task"])[["fold", "case"]].apply(lambda part: len(part.drop_duplicates()))
    raise_problems(
        Problem(
            f"{folder / SCORES}: {task.experiment}/{task.name}",
            f"{tested[task.experiment, task.name]} test cases",
            f"{task.n_test}, as run.json says",
            "restore the file, or run `segbench gather` again",
        )
        for task in record.tasks
        if tested[task.experiment, task.name] != task.n_test
    )
    digest = sha256_of(folder / SCORES)
    if digest != record.scores_sha256:
        raise input_error(
            folder / SCORES,
            found=f"SHA-256 {digest}",
            expected=f"{record.scores_sha256}, which run.json was written for",
            fix="restore the file, or run `segbench gather` again",
        )


def _strangers(what: str, names: Iterable[tuple[str, ...]], expected: str) -> list[tuple[str, str]]:
    return [(f"{what} {'/'.join(name)}", expected) for name in sorted(names)]


def _with_distinct_titles(methods: Iterable[Method]) -> list[Method]:
    """Name the model's id behind a title that an experiment has twice."""
    methods = list(methods)
    titles = [(method.experiment, method.title) for method in methods]
    return [
        method
        if titles.count((method.experiment, method.title)) == 1
        else method.model_copy(update={"title": f"{method.title} [{'/'.join(method.key)}]"})
        for method in methods
    ]
