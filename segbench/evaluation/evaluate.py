"""Predict and score the test cases of one job; no case is done twice.

While a case is predicted, the next is read and the one before is written and scored: a killed job loses at most these.

Each case has two identities: that of its predicted label map and that of its scores. A kept label map of the right
identity is scored without predicting again, so that another metric costs no inference.
"""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from segbench.core.case import Case
from segbench.core.errors import InputError, RunFailed, is_machine_failure
from segbench.core.files import sha256_of, write_json
from segbench.core.paths import SCORES
from segbench.core.progress import Progress
from segbench.core.provenance import portable
from segbench.core.task import IGNORED, Task
from segbench.data.geometry import write_prediction
from segbench.data.readers import read_label
from segbench.evaluation import rows as score_rows
from segbench.evaluation.external_commands import external_facts, find_masks
from segbench.evaluation.label_maps import without_ignored
from segbench.evaluation.predictors import Predictor
from segbench.experiment import requests
from segbench.experiment.context import JobContext
from segbench.experiment.identity import Identity
from segbench.experiment.result_record import forget_result
from segbench.inference.overlap import overlapped
from segbench.metrics import score_pair
from segbench.metrics.score import diagonal_mm

log = logging.getLogger(__name__)


def evaluate(context: JobContext, *, device: str = "cpu") -> dict[str, Any]:
    """Score one job and write its scores.csv.

    A case that fails is a row with status `failed` and its reason, and the outcome is failed, so that the next run
    tries again; the cases that went well are kept.

    Args:
        context: the job.
        device: where a network predicts.

    Returns:
        Facts for the outcome. Seconds are those of the work that the scores rest on, kept label maps included;
        `predicted` and `scored` count the cases of this call.
    """
    facts: dict[str, Any] = {}
    if context.job.external:
        try:
            masks = find_masks(context)
        except (RunFailed, InputError) as error:
            reason = portable(" ".join(str(error).split()), context.config.data_root)
            return {"status": "failed", "reason": reason} | write_unscored(context, reason)
        facts = external_facts(context, masks)
        from segbench.evaluation.predictors.masks import MaskPredictor

        predictor: Predictor = MaskPredictor(masks)
    elif context.job.control:
        from segbench.evaluation.predictors.control import ControlPredictor

        predictor = ControlPredictor(context)
    else:
        from segbench.evaluation.predictors.network import NetworkPredictor

        predictor = NetworkPredictor(context, device=device)
        facts = {"device": device, "precision": predictor.precision}
    evaluation = _Evaluation(context, predictor)
    _write_rows(context, evaluation.run())
    facts |= {
        "predict_seconds": round(evaluation.predict_seconds, 3),
        "score_seconds": round(evaluation.score_seconds, 3),
        "predicted": evaluation.predicted,
        "scored": evaluation.scored,
    }
    if evaluation.failures:
        return facts | {"status": "failed", "reason": "; ".join(evaluation.failures[:5])}
    return facts


def _write_rows(context: JobContext, rows: list[score_rows.Row]) -> None:
    forget_result(context.evaluate_folder)
    score_rows.write_rows(context.evaluate_folder / SCORES, rows)


def write_unscored(context: JobContext, reason: str) -> dict[str, Any]:
    """Write a failed row for every expected score of a job, and return the facts of an evaluation that did nothing."""
    rows = [
        row
        for task in context.tasks
        for case in context.test_cases(task.name)
        for row in _unscored(context, task, case, status="failed", reason=reason)
    ]
    _write_rows(context, rows)
    return {"predict_seconds": 0.0, "score_seconds": 0.0, "predicted": 0, "scored": 0}


def _unscored(context: JobContext, task: Task, case: Case, *, status: str, reason: str) -> list[score_rows.Row]:
    """Return rows without values, which still state what a missing mask counts as: diagonal and reference volumes."""
    volumes: dict[str, float] = {}
    if not task.spacing_is_nominal:
        try:
            labels_XYZ = read_label(case, context.config.dataset_cards[task.name])
            voxel_mm3 = math.prod(case.spacing_mm_xyz)
            volumes = {
                structure.name: float(np.isin(labels_XYZ, structure.labels).sum()) * voxel_mm3
                for structure in task.structures
            }
        except InputError as error:  # the reference may be what failed
            log.warning("%s/%s: no volume of the reference: %s", task.name, case.case_id, error)
    rows = score_rows.unscored_rows(
        context,
        task=task,
        case=case.case_id,
        patient=case.patient_id,
        status=status,
        reason=reason,
        diagonal=None if task.spacing_is_nominal else diagonal_mm(case.shape_xyz, case.spacing_mm_xyz),
        reference_volumes_mm3=volumes,
        structures=score_rows.annotated_structures(task, case),
    )
    return rows + score_rows.not_annotated_rows(context, task=task, case=case)


def scored_rows(context: JobContext, task: Task, case: Case, labels_XYZ: np.ndarray | None) -> list[score_rows.Row]:
    """Return the rows of a label map, scored against the reference of its case: every structure and metric.

    Args:
        context: the job.
        task: task of the case.
        case: test case.
        labels_XYZ: class values of the task's card on the native grid of the case; None where there is no mask.
    """
    if labels_XYZ is None:
        return _unscored(context, task, case, status="prediction_missing", reason="no mask")
    reference_XYZ = read_label(case, context.config.dataset_cards[task.name])
    values = score_pair(
        reference_XYZ,
        without_ignored(labels_XYZ, reference_XYZ, (IGNORED,)),
        case.spacing_mm_xyz,
        score_rows.annotated_structures(task, case),
        metrics=context.config.metrics,
        spacing_is_nominal=task.spacing_is_nominal,
    )
    rows = score_rows.case_rows(context, task=task, case=case.case_id, patient=case.patient_id, values=values)
    return rows + score_rows.not_annotated_rows(context, task=task, case=case)


class _Work(NamedTuple):
    """One test case of one task, and the identities of its label map and of its scores."""

    task: Task
    case: Case
    prediction: Identity
    scores: Identity
    cache: Path


class _Read(NamedTuple):
    """What was read of a case: its rows where they are kept, else its kept label map, else what predicts it."""

    rows: dict[str, Any] | None = None
    labels_XYZ: np.ndarray | None = None
    inputs: Any = None
    seconds: float = 0.0
    error: Exception | None = None


class _Predicted(NamedTuple):
    """A label map, or None where there is none, and what it cost; `is_new`: it was predicted by this call."""

    rows: dict[str, Any] | None = None
    labels_XYZ: np.ndarray | None = None
    seconds: float = 0.0
    is_new: bool = False
    error: Exception | None = None


class _Scored(NamedTuple):
    """Rows of a case and what they cost; `is_new`: they were scored by this call."""

    rows: list[score_rows.Row]
    predict_seconds: float = 0.0
    score_seconds: float = 0.0
    is_predicted: bool = False
    is_new: bool = False
    failure: str = ""


class _Evaluation:
    """Goes through the test cases of one job, with a cache per case.

    While a case is predicted, the next is read and the one before is written and scored.
    """

    def __init__(self, context: JobContext, predictor: Predictor):
        self.context, self.predictor = context, predictor
        self.predict_seconds, self.score_seconds = predictor.seconds, 0.0
        self.predicted = self.scored = 0
        self.failures: list[str] = []

    def run(self) -> list[score_rows.Row]:
        work = [(task, case) for task in self.context.tasks for case in self.context.test_cases(task.name)]
        rows: list[score_rows.Row] = []
        with Progress(total=len(work), title=f"evaluate {self.context.job.id}") as progress:
            found = overlapped(map(self._work, work), read=self._read, work=self._predict, finish=self._score)
            for (_, case), scored in zip(work, found, strict=True):
                rows += scored.rows
                self.predict_seconds += scored.predict_seconds
                self.score_seconds += scored.score_seconds
                self.predicted += scored.is_predicted
                self.scored += scored.is_new
                self.failures += [scored.failure] if scored.failure else []
                progress.advance(case.case_id)
        return rows

    def _work(self, item: tuple[Task, Case]) -> _Work:
        task, case = item
        prediction = self.context.prediction_identity(task, case, self.predictor.made_by(task, case))
        scores = self.context.score_identity(task, case, prediction.digest)
        cache = self.context.paths.state("evaluate", self.context.job.id) / task.name / f"{case.case_id}.json"
        return _Work(task, case, prediction, scores, cache)

    def _read(self, work: _Work) -> _Read:
        cached = requests.read(work.cache)
        if cached.get("identity") == work.scores.digest:
            return _Read(rows=cached)
        began = time.monotonic()
        try:
            kept = self._kept(work)
            if kept is not None:
                return _Read(labels_XYZ=kept[0], seconds=kept[1])
            inputs = self.predictor.read(work.task, work.case)
        except Exception as error:
            return _Read(error=_failed_case(error, work))
        return _Read(inputs=inputs, seconds=time.monotonic() - began)

    def _predict(self, work: _Work, read: _Read) -> _Predicted:
        if read.rows is not None or read.labels_XYZ is not None or read.error is not None:
            return _Predicted(read.rows, read.labels_XYZ, read.seconds, error=read.error)
        began = time.monotonic()
        try:
            labels_XYZ = self.predictor.predict(work.task, work.case, read.inputs)
        except Exception as error:
            return _Predicted(error=_failed_case(error, work))
        return _Predicted(None, labels_XYZ, read.seconds + time.monotonic() - began, is_new=labels_XYZ is not None)

    def _score(self, work: _Work, predicted: _Predicted) -> _Scored:
        if predicted.rows is not None:
            return _Scored(**{key: predicted.rows[key] for key in ("rows", "predict_seconds", "score_seconds")})
        unscored = partial(_unscored, self.context, work.task, work.case)
        error = predicted.error
        if error is None and predicted.labels_XYZ is None:
            return _Scored(scored_rows(self.context, work.task, work.case, None))
        if error is None:
            try:
                return self._write_and_score(work, predicted)
            except Exception as found:
                error = _failed_case(found, work)
        text = " ".join(str(error).split())
        reason = portable(f"{type(error).__name__}: {text}", self.context.config.data_root)
        failure = f"{work.task.name}/{work.case.case_id}: {reason}"
        return _Scored(unscored(status="failed", reason=reason), is_predicted=predicted.is_new, failure=failure)

    def _write_and_score(self, work: _Work, predicted: _Predicted) -> _Scored:
        labels_XYZ = predicted.labels_XYZ
        assert labels_XYZ is not None
        task, case = work.task, work.case
        if predicted.is_new:
            self._keep(work, labels_XYZ, predicted.seconds)
        began = time.monotonic()
        rows = scored_rows(self.context, task, case, labels_XYZ)
        score_seconds = time.monotonic() - began
        seconds = {"predict_seconds": predicted.seconds, "score_seconds": score_seconds}
        write_json(work.cache, seconds | {"identity": work.scores.digest, "rows": rows})
        return _Scored(rows, predicted.seconds, score_seconds, is_predicted=predicted.is_new, is_new=True)

    @property
    def _keeps(self) -> bool:
        """Whether label maps are kept: not those of the oracle, which are the reference, nor copies of given masks."""
        job = self.context.job
        return self.context.config.inference.keep_predictions and not job.external and job.model != "oracle"

    def _places(self, task: Task, case: Case) -> tuple[Path, Path]:
        paths, key = self.context.paths, (self.context.job.id, task.name, case.case_id)
        return paths.prediction(*key), paths.prediction_identity(*key)

    def _keep(self, work: _Work, labels_XYZ: np.ndarray, seconds: float) -> None:
        if not self._keeps:
            return
        path, beside = self._places(work.task, work.case)
        beside.unlink(missing_ok=True)  # a label map without its identity is never used
        write_prediction(path, labels_XYZ, like=work.case.image_paths[0])
        content = {"identity": work.prediction.digest, "sha256": sha256_of(path), "seconds": seconds}
        write_json(beside, content)

    def _kept(self, work: _Work) -> tuple[np.ndarray, float] | None:
        """Return the kept label map of this very identity and the seconds that it cost, or None."""
        path, beside = self._places(work.task, work.case)
        if not self._keeps or not path.is_file() or not beside.is_file():
            return None
        content = requests.read(beside)
        if content.get("identity") != work.prediction.digest or content.get("sha256") != sha256_of(path):
            return None
        image: Any = nib.load(path)
        return np.asarray(image.dataobj), float(content["seconds"])


def _failed_case(error: Exception, work: _Work) -> Exception:
    """Log a failure that is a result of its case and return it; a failure of the machine is raised."""
    if is_machine_failure(error):
        raise error
    log.error("case %s of %s failed", work.case.case_id, work.task.name, exc_info=error)
    return error
