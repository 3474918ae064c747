"""What the Snakefile asks: the checked config, the jobs' inputs and parameters, the owner of the lock.

Imports nothing that an environment with Snakemake alone lacks.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path

from segbench.core.errors import InputError, RunFailed
from segbench.core.files import write_json
from segbench.core.paths import RunPaths
from segbench.core.provenance import SCORING_CODE, code_fingerprint, content_hash
from segbench.experiment import jobs
from segbench.experiment.config import Config, parse_config

OWNER = Path(".snakemake/segbench-owner.json")


def read_or_leave(content: Mapping, where: str) -> Config:
    """Return the checked config; with problems, print one line each and leave the process with status 2."""
    try:
        return parse_config(content, where=where)
    except InputError as error:
        for item in error.problems:
            print(item.line(), file=sys.stderr)
        sys.stderr.flush()
        os._exit(2)  # Snakemake turns every exception of a Snakefile into status 1


class Run:
    """The run that the workflow's config describes, with lookups for its rules."""

    def __init__(self, content: Mapping, warn: Callable[[str], object]):
        self.config = read_or_leave(content, "config")
        self.paths = RunPaths(self.config.run)
        for line in self.missing_data():
            warn(line)

    @cached_property
    def job_of(self) -> dict[str, jobs.Job]:
        """Job id -> job."""
        return {job.id: job for job in jobs.all_jobs(self.config)}

    @property
    def config_hash(self) -> str:
        """Hash of the resolved config."""
        return content_hash(self.config.model_dump(mode="json"))

    def write_config(self) -> None:
        """Write the resolved config that every job reads, before the first job starts.

        It is no input of any rule: Snakemake does not look at the parameters of jobs behind a changed `ancient`
        input, so a change of the config would rerun nothing the first time.
        """
        write_json(self.paths.config, self.config.model_dump(mode="json"))

    @property
    def task_names(self) -> list[str]:
        """Names of all tasks of the run."""
        return [task.name for task in self.config.tasks]

    def data_files(self, task: str) -> list[str]:
        """Files that say that a task's data are there: the generated data set's description, or nothing."""
        if self.config.data.phantom is None:
            return []
        return [str(self.config.data_root / self.config.dataset_cards[task]["folder"] / "dataset.json")]

    def source_state(self, task: str) -> str:
        """Hash of names, sizes and times of all files of a data set, so that a changed one is ingested anew.

        Empty for generated data, which have a rule of their own.
        """
        if self.config.data.phantom is not None:
            return ""
        folder = self.config.data_root / self.config.dataset_cards[task]["folder"]
        return _state_of(Path(root) / name for root, _, names in os.walk(folder) for name in names)

    def recipe_settings(self, task: str) -> str:
        """Name of a task's recipe and what the config changes of it; other recipes are no concern of the task."""
        name = self.config.task(task).preprocessing
        return json.dumps([name, self.config.preprocessing_recipes.get(name, {})], sort_keys=True)

    def phantom_files(self) -> list[str]:
        """All descriptions that the generator of the synthetic world writes."""
        return [name for task in self.task_names for name in self.data_files(task)]

    def missing_data(self) -> list[str]:
        """Return one line for each task whose folder is absent, and each list, with the step to get it."""
        if self.config.data.phantom is not None:
            return []
        cards = self.config.dataset_cards
        return [
            f"{task}: absent, no folder {self.config.data_root / cards[task]['folder']}; {cards[task]['obtain']}"
            for task in self.task_names
            if not (self.config.data_root / cards[task]["folder"]).is_dir()
        ] + [
            f"{path}: absent; docs/protocols.md says where from"
            for path in self.config.split_paths
            if not path.exists()
        ]

    def preprocessed_of(self, job_id: str) -> list[Path]:
        """Indices of the preprocessed cases that a job reads."""
        return [self.paths.preprocessed(task.name) for task in self.job_of[job_id].tasks(self.config)]

    def source_of(self, job_id: str) -> list[Path]:
        """Outcome of the job that this one starts from, if any."""
        source = self.job_of[job_id].source(self.config)
        return [self.paths.train(source.id) / "outcome.json"] if source else []

    def trained_of(self, job_id: str) -> list[Path]:
        """Outcome of the training that an evaluation needs, if any."""
        trained = jobs.is_trained(self.config, self.job_of[job_id])
        return [self.paths.train(job_id) / "outcome.json"] if trained else []

    def train_settings(self, job_id: str) -> str:
        """Hash of what changes a training's result, code apart."""
        return jobs.settings_hash(self.config, self.job_of[job_id], scoring=False)

    def score_settings(self, job_id: str) -> str:
        """Hash of what changes an evaluation's result, scoring code included."""
        settings = jobs.settings_hash(self.config, self.job_of[job_id], scoring=True)
        return f"{settings}-{code_fingerprint(SCORING_CODE)}{self._given_masks(job_id)}"

    def _given_masks(self, job_id: str) -> str:
        """Hash of names, sizes and times of the masks that a job is given, so that other masks are scored anew."""
        job = self.job_of[job_id]
        if not job.external or jobs.is_trained(self.config, job) or self.config.external(job.model).predict:
            return ""
        folders = jobs.mask_folders(self.config, job).values()
        files = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
        return "-" + _state_of(files)

    def train_attempt(self, job_id: str) -> int:
        """Number of the attempt that the training's outcome asks for."""
        return jobs.attempt(self.paths.train(job_id) / "outcome.json")

    def evaluate_attempt(self, job_id: str) -> int:
        """Number of the attempt that the evaluation's outcome asks for."""
        return jobs.attempt(self.paths.evaluate(job_id) / "outcome.json")

    def raise_if_failed(self) -> None:
        """Raise RunFailed naming the failed jobs, so that the command as a whole does not end as a success."""
        failed = jobs.failed_outcomes(self.config)
        if failed:
            raise RunFailed("failed and retried by the next run: " + ", ".join(record["job"] for record in failed))


def _state_of(paths: Iterable[Path]) -> str:
    found = [(str(path), path.stat()) for path in sorted(paths) if path.exists()]
    return content_hash([[name, stat.st_size, stat.st_mtime_ns] for name, stat in found])


def write_owner() -> None:
    """Record the process that holds the workflow's lock."""
    import psutil

    write_json(OWNER, {"pid": os.getpid(), "created": psutil.Process().create_time()})


def forget_owner() -> None:
    """Remove the record of the lock's owner."""
    OWNER.unlink(missing_ok=True)
