"""A case: its files as found (`CaseFiles`) and its row in the manifest (`Case`)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from segbench.core.errors import input_error, short
from segbench.core.files import write_text

LIST_SEPARATOR = "|"
REMAKE = "delete it and run ingest again"


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case as a data source found them; one image file per channel, or one 4D file.

    annotated: class values that somebody looked for; None for all of them.
    """

    case_id: str
    patient_id: str
    image_paths: tuple[Path, ...]
    label_path: Path | None
    annotated: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Case:
    """A checked case: a row of `manifest.csv`. Shapes in voxels x,y,z; spacing in mm; orientation as axis codes.

    annotated: class values that somebody looked for; None for all of them. The column is written only where a case of
    the data set needs it.
    """

    task: str
    case_id: str
    patient_id: str
    image_paths: tuple[str, ...]
    label_path: str
    image_sha256: str
    label_sha256: str
    shape_xyz: tuple[int, int, int]
    spacing_mm_xyz: tuple[float, float, float]
    orientation: str
    annotated: tuple[int, ...] | None = None

    def is_annotated(self, labels: Iterable[int]) -> bool:
        """Return whether all of these class values were looked for in this case."""
        return self.annotated is None or set(labels) <= set(self.annotated)

    def __post_init__(self) -> None:
        for part in self.image_paths:
            if LIST_SEPARATOR in part:
                raise input_error(part, found="'|' in a file name", expected="a name without it", fix="rename the file")


def write_manifest(path: Path | str, cases: Iterable[Case]) -> None:
    """Write the manifest atomically, one row per case, sorted by task and case id."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    cases = sorted(cases, key=lambda item: (item.task, item.case_id))
    columns = _columns(any(case.annotated is not None for case in cases))
    writer.writerow(columns)
    for case in cases:
        values = (getattr(case, name) for name in columns)
        writer.writerow(
            [LIST_SEPARATOR.join(map(str, value)) if isinstance(value, tuple) else value for value in values]
        )
    write_text(path, stream.getvalue())


def read_manifest(path: Path | str) -> list[Case]:
    """Read a manifest.

    Raises:
        InputError: the file is absent, no text, has other columns, or has a row that is no case or comes twice.
    """
    expected = _columns(False)
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if reader.fieldnames not in (expected, _columns(True)):
                raise input_error(path, found=f"columns {reader.fieldnames}", expected=expected, fix=REMAKE)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise input_error(path, found=short(error), expected="a manifest", fix=REMAKE) from error
    cases: dict[str, Case] = {}
    for number, row in enumerate(rows, start=2):
        try:
            if None in row or None in row.values():  # csv's sign of cells beyond the columns, or of too few
                raise ValueError("another number of cells than columns")
            case = _from_row(row)
        except (ValueError, IndexError, AttributeError, TypeError) as error:
            where = f"{path}, line {number}"
            raise input_error(where, found=short(error), expected="a row as ingest wrote it", fix=REMAKE) from error
        if case.case_id in cases:
            found = f"the case {case.case_id} again"
            raise input_error(f"{path}, line {number}", found=found, expected="each case once", fix=REMAKE)
        cases[case.case_id] = case
    return list(cases.values())


def _columns(partly_annotated: bool) -> list[str]:
    return [field.name for field in fields(Case) if partly_annotated or field.name != "annotated"]


def _from_row(row: dict[str, str]) -> Case:
    x, y, z = map(int, row["shape_xyz"].split(LIST_SEPARATOR))
    x_mm, y_mm, z_mm = map(float, row["spacing_mm_xyz"].split(LIST_SEPARATOR))
    return Case(
        task=row["task"],
        case_id=row["case_id"],
        patient_id=row["patient_id"],
        image_paths=tuple(row["image_paths"].split(LIST_SEPARATOR)),
        label_path=row["label_path"],
        image_sha256=row["image_sha256"],
        label_sha256=row["label_sha256"],
        shape_xyz=(x, y, z),
        spacing_mm_xyz=(x_mm, y_mm, z_mm),
        orientation=row["orientation"],
        annotated=tuple(map(int, row["annotated"].split(LIST_SEPARATOR))) if row.get("annotated") else None,
    )
