"""Predict and score the test cases of one job; a killed job loses at most one case, and no case is done twice.

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
from segbench.metrics import ScoreValue, score_pair
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
            reason = " ".join(str(error).split())
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
    score_rows.write_rows(context.evaluate_folder / "scores.csv", rows)


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
    return score_rows.unscored_rows(
        context,
        task=task,
        case=case.case_id,
        patient=case.patient_id,
        status=status,
        reason=reason,
        diagonal=None if task.spacing_is_nominal else diagonal_mm(case.shape_xyz, case.spacing_mm_xyz),
        reference_volumes_mm3=volumes,
    )


class _Scored(NamedTuple):
    """Scores of one case, and what they cost."""

    values: list[ScoreValue]
    predict_seconds: float
    score_seconds: float


class _Evaluation:
    """Goes through the test cases of one job, with a cache per case."""

    def __init__(self, context: JobContext, predictor: Predictor):
        self.context, self.predictor = context, predictor
        self.predict_seconds, self.score_seconds = predictor.seconds, 0.0
        self.predicted = self.scored = 0
        self.failures: list[str] = []

    def run(self) -> list[score_rows.Row]:
        work = [(task, case) for task in self.context.tasks for case in self.context.test_cases(task.name)]
        rows: list[score_rows.Row] = []
        with Progress(total=len(work), title=f"evaluate {self.context.job.id}") as progress:
            for task, case in work:
                rows += self._rows(task, case)
                progress.advance(case.case_id)
        return rows

    def _rows(self, task: Task, case: Case) -> list[score_rows.Row]:
        unscored = partial(_unscored, self.context, task, case)
        made_by = self.predictor.made_by(task, case)
        prediction = self.context.prediction_identity(task, case, made_by)
        scores = self.context.score_identity(task, case, prediction.digest)
        cache = self.context.paths.state("evaluate", self.context.job.id) / task.name / f"{case.case_id}.json"
        cached = requests.read(cache)
        if cached.get("identity") == scores.digest:
            self.predict_seconds += cached["predict_seconds"]
            self.score_seconds += cached["score_seconds"]
            return cached["rows"]
        try:
            found = self._predict_and_score(task, case, prediction)
        except Exception as error:  # a failure is data: the row says so, the outcome is failed, the rest goes on
            if is_machine_failure(error):
                raise
            log.exception("case %s of %s failed", case.case_id, task.name)
            text = " ".join(str(error).split())
            reason = portable(f"{type(error).__name__}: {text}", self.context.config.data_root)
            self.failures.append(f"{task.name}/{case.case_id}: {reason}")
            return unscored(status="failed", reason=reason)
        if found is None:
            return unscored(status="prediction_missing", reason="no mask")
        self.scored += 1
        self.predict_seconds += found.predict_seconds
        self.score_seconds += found.score_seconds
        rows = score_rows.case_rows(
            self.context, task=task, case=case.case_id, patient=case.patient_id, values=found.values
        )
        seconds = {"predict_seconds": found.predict_seconds, "score_seconds": found.score_seconds}
        write_json(cache, seconds | {"identity": scores.digest, "rows": rows})
        return rows

    def _predict_and_score(self, task: Task, case: Case, identity: Identity) -> _Scored | None:
        kept = self._kept(task, case, identity)
        if kept is None:
            began = time.monotonic()
            labels_XYZ = self.predictor.predict(task, case)
            if labels_XYZ is None:
                return None
            self.predicted += 1
            predict_seconds = time.monotonic() - began
            self._keep(task, case, identity, labels_XYZ, predict_seconds)
        else:
            labels_XYZ, predict_seconds = kept
        began = time.monotonic()
        reference_XYZ = read_label(case, self.context.config.dataset_cards[task.name])
        labels_XYZ = without_ignored(labels_XYZ, reference_XYZ, (IGNORED,))
        values = score_pair(
            reference_XYZ,
            labels_XYZ,
            case.spacing_mm_xyz,
            task.structures,
            metrics=self.context.config.metrics,
            spacing_is_nominal=task.spacing_is_nominal,
        )
        return _Scored(values, predict_seconds, time.monotonic() - began)

    @property
    def _keeps(self) -> bool:
        """Whether label maps are kept: not those of the oracle, which are the reference, nor copies of given masks."""
        job = self.context.job
        return self.context.config.inference.keep_predictions and not job.external and job.model != "oracle"

    def _places(self, task: Task, case: Case) -> tuple[Path, Path]:
        paths, key = self.context.paths, (self.context.job.id, task.name, case.case_id)
        return paths.prediction(*key), paths.prediction_identity(*key)

    def _keep(self, task: Task, case: Case, identity: Identity, labels_XYZ: np.ndarray, seconds: float) -> None:
        if not self._keeps:
            return
        path, beside = self._places(task, case)
        beside.unlink(missing_ok=True)  # a label map without its identity is never used
        write_prediction(path, labels_XYZ, like=case.image_paths[0])
        write_json(beside, {"identity": identity.digest, "sha256": sha256_of(path), "seconds": seconds})

    def _kept(self, task: Task, case: Case, identity: Identity) -> tuple[np.ndarray, float] | None:
        """Return the kept label map of this very identity and the seconds that it cost, or None."""
        path, beside = self._places(task, case)
        if not self._keeps or not path.is_file() or not beside.is_file():
            return None
        content = requests.read(beside)
        if content.get("identity") != identity.digest or content.get("sha256") != sha256_of(path):
            return None
        image: Any = nib.load(path)
        return np.asarray(image.dataobj), float(content["seconds"])
