"""Score rows: built for one case, written, read back, and checked against what the config expects."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from segbench.core.case import Case
from segbench.core.errors import RunFailed
from segbench.core.files import write_text
from segbench.core.metric_facts import METRICS
from segbench.core.task import Structure, Task
from segbench.core.vocabulary import KEY_COLUMNS, NOT_ANNOTATED, SCORE_COLUMNS
from segbench.experiment.config import Config
from segbench.experiment.context import JobContext
from segbench.experiment.jobs import expected_keys, skipped_cells
from segbench.experiment.splits import Splits
from segbench.metrics import ScoreValue

Row = dict[str, str]


def case_rows(context: JobContext, *, task: Task, case: str, patient: str, values: Iterable[ScoreValue]) -> list[Row]:
    """Return the rows of one scored case, one per structure and metric."""
    key = _key(context, task, case, patient)
    return [
        key
        | {
            "structure": value.structure,
            "metric": value.metric,
            "value": "" if value.value is None else f"{value.value:.9g}",
            "unit_of_value": value.unit_of_value,
            "status": value.status,
            "reason": value.reason,
            "reference_volume_mm3": _number(value.reference_volume_mm3),
            "prediction_volume_mm3": _number(value.prediction_volume_mm3),
            "diagonal_mm": _number(value.diagonal_mm),
        }
        for value in values
    ]


def unscored_rows(
    context: JobContext,
    *,
    task: Task,
    case: str,
    patient: str,
    status: str,
    reason: str,
    diagonal: float | None = None,
    reference_volumes_mm3: Mapping[str, float] = MappingProxyType({}),
    structures: Sequence[Structure] | None = None,
) -> list[Row]:
    """Return the rows of a case that has no scores, with the status and reason in every cell.

    Args:
        context: the job.
        task: whose structures are missing.
        case: its name.
        patient: whose case it is.
        status: why there is no value.
        reason: the same in words.
        diagonal: diagonal of the image in mm, which a missing distance counts as; None where the spacing is nominal.
        reference_volumes_mm3: structure -> volume of the reference, as far as it is known.
        structures: those that get rows; None for all of the task.
    """
    return [
        _key(context, task, case, patient)
        | {"value": "", "prediction_volume_mm3": "", "diagonal_mm": _number(diagonal)}
        | {
            "reference_volume_mm3": _number(reference_volumes_mm3.get(structure.name)),
            "structure": structure.name,
            "metric": metric,
            "unit_of_value": METRICS[metric].unit,
            "status": status,
            "reason": " ".join(reason.split()),
        }
        for structure in (task.structures if structures is None else structures)
        for metric in context.config.metrics
    ]


def annotated_structures(task: Task, case: Case) -> list[Structure]:
    """Return the structures all of whose classes were looked for in a case."""
    return [structure for structure in task.structures if case.is_annotated(structure.labels)]


def not_annotated_rows(context: JobContext, *, task: Task, case: Case) -> list[Row]:
    """Return the rows of the structures whose classes nobody looked for in a case: they are not defined there."""
    rows = []
    for structure in task.structures:
        if not case.is_annotated(structure.labels):
            names = [task.classes[label - 1] for label in structure.labels if not case.is_annotated([label])]
            rows += unscored_rows(
                context,
                task=task,
                case=case.case_id,
                patient=case.patient_id,
                status="not_defined",
                reason=f"{' and '.join(names)} {NOT_ANNOTATED}",
                structures=[structure],
            )
    return rows


def _key(context: JobContext, task: Task, case: str, patient: str) -> Row:
    job = context.job
    return {
        "experiment": job.experiment,
        "model": job.model,
        "initialisation": job.initialisation,
        "recipe": job.recipe,
        "scope": job.scope,
        "fold": str(job.fold),
        "seed": str(job.seed),
        "protocol": context.config.data.protocol_of(task.name),
        "dataset": task.name,
        "task": task.name,
        "case": case,
        "patient": patient,
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def skipped_rows(config: Config, splits: Splits, patients: dict[str, dict[str, str]]) -> list[Row]:
    """Return a row for every expected cell that a model cannot fill, with the reason of its card."""
    return [
        row
        for job, task, reason in skipped_cells(config)
        for case in splits.of(job.fold, task.name).test
        for row in unscored_rows(
            JobContext(config, job),
            task=task,
            case=case,
            patient=patients[task.name][case],
            status="skipped",
            reason=reason,
        )
    ]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a score table atomically, sorted by its key so that equal rows give equal bytes."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, SCORE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: tuple(row[column] for column in KEY_COLUMNS)))
    write_text(path, stream.getvalue())


def read_rows(path: Path) -> list[Row]:
    """Read a score table as strings."""
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def check_complete(config: Config, splits: Splits, rows: Sequence[Row]) -> None:
    """Raise RunFailed unless the rows are exactly those that the config expects, each once."""
    found = [tuple(row[column] for column in KEY_COLUMNS) for row in rows]
    expected = set(expected_keys(config, splits))
    missing, extra = expected - set(found), set(found) - expected
    double = len(found) - len(set(found))
    if missing or extra or double:
        example = "/".join(sorted(missing or extra)[0]) if missing or extra else "see the table"
        raise RunFailed(
            f"the score table has {len(missing)} missing, {len(extra)} unexpected and {double} repeated rows of "
            f"{len(expected)} expected; for example {example}"
        )
