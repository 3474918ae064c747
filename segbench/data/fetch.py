"""Fetch the archives that a card names: download with resume, compare the checksum, unpack safely, rename into place.

pooch, the library used for hashing, starts an interrupted download anew; the archives here have up to 27 GB, so the
download asks for the missing bytes with an HTTP Range request instead.
"""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pooch
import requests

from segbench.core.errors import InputError, Problem, RunFailed, input_error, raise_problems, short
from segbench.core.progress import Progress
from segbench.data.presence import is_present, presence

log = logging.getLogger(__name__)

WORK_FOLDER = ".fetch"
CHUNK_BYTES = 1 << 14  # what a broken connection may lose at most
MEBIBYTE = 1 << 20
TIMEOUT_SECONDS = 60
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError)


def fetch(name: str, card: dict, data_root: Path) -> str:
    """Bring a data set below the data root and return its state as `presence` words it.

    A data set that is present is left alone. One without downloads, whose owners ask for registration, raises
    InputError with the step to take and the folder that is waited for; so does a wrong checksum or a hostile archive,
    and nothing of it is left. A failing network or disk raises RunFailed; what was downloaded is kept for the next run.
    """
    if is_present(name, card, data_root):
        return presence(name, card, data_root)
    folder = data_root / card["folder"]
    if not card["downloads"]:
        raise input_error(folder, found=presence(name, card, data_root), expected=card["title"], fix=card["obtain"])
    for item in card["downloads"]:
        target = data_root / item["unpacks_to"]
        if not target.is_dir():
            _fetch_archive(item, target)
    state = presence(name, card, data_root)
    if not is_present(name, card, data_root):
        raise input_error(folder, found=state, expected="all cases", fix="move the folder away and fetch again")
    return state


def _fetch_archive(item: dict, target: Path) -> None:
    work = target.parent / WORK_FOLDER
    archive = work / item["url"].rsplit("/", 1)[-1]
    try:
        work.mkdir(parents=True, exist_ok=True)
        download(item["url"], archive)
        try:
            compare_checksum(archive, item.get("checksum"))
            unpack(archive, target)
        except InputError:
            archive.unlink()
            raise
        archive.unlink()
    except requests.RequestException as error:
        kept = f"{archive.stat().st_size} bytes are kept" if archive.exists() else "nothing was received"
        raise RunFailed(f"{item['url']}: {short(error, most=160)}; {kept}, run again to go on") from error
    except OSError as error:
        raise RunFailed(f"{error.filename or target}: {error.strerror or error}") from error
    finally:
        if work.is_dir() and not any(work.iterdir()):
            work.rmdir()


def download(url: str, path: Path) -> None:
    """Download to a file; bytes that it already holds are not asked for again.

    A connection that breaks is taken up again for as long as each attempt brings new bytes; then its
    requests.RequestException is raised and the file kept.
    """
    while True:
        before = _size(path)
        try:
            _continue(url, path)
            return
        except requests.HTTPError:
            raise
        except requests.RequestException:
            if _size(path) <= before:
                raise


def _continue(url: str, path: Path) -> None:
    start = _size(path)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as answer:
        if start and answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # the file is whole; whether it is the right one, its checksum or the archive's own says
        answer.raise_for_status()
        resumed = answer.status_code == requests.codes.partial_content
        start = start if resumed else 0
        whole = start + int(answer.headers.get("Content-Length", 0))
        progress = Progress(total=whole // MEBIBYTE, start=start // MEBIBYTE, title=path.name, unit="mebibyte")
        with open(path, "ab" if resumed else "wb") as stream, progress:
            for chunk in answer.iter_content(CHUNK_BYTES):
                stream.write(chunk)
                while progress.done < stream.tell() // MEBIBYTE:
                    progress.advance()


def compare_checksum(path: Path, checksum: str | None) -> None:
    """Compare a file with 'algorithm:digest'; None passes, as its owners publish none."""
    if checksum is None:
        return
    algorithm, expected = checksum.split(":")
    log.info("%s: comparing its %s", path.name, algorithm)
    found = pooch.file_hash(str(path), alg=algorithm)
    if found != expected:
        raise input_error(path.name, found=f"{algorithm} {found}", expected=expected, fix="fetch again; it was removed")


def unpack(archive: Path, target: Path) -> None:
    """Unpack a tar or zip archive whose top folder has the target's name, and rename that folder to the target.

    Unpacking happens beside the archive, so the target appears whole or not at all. A member that leaves the folder,
    a link or a device raises InputError before anything is written. What macOS adds is left out.
    """
    scratch = archive.with_name(archive.name + ".unpacked")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        (_unpack_zip if archive.suffix == ".zip" else _unpack_tar)(archive, scratch)
    except DAMAGED as error:
        raise input_error(
            archive.name,
            found=f"a damaged archive ({short(error, most=160)})",
            expected="a whole one",
            fix="fetch again; it was removed",
        ) from error
    else:
        if not (scratch / target.name).is_dir():
            raise input_error(archive.name, found=f"no folder {target.name}", expected=target.name, fix="fix the card")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / target.name, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unpack_tar(archive: Path, scratch: Path) -> None:
    with tarfile.open(archive) as stream:
        members = [member for member in stream.getmembers() if not _hidden(member.name)]
        plain = {member.name: member.isreg() or member.isdir() for member in members}
        raise_problems(_hostile(archive, plain))
        _write(archive, members, lambda member: stream.extract(member, scratch, filter="data"))


def _unpack_zip(archive: Path, scratch: Path) -> None:
    with zipfile.ZipFile(archive) as stream:
        members = [member for member in stream.infolist() if not _hidden(member.filename)]
        plain = {member.filename: not stat.S_ISLNK(member.external_attr >> 16) for member in members}
        raise_problems(_hostile(archive, plain))
        _write(archive, members, lambda member: stream.extract(member, scratch))


def _write(archive: Path, members: list, write: Callable) -> None:
    with Progress(total=len(members), title=f"unpack {archive.name}", unit="file") as progress:
        for member in members:
            write(member)
            progress.advance()


def _hidden(name: str) -> bool:
    return any(part == "__MACOSX" or part.startswith("._") for part in PurePosixPath(name).parts)


def _hostile(archive: Path, plain: dict[str, bool]) -> Iterator[Problem]:
    for name, is_plain in plain.items():
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or not is_plain:
            kind = "a path that leaves the folder" if is_plain else "a link or device"
            yield Problem(
                archive.name, f"{kind} ({name})", "files and folders below one folder", "do not use this copy"
            )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
