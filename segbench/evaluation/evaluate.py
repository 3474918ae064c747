"""Predict and score the test cases of one job; a killed job loses at most one case, and no case is done twice.

Each case has two identities: that of its predicted label map and that of its scores. A kept label map of the right
identity is scored without predicting again, so that another metric costs no inference.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from segbench.core.case import Case
from segbench.core.errors import InputError, RunFailed, is_machine_failure
from segbench.core.files import sha256_of, write_json
from segbench.core.progress import Progress
from segbench.core.provenance import portable
from segbench.core.task import Task
from segbench.data.geometry import write_prediction
from segbench.data.readers import read_label
from segbench.evaluation import rows as score_rows
from segbench.evaluation.external_commands import external_facts, find_masks
from segbench.evaluation.predictors import Predictor
from segbench.experiment.context import JobContext
from segbench.experiment.identity import Identity
from segbench.metrics import ScoreValue, score_pair

log = logging.getLogger(__name__)


def evaluate(context: JobContext, *, device: str = "cpu") -> dict:
    """Score one job, write its scores.csv and return facts for its outcome.

    A case that fails is a row with status `failed` and its reason, and the outcome is failed, so that the next run
    tries again; the cases that went well are kept.
    """
    facts: dict = {}
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
    score_rows.write_rows(context.evaluate_folder / "scores.csv", evaluation.run())
    facts |= {
        "predict_seconds": round(evaluation.predict_seconds, 3),
        "score_seconds": round(evaluation.score_seconds, 3),
        "predicted": evaluation.predicted,
        "scored": evaluation.scored,
    }
    if evaluation.failures:
        return facts | {"status": "failed", "reason": "; ".join(evaluation.failures[:5])}
    return facts


def write_unscored(context: JobContext, reason: str) -> dict:
    """Write a failed row for every expected score of a job, and return the facts of an evaluation that did nothing."""
    rows = [
        row
        for task in context.tasks
        for case in context.test_cases(task.name)
        for row in score_rows.unscored_rows(
            context, task=task, case=case.case_id, patient=case.patient_id, status="failed", reason=reason
        )
    ]
    score_rows.write_rows(context.evaluate_folder / "scores.csv", rows)
    return {"predict_seconds": 0.0, "score_seconds": 0.0}


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
        key = {"task": task, "case": case.case_id, "patient": case.patient_id}
        made_by = self.predictor.made_by(task, case)
        prediction = self.context.prediction_identity(task, case, made_by)
        scores = self.context.score_identity(task, case, prediction.digest)
        cache = self.context.paths.state("evaluate", self.context.job.id) / task.name / f"{case.case_id}.json"
        cached = _cached_rows(cache, scores)
        if cached is not None:
            return cached
        try:
            values = self._predict_and_score(task, case, prediction)
        except Exception as error:  # a failure is data: the row says so, the outcome is failed, the rest goes on
            if is_machine_failure(error):
                raise
            log.exception("case %s of %s failed", case.case_id, task.name)
            reason = portable(f"{type(error).__name__}: {error}", self.context.config.data_root)
            self.failures.append(f"{task.name}/{case.case_id}: {reason}")
            return score_rows.unscored_rows(self.context, **key, status="failed", reason=reason)
        if values is None:
            return score_rows.unscored_rows(self.context, **key, status="prediction_missing", reason="no mask")
        self.scored += 1
        rows = score_rows.case_rows(self.context, **key, values=values)
        write_json(cache, {"identity": scores.digest, "rows": rows})
        return rows

    def _predict_and_score(self, task: Task, case: Case, identity: Identity) -> list[ScoreValue] | None:
        began = time.monotonic()
        labels_XYZ = self._kept(task, case, identity)
        if labels_XYZ is None:
            labels_XYZ = self.predictor.predict(task, case)
            if labels_XYZ is None:
                return None
            self.predicted += 1
            self._keep(task, case, identity, labels_XYZ)
        predicted = time.monotonic()
        self.predict_seconds += predicted - began
        reference_XYZ = read_label(case, self.context.config.dataset_cards[task.name])
        values = score_pair(
            reference_XYZ,
            labels_XYZ,
            case.spacing_mm_xyz,
            task.structures,
            metrics=self.context.config.metrics,
            spacing_is_nominal=task.spacing_is_nominal,
        )
        self.score_seconds += time.monotonic() - predicted
        return values

    @property
    def _keeps(self) -> bool:
        """Whether label maps are kept: not those of the oracle, which are the reference, nor copies of given masks."""
        job = self.context.job
        return self.context.config.inference.keep_predictions and job.model != "oracle"

    def _places(self, task: Task, case: Case) -> tuple[Path, Path]:
        paths, key = self.context.paths, (self.context.job.id, task.name, case.case_id)
        return paths.prediction(*key), paths.prediction_identity(*key)

    def _keep(self, task: Task, case: Case, identity: Identity, labels_XYZ: np.ndarray) -> None:
        if not self._keeps:
            return
        path, beside = self._places(task, case)
        beside.unlink(missing_ok=True)  # a label map without its identity is never used
        write_prediction(path, labels_XYZ, like=case.image_paths[0])
        write_json(beside, {"identity": identity.digest, "sha256": sha256_of(path)})

    def _kept(self, task: Task, case: Case, identity: Identity) -> np.ndarray | None:
        """Return the kept label map of this very identity, or None."""
        path, beside = self._places(task, case)
        if not self._keeps or not path.is_file() or not beside.is_file():
            return None
        content = json.loads(beside.read_text(encoding="utf-8"))
        if content.get("identity") != identity.digest or content.get("sha256") != sha256_of(path):
            return None
        return np.asarray(nib.load(path).dataobj)


def _cached_rows(path: Path, identity: Identity) -> list[score_rows.Row] | None:
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    return record["rows"] if record.get("identity") == identity.digest else None
