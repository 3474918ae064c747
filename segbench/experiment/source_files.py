"""Whether the raw files of a data set are those that were ingested, by content; stray files are no part."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from segbench.core.case import Case
from segbench.core.errors import InputError
from segbench.core.files import sha256_of, write_json
from segbench.core.folders import files_below

DATA_SUFFIXES = (
    ".nii", ".nii.gz", ".img", ".hdr", ".mha", ".mhd", ".raw", ".zraw", ".nrrd", ".nhdr", ".dcm", ".ima",
    ".json", ".csv", ".tsv", ".txt", ".xlsx", ".xml", ".mat",
)  # fmt: skip
"""What a layout may read; everything else, and every hidden file, is stray."""


def generation(folder: Path, record: Path) -> int:
    """Return 1 before the first ingest, the record's number while the files are those of the record, else the next.

    A file whose size and time are as recorded is not read again; one with another time is compared by content, once:
    the record then gets its new time.

    Args:
        folder: folder of a data set.
        record: what `write_record` wrote when the data set was ingested.
    """
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        number = int(content["generation"])
        known = {name: (int(size), int(time), str(digest)) for name, (size, time, digest) in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 1
    try:
        found = dict(_states(folder))
    except InputError:  # the ingest that the next number asks for says which folder cannot be opened
        return number + 1
    if any(name not in known or size != known[name][0] for name, (size, _) in found.items()) or len(found) < len(known):
        return number + 1
    touched = [name for name, (_, time) in found.items() if time != known[name][1]]
    if any(sha256_of(folder / name) != known[name][2] for name in touched):
        return number + 1
    if touched:
        files = {name: [*state, known[name][2]] for name, state in found.items()}
        write_json(record, {"generation": number, "files": files})
    return number


def write_record(folder: Path, record: Path, cases: Iterable[Case]) -> None:
    """Write names, sizes, times and SHA-256 of the files of a data set, with the number of their generation.

    Args:
        folder: folder of a data set.
        record: the file to write.
        cases: the manifest's rows, whose files were hashed when they were ingested.
    """
    number = generation(folder, record)
    hashed = {case.label_path: case.label_sha256 for case in cases}
    hashed |= {case.image_paths[0]: case.image_sha256 for case in cases if len(case.image_paths) == 1}
    files = {
        name: [*state, hashed.get(str(folder / name)) or sha256_of(folder / name)] for name, state in _states(folder)
    }
    write_json(record, {"generation": number, "files": files})


def _states(folder: Path) -> Iterator[tuple[str, list[int]]]:
    for path in files_below(folder):
        if path.name.lower().endswith(DATA_SUFFIXES) and path.is_file():
            stat = path.stat()
            yield path.relative_to(folder).as_posix(), [stat.st_size, stat.st_mtime_ns]
