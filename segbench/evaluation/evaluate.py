"""Predict and score the test cases of one job; a killed job loses at most one case."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from segbench.core.case import Case, read_manifest
from segbench.core.errors import InputError, RunFailed
from segbench.core.files import write_json
from segbench.core.paths import RunPaths
from segbench.core.progress import Progress
from segbench.core.provenance import SCORING_CODE, code_fingerprint
from segbench.core.task import IGNORED, Task
from segbench.data.geometry import write_prediction
from segbench.data.readers import read_label
from segbench.data.store import PreprocessedCase, open_case
from segbench.evaluation import rows as score_rows
from segbench.evaluation.external_commands import Masks, external_facts, find_masks, read_mask
from segbench.evaluation.label_maps import without_ignored
from segbench.experiment.config import Config
from segbench.experiment.jobs import Job, is_trained, settings_hash, test_cases
from segbench.metrics import ScoreValue, score_pair

log = logging.getLogger(__name__)
Prediction = np.ndarray
"""labels_XYZ on the native grid."""
Predictor = Callable[[Case, Task], Prediction | None]
"""None where an external model has left no mask."""


def evaluate(config: Config, job: Job, *, device: str = "cpu") -> dict:
    """Score one job and write its scores.csv; return facts for its outcome.

    A case that fails is a row with status `failed` and its reason, and the outcome is failed, so that the next run
    tries again.
    """
    paths = RunPaths(config.run)
    folder = paths.evaluate(job.id)
    trained = None
    if is_trained(config, job):
        trained = json.loads((paths.train(job.id) / "outcome.json").read_text(encoding="utf-8"))
    if trained and trained["status"] != "ok":
        return _nothing_scored(config, job, "failed_upstream", f"training failed: {trained['reason']}")
    masks = None
    if job.external:
        try:
            masks = find_masks(config, job)
        except (RunFailed, InputError) as error:
            return _nothing_scored(config, job, "failed", " ".join(str(error).split()))
        made_by = masks.digest
    else:
        made_by = trained["weights_sha256"] if trained else code_fingerprint([f"models/baselines/{job.model}.py"])
    identity = "-".join([settings_hash(config, job, scoring=True), code_fingerprint(SCORING_CODE), made_by])
    worker = _Worker(config, job, identity, device, masks)
    written = worker.run()
    score_rows.write_rows(folder / "scores.csv", written)
    shutil.rmtree(paths.state("evaluate", job.id), ignore_errors=True)
    facts = {"predict_seconds": round(worker.predict_seconds, 3), "score_seconds": round(worker.score_seconds, 3)}
    if masks is not None:
        facts |= external_facts(config, job, masks)
    if worker.failures:
        return facts | {"status": "failed", "reason": "; ".join(worker.failures[:5])}
    return facts


def _nothing_scored(config: Config, job: Job, status: str, reason: str) -> dict:
    rows = _all_unscored(config, job, reason)
    score_rows.write_rows(RunPaths(config.run).evaluate(job.id) / "scores.csv", rows)
    return {"status": status, "reason": reason, "predict_seconds": 0.0, "score_seconds": 0.0}


def _all_unscored(config: Config, job: Job, reason: str) -> list[score_rows.Row]:
    paths = RunPaths(config.run)
    splits = json.loads(paths.splits.read_text(encoding="utf-8"))
    return [
        row
        for task in job.tasks(config)
        for case in _cases(paths, splits, job, task)
        for row in score_rows.unscored_rows(
            config, job, task=task, case=case.case_id, patient=case.patient_id, status="failed", reason=reason
        )
    ]


def _cases(paths: RunPaths, splits: dict, job: Job, task: Task) -> list[Case]:
    known = {case.case_id: case for case in read_manifest(paths.manifest(task.name))}
    return [known[name] for name in test_cases(splits, job.fold, task.name)]


class _Worker:
    """Walks the test cases of one job, with a cache per case."""

    def __init__(self, config: Config, job: Job, identity: str, device: str, masks: Masks | None):
        self.config, self.job, self.identity, self.device, self.masks = config, job, identity, device, masks
        self.paths = RunPaths(config.run)
        self.splits = json.loads(self.paths.splits.read_text(encoding="utf-8"))
        self.predict_seconds, self.score_seconds = masks.seconds if masks else 0.0, 0.0
        self.failures: list[str] = []
        self._predictor_of: Callable[[Task], Predictor] | None = None

    def run(self) -> list[score_rows.Row]:
        work = [(task, case) for task in self.job.tasks(self.config) for case in self._cases(task)]
        rows = []
        with Progress(total=len(work), title=f"evaluate {self.job.id}") as progress:
            predictor, current = None, None
            for task, case in work:
                cached = self._cached(task, case)
                if cached is None:
                    if current != task.name:
                        predictor, current = self._predictor(task), task.name
                    cached = self._score(task, case, predictor)
                rows += cached
                progress.advance(case.case_id)
        return rows

    def _cases(self, task: Task) -> list[Case]:
        return _cases(self.paths, self.splits, self.job, task)

    def _predictor(self, task: Task) -> Predictor:
        if self.masks is not None:
            return self._mask
        if self._predictor_of is None:
            make = _control_predictor if self.job.control else _network_predictor(self.config, self.job, self.device)
            self._predictor_of = partial(make, self.config, self.job) if self.job.control else make
        return partial(self._restored, self._predictor_of(task))

    def _mask(self, case: Case, task: Task) -> Prediction | None:
        path = self.masks.paths[task.name][case.case_id]
        mask = None if path is None else read_mask(path, case, task)
        return None if mask is None else mask.labels_XYZ.astype(np.uint8)

    def _restored(self, predict: Callable[[PreprocessedCase, Task], np.ndarray], case: Case, task: Task) -> Prediction:
        index = json.loads(self.paths.preprocessed(task.name).read_text(encoding="utf-8"))
        preprocessed = open_case(Path(index["cases"][case.case_id]))
        found, geometry = predict(preprocessed, task), preprocessed.geometry
        return geometry.probabilities_to_native(found) if found.ndim == 4 else geometry.labels_to_native(found)

    def _score(self, task: Task, case: Case, predictor: Predictor) -> list[score_rows.Row]:
        key = {"task": task, "case": case.case_id, "patient": case.patient_id}
        try:
            values = self._predict_and_score(task, case, predictor)
        except Exception as error:  # a failure is data: the row says so, the outcome is failed, the rest goes on
            log.exception("case %s of %s failed", case.case_id, task.name)
            reason = f"{type(error).__name__}: {error}"
            self.failures.append(f"{task.name}/{case.case_id}: {reason}")
            return score_rows.unscored_rows(self.config, self.job, **key, status="failed", reason=reason)
        if values is None:
            missing = {"status": "prediction_missing", "reason": "no mask"}
            return score_rows.unscored_rows(self.config, self.job, **key, **missing)
        rows = score_rows.case_rows(self.config, self.job, **key, values=values)
        write_json(self._cache_path(task, case), {"identity": self.identity, "rows": rows})
        return rows

    def _predict_and_score(self, task: Task, case: Case, predictor: Predictor) -> list[ScoreValue] | None:
        began = time.monotonic()
        labels_XYZ = predictor(case, task)
        if labels_XYZ is None:
            return None
        if self.config.inference.keep_predictions and self.job.model != "oracle":
            path = self.paths.prediction(self.job.id, task.name, case.case_id)
            write_prediction(path, labels_XYZ, like=case.image_paths[0])
        predicted = time.monotonic()
        self.predict_seconds += predicted - began
        reference_XYZ = read_label(case, self.config.dataset_cards[task.name])
        labels_XYZ = without_ignored(labels_XYZ, reference_XYZ, (IGNORED,))
        values = score_pair(
            reference_XYZ,
            labels_XYZ,
            case.spacing_mm_xyz,
            task.structures,
            metrics=self.config.metrics,
            spacing_is_nominal=task.spacing_is_nominal,
        )
        self.score_seconds += time.monotonic() - predicted
        return values

    def _cache_path(self, task: Task, case: Case) -> Path:
        return self.paths.state("evaluate", self.job.id) / task.name / f"{case.case_id}.json"

    def _cached(self, task: Task, case: Case) -> list[score_rows.Row] | None:
        path = self._cache_path(task, case)
        if not path.exists():
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        return record["rows"] if record["identity"] == self.identity else None


def _control_predictor(config: Config, job: Job, task: Task) -> Callable[[PreprocessedCase, Task], np.ndarray]:
    """Fit a control on the training cases of a task and return its predictor; torch is not imported."""
    from models.controls import load_control

    paths = RunPaths(config.run)
    splits = json.loads(paths.splits.read_text(encoding="utf-8"))
    index = json.loads(paths.preprocessed(task.name).read_text(encoding="utf-8"))
    training = [open_case(Path(index["cases"][name])) for name in splits["folds"][str(job.fold)][task.name]["train"]]
    control = load_control(job.model)
    fitted = control.fit(training, task)
    return lambda preprocessed, same_task: control.predict(fitted, preprocessed, same_task)


def _network_predictor(
    config: Config, job: Job, device: str
) -> Callable[[Task], Callable[[PreprocessedCase, Task], np.ndarray]]:
    """Return task -> predictor of probabilities on the preprocessed grid, with the job's final weights."""
    from segbench.evaluation.predict import probabilities, trained_network

    model = trained_network(config, job, device=device)

    def predict(preprocessed: PreprocessedCase, task: Task) -> np.ndarray:
        return probabilities(model, config, preprocessed.images[:], [task])[task.name]

    return lambda task: predict
