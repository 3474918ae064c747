"""Files appear whole or not at all: temporary file in the same folder, fsync, rename."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PART = ".part-"
KEPT_LETTERS = 30


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed, on failure removed.

    The temporary name keeps the suffixes of `path`, because some writers choose a format by them. It keeps no more of
    a long name, which would be too long with what is put before it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=part_prefix(), suffix="-" + path.name[-KEPT_LETTERS:], dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def unwritable(path: Path) -> str | None:
    """Return in words why nothing can be written at a path, as far as folders and rights tell; None when it can.

    A device or pipe is not written to: a file that is renamed to its name would take its place.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        return f"{path}, which is no regular file"
    folder = path if path.is_dir() else path.parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder}, which is no folder"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder}, a folder in which you may not write"


def part_prefix() -> str:
    """Return how names of half-written files and folders of this process begin.

    No name of a host holds an '@', so that the host and the process are read back without doubt.
    """
    return f"{PART}{platform.node()}@{os.getpid()}-"


def remove_abandoned_parts(folder: Path) -> list[Path]:
    """Remove half-written files and folders below `folder` whose writer was a process of this host and is dead.

    What belongs to another user stays. Of a link only the link is removed, never what it points to.

    Returns:
        What was removed; empty when the folder does not exist.
    """
    import psutil

    removed, own = [], f"{PART}{platform.node()}@"
    for root, folders, names in os.walk(folder):
        for name in [name for name in folders + names if name.startswith(own)]:
            writer = name.removeprefix(own).partition("-")[0]
            path = Path(root) / name
            if writer.isdigit() and not psutil.pid_exists(int(writer)) and path.lstat().st_uid == os.getuid():
                is_folder = path.is_dir() and not path.is_symlink()
                shutil.rmtree(path) if is_folder else path.unlink(missing_ok=True)
                removed.append(path)
        folders[:] = [name for name in folders if not name.startswith(PART)]
    return removed


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically, with newlines as given."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, content: Any) -> None:
    """Write JSON atomically, sorted and indented so that differences read well."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def write_small_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all, without waiting for the disk: for thousands of small files that can be made anew.

    After a crash of the machine such a file may be empty or absent.
    """
    temporary = path.with_name(part_prefix() + path.name)
    text = json.dumps(content, sort_keys=True) + "\n"
    try:
        temporary.write_text(text, encoding="utf-8")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def sha256_of(*paths: Path | str) -> str:
    """Return the SHA-256 of the contents of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
