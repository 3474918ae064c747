"""What lies below a folder of the user's: links are followed, except in a circle; hidden names are passed over.

`Path.glob` enters no link in Python 3.11, and `os.walk` enters a circle of links again and again. Archives made on
macOS carry a hidden `._NAME` beside every file, or all of them in `__MACOSX`; none is an image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from segbench.core.errors import input_error

HIDDEN = (".", "__MACOSX")
"""How names begin that are passed over."""


def files_below(folder: Path) -> Iterator[Path]:
    """Yield what is no folder in a folder and in every folder below it: files, links to nothing, pipes.

    Nothing where `folder` is none. Raises InputError for a folder that cannot be opened.
    """
    return (path for _, files in _opened(folder) for path in files)


def folders_below(folder: Path) -> Iterator[Path]:
    """Yield a folder, unless it is none, and every folder below it; raises InputError for one that cannot be opened."""
    return (below for below, _ in _opened(folder))


def _opened(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[tuple[Path, list[Path]]]:
    """Yield each folder, the outer ones first, with its files by name; `above`: real paths of those that it lies in."""
    real = os.path.realpath(folder)
    if real in above or not os.path.isdir(folder):
        return
    try:
        paths = [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(HIDDEN)]
    except OSError as error:
        found = f"a folder that cannot be opened ({error.strerror})"
        raise input_error(folder, found=found, expected="a folder", fix="give yourself the right to read it") from error
    is_folder = {path: os.path.isdir(path) for path in paths}
    yield folder, [path for path in paths if not is_folder[path]]
    for path in paths:
        if is_folder[path]:
            yield from _opened(path, above | {real})
