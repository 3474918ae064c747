"""All that one job needs to know, derived once per process from the config and handed down.

Everything is read when it is asked for, and only JSON and tables: no numerical library is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from segbench.core.cards import label_facts
from segbench.core.case import Case, read_manifest
from segbench.core.errors import input_error, suggestion
from segbench.core.files import sha256_of
from segbench.core.paths import RECORD, WEIGHTS, RunPaths
from segbench.core.seeds import seed_for
from segbench.core.task import Task, TaskSet
from segbench.experiment.config import Config, Network, Training, load_config
from segbench.experiment.held_out import held_out_cases, tuning_cases
from segbench.experiment.identity import (
    Identity,
    part,
    prediction_settings_identity,
    scoring_parts,
    training_settings_identity,
)
from segbench.experiment.jobs import Job, all_jobs, is_trained
from segbench.experiment.preprocessed_index import PreprocessedIndex, read_index
from segbench.experiment.result_record import ResultRecord, read_result
from segbench.experiment.splits import Sides, Splits, no_such_case, read_splits

RETRAIN = "train the job again (the workflow does), or name the config that the weights were trained with"


@dataclass(frozen=True)
class JobContext:
    """One job of a run: its config, tasks, effective settings, cases, card, paths and identity."""

    config: Config
    job: Job

    @classmethod
    def of(cls, config_path: Path, job_id: str) -> JobContext:
        """Return the context of a job; raises `InputError` for a config or a job that is not known."""
        config = load_config(config_path)
        jobs = {job.id: job for job in all_jobs(config)}
        if job_id not in jobs:
            raise input_error("--job", found=job_id, expected="a job of this run", fix=suggestion(job_id, jobs))
        return cls(config, jobs[job_id])

    def with_job(self, job: Job) -> JobContext:
        """Return the context of another job of the same run."""
        return JobContext(self.config, job)

    @cached_property
    def paths(self) -> RunPaths:
        """Where the files of the run are."""
        return RunPaths(self.config.run)

    @cached_property
    def tasks(self) -> TaskSet:
        """Tasks that the job trains on and is scored on."""
        return self.job.tasks(self.config)

    @cached_property
    def training(self) -> Training:
        """Effective training settings of the job: those of its experiment with its own recipe."""
        return self.config.training_of(self.job.experiment, self.job.entry(self.config), self.job.initialisation)

    @cached_property
    def network(self) -> Network:
        """Size of the job's network."""
        return self.config.network_of(self.job.experiment, self.job.entry(self.config), self.job.scope)

    @property
    def options(self) -> dict[str, Any]:
        """Options that the network is built with: those of its entry, and the drop path of its recipe."""
        options, drop_path = self.job.entry(self.config).options, self.training.drop_path
        return options if drop_path is None else options | {"drop_path": drop_path}

    @cached_property
    def card(self) -> dict[str, Any]:
        """Card of the model or self-supervised objective."""
        return self.config.card(self.job.model)

    @cached_property
    def splits(self) -> Splits:
        """The splits of the run."""
        return read_splits(self.paths.splits)

    @cached_property
    def source(self) -> JobContext | None:
        """Context of the job of this run whose weights start this one, if any."""
        source = self.job.source(self.config)
        return None if source is None else self.with_job(source)

    @cached_property
    def preprocessed(self) -> dict[str, PreprocessedIndex]:
        """Task -> its preprocessed cases in the job's fold."""
        places = {
            task.name: self.paths.preprocessed(task.name, self.config.own_preprocessing(task)) for task in self.tasks
        }
        return {task: read_index(path).of(self.job.fold) for task, path in places.items()}

    @cached_property
    def _manifests(self) -> dict[str, dict[str, Case]]:
        return {
            task.name: {case.case_id: case for case in read_manifest(self.paths.manifest(task.name))}
            for task in self.tasks
        }

    def sides(self, task: str) -> Sides:
        """Return the case ids of both sides of a task in the job's fold."""
        return self.splits.of(self.job.fold, task)

    @cached_property
    def _held_out(self) -> dict[str, tuple[str, ...]]:
        return held_out_cases(self.config, self.splits, self.job.experiment, self.job.fold)

    @cached_property
    def _tuning_cases(self) -> dict[str, tuple[str, ...]]:
        return tuning_cases(self.config, self.splits, self.job.experiment, self.job.fold)

    def validation_cases(self, task: str) -> tuple[str, ...]:
        """Return the training cases of a task that no method of the experiment learns from; () without validation."""
        return self._held_out[task]

    def training_cases(self, task: str) -> tuple[str, ...]:
        """Return the cases of a task that every method of the experiment learns from, in order.

        They are the training side of the split without `validation_cases`: what networks, self-supervised objectives,
        controls and external models get, and what their identities hold. Preprocessing and the leak audit see the whole
        training side: the store is shared by all runs of a split, and statistics of intensities choose no model.
        """
        held_out = set(self.validation_cases(task))
        return tuple(case for case in self.sides(task).train if case not in held_out)

    def seen_cases(self, task: str) -> tuple[str, ...]:
        """Return as many of the `training_cases` as there are `validation_cases`, fewer where there are fewer.

        They are the first ones by a hash, the same for every method; what a network has learnt is shown beside what it
        has not.
        """
        cases = self.training_cases(task)
        ranked = sorted(cases, key=lambda case: (seed_for("seen", self.job.fold, task, case), case))
        return tuple(ranked[: len(self.validation_cases(task))])

    def tuning_cases(self, task: str) -> tuple[str, ...]:
        """Return those of the `training_cases` that score the trials of a tuned training; in the end it sees all."""
        return self._tuning_cases[task]

    def case(self, task: str, case: str) -> Case:
        """Return a row of a task's manifest; raises `InputError` when the split names a case that is not in it."""
        try:
            return self._manifests[task][case]
        except KeyError:
            raise no_such_case(self.paths.manifest(task), case) from None

    def test_cases(self, task: str) -> list[Case]:
        """Return the test cases of a task in the job's fold."""
        return [self.case(task, name) for name in self.sides(task).test]

    def folder(self, task: str, case: str) -> Path:
        """Return the folder of a preprocessed case in the store."""
        return self.preprocessed[task].folder(case)

    @property
    def train_state(self) -> Path:
        """Folder of the resumable state of the job's training."""
        return self.paths.state("train", self.job.id)

    @property
    def charged_seconds(self) -> float:
        """Seconds of training before this one that count for its time limit: those of the trials of a tuned one."""
        return 0.0

    @property
    def train_folder(self) -> Path:
        """Folder of the job's training: outcome.json, record.json, weights.pt, log.csv."""
        return self.paths.train(self.job.id)

    @property
    def evaluate_folder(self) -> Path:
        """Folder of the job's evaluation: outcome.json, record.json, scores.csv."""
        return self.paths.evaluate(self.job.id)

    @cached_property
    def identity(self) -> Identity:
        """Identity of the job's training: config, code, training cases in order, and the weights it starts from."""
        parts = dict(training_settings_identity(self.config, self.job).parts)
        if self.job.external:
            cases = {task.name: self.training_cases(task.name) for task in self.tasks}
            return Identity(parts | {"training cases": part(self._raw_cases(cases))})
        parts["training cases"] = part(self._addresses(self.training_cases))
        if self.training.validation_fraction:
            parts["validation cases"] = part(self._addresses(self.validation_cases))
        if self.training.tuning is not None:
            parts["tuning cases"] = part(self._addresses(self.tuning_cases))
        weights = self._weights_part()
        return Identity(parts | ({"weights it starts from": weights} if weights else {}))

    def _raw_cases(self, cases: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Return task -> how its labels are read, and files, patient and spacing of each case."""
        found = {name: [self.case(name, case) for case in of_task] for name, of_task in cases.items()}
        return {
            name: [
                label_facts(self.config.dataset_cards[name]),
                [
                    [c.case_id, c.patient_id, c.image_sha256, c.label_sha256, c.spacing_mm_xyz, *_annotated(c)]
                    for c in of_task
                ],
            ]
            for name, of_task in found.items()
        }

    def test_case_part(self) -> str:
        """Return the digest of the test cases, in order: files, patients, spacing, how labels are read."""
        return part(self._raw_cases({task.name: self.sides(task.name).test for task in self.tasks}))

    def _addresses(self, cases: Callable[[str], Sequence[str]]) -> dict[str, list[list[str]]]:
        return {task.name: [self._address(task, name) for name in cases(task.name)] for task in self.tasks}

    def _address(self, task: Task, case: str) -> list[str]:
        return [case, self.preprocessed[task.name].address(case)]

    def _weights_part(self) -> str | None:
        """Return the digest of the file, or the identity of the job, whose weights this one starts from."""
        if self.job.experiment != "downstream" or self.job.control:
            return None
        file = self.job.weights(self.config).file
        if file is not None:
            path = Path(file)
            return sha256_of(path) if path.is_file() else "absent"
        if self.source is None:
            return None
        found = read_result(self.source.train_folder)
        return found.identity.digest if found else "absent"

    def training_record(self) -> ResultRecord:
        """Return the record of the job's training; raises `InputError` when there is none."""
        record = read_result(self.train_folder)
        if record is None:
            expected = "a finished training job"
            raise input_error(self.train_folder, found=f"no {RECORD}", expected=expected, fix=RETRAIN)
        return record

    def trained_weights(self) -> Path:
        """Return the path of the job's weights, or where they would be for an external model.

        Raises:
            InputError: there are none, they were made from other inputs than the config asks for (which are named), or
                the file is not the one that the training wrote.
        """
        record = self.training_record()
        different = record.identity.differences(self.identity, code_counts=not self.config.allow_mixed_training_code)
        if different:
            raise input_error(
                self.train_folder,
                found=f"weights of another identity; what differs: {', '.join(different)}",
                expected=f"identity {self.identity.digest}",
                fix=RETRAIN,
            )
        weights = self.train_folder / WEIGHTS
        return weights if self.job.external else record.check_file(self.train_folder, weights.name)

    def prediction_identity(self, task: Task, case: Case, made_by: str) -> Identity:
        """Return the identity of a predicted label map.

        Args:
            task: task of the case.
            case: test case.
            made_by: SHA-256 of the weights or of the given mask; empty for a control.

        Returns:
            The identity; its digest stands beside the kept label map.
        """
        tasks = [task] if self.job.control or self.job.external else self.tasks
        parts = dict(prediction_settings_identity(self.config, self.job, tasks).parts) | {"made by": made_by}
        if self.job.external:
            return Identity(parts | {"case": part([case.image_sha256, case.label_sha256])})
        parts["case"] = part(self._address(task, case.case_id))
        if self.job.control:
            parts["training cases"] = part([self._address(task, name) for name in self.training_cases(task.name)])
        return Identity(parts)

    def score_identity(self, task: Task, case: Case, prediction: str) -> Identity:
        """Return the identity of the scores of a label map; `prediction` is the digest of the map's identity."""
        parts = scoring_parts(self.config, [task])
        facts = [case.image_sha256, case.label_sha256, case.spacing_mm_xyz, case.patient_id, self.job.id]
        facts += _annotated(case)
        labels = label_facts(self.config.dataset_cards[task.name])
        return Identity(parts | {"prediction": prediction, "reference": part([facts, labels])})

    @property
    def is_trained(self) -> bool:
        """Whether a training comes before the evaluation."""
        return is_trained(self.config, self.job)


def _annotated(case: Case) -> list[tuple[int, ...]]:
    """Return what an identity holds of the classes that were looked for: nothing where it is all of them."""
    return [] if case.annotated is None else [case.annotated]
