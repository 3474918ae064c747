"""Where every file of a run is, and which names are parts of these paths; nothing else spells them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PREPROCESSED_ROOT = Path("data/preprocessed")
NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9_]*"
"""Names of runs, tasks, models and weights: a file name on every system, and the workflow's wildcard `task`."""
JOB_PATTERN = "[A-Za-z0-9_.]+"
"""Ids of jobs, which are names and numbers joined by dots: the workflow's wildcard `job`."""

CONFIG = "config.json"
SPLITS = "splits.json"
AUDIT = "audit.csv"
SCORES = "scores.csv"
RUN_RECORD = "run.json"
MADE_FROM = (SCORES, RUN_RECORD)
"""What a report is rebuilt from; it holds a copy of both."""
PAGE = "index.html"
OUTCOME = "outcome.json"
RECORD = "record.json"
WEIGHTS = "weights.pt"
TRAINING_LOG = "log.csv"
"""Files in the folder of a job."""


def preprocessed_name(task: str, recipe: str = "") -> str:
    """Return the name of a task's preprocessed cases: TASK, or TASK.RECIPE for another recipe than the task's own."""
    return f"{task}.{recipe}" if recipe else task


@dataclass(frozen=True)
class RunPaths:
    """Paths of one run, relative to the working directory."""

    run: str

    @property
    def root(self) -> Path:
        """Everything of the run that git ignores."""
        return Path("results") / self.run

    @property
    def report(self) -> Path:
        """The rendered report, as the workflow writes it."""
        return self.root / "report"

    @property
    def published(self) -> Path:
        """The report that `publish` copies to where git keeps it."""
        return Path("reports") / self.run

    @property
    def shown(self) -> Path:
        """What `snakemake --report` shows: copies, because Snakemake deletes and marks the outputs of a rule."""
        return self.root / "shown"

    @property
    def config(self) -> Path:
        """The resolved config that every job reads."""
        return self.root / CONFIG

    @property
    def splits(self) -> Path:
        """The split, with its hash."""
        return self.root / SPLITS

    @property
    def audit(self) -> Path:
        """The findings of the leak audit."""
        return self.root / AUDIT

    @property
    def scores(self) -> Path:
        """The one table that everything is derived from."""
        return self.root / SCORES

    @property
    def run_record(self) -> Path:
        """What the report needs to know about the run: methods, tasks, jobs, provenance."""
        return self.root / RUN_RECORD

    def manifest(self, task: str) -> Path:
        """Checked cases of a task."""
        return self.root / "manifest" / f"{task}.csv"

    def notices(self, task: str) -> Path:
        """What the check says of a task's data although they were accepted: a list of sentences."""
        return self.root / "manifest" / f"{task}.notices.json"

    def sources(self, task: str) -> Path:
        """Raw files of a task as they were ingested."""
        return self.root / "manifest" / f"{task}.sources.json"

    def preprocessed(self, task: str, recipe: str = "") -> Path:
        """Index of a task's preprocessed cases: case id -> folder in the shared store.

        Args:
            task: name of the task.
            recipe: preprocessing recipe of a downstream model, where it is not the task's own.
        """
        return self.root / "preprocessed" / f"{preprocessed_name(task, recipe)}.json"

    def train(self, job: str) -> Path:
        """Folder of a training job: outcome.json, record.json, weights.pt, log.csv."""
        return self.root / "train" / job

    def evaluate(self, job: str) -> Path:
        """Folder of an evaluation: outcome.json, record.json, scores.csv."""
        return self.root / "evaluate" / job

    def prediction(self, job: str, task: str, case: str) -> Path:
        """A predicted label map on the native grid."""
        return self.root / "predictions" / job / task / f"{case}.nii.gz"

    def prediction_identity(self, job: str, task: str, case: str) -> Path:
        """Identity of a predicted label map, beside it."""
        return self.root / "predictions" / job / task / f"{case}.json"

    def external(self, job: str) -> Path:
        """Working folder of an external model: job.json, labels/, output/, logs."""
        return self.root / "external" / job

    def request(self, rule: str, name: str) -> Path:
        """What the workflow asks of a job: digest of its settings, number of the attempt."""
        return self.root / "requests" / rule / f"{name}.json"

    @property
    def rendered(self) -> Path:
        """Files of the rendered report with their hashes, and what they were made from."""
        return self.root / "rendered.json"

    @property
    def running(self) -> Path:
        """Records of the processes that work on this run."""
        return self.root / "state" / "running"

    def state(self, command: str, job: str) -> Path:
        """Resumable state of a job, beside and not inside its declared outputs."""
        return self.root / "state" / command / job

    def log(self, rule: str, name: str) -> Path:
        """Log of a job."""
        return self.root / "logs" / rule / f"{name}.log"

    def events(self, job: str) -> Path:
        """Events of a training for TensorBoard, beside its log."""
        return self.root / "logs" / "events" / job

    def benchmark(self, rule: str, name: str) -> Path:
        """Snakemake's benchmark file of a job."""
        return self.root / "benchmarks" / rule / f"{name}.tsv"
