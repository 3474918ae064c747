"""Fingerprints of code: which files a result depends on, found by their imports, and a digest of what they do.

The digest is taken over the syntax tree without comments, docstrings, formatting and cards, so that an edit that cannot
change a number changes no digest. It is the same for all supported versions of Python. Nothing is imported or executed.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("models", "segbench")
SETTINGS = ("segbench.core", "segbench.experiment")
"""What these packages say reaches a result as a setting, which has a digest of its own; only `SEEDS` makes numbers."""
SEEDS = "segbench.core.seeds"


def code_digest(*entries: str, without: Iterable[str] = ()) -> str:
    """Return a digest of files and of all files of this repository that they import, directly or not.

    Args:
        entries: Python files or folders, relative to the repository's root.
        without: files at which the search stops; neither they nor what only they import is part of the digest.

    Returns:
        16 hexadecimal digits.

    Raises:
        FileNotFoundError: an entry does not exist.
    """
    return _digest_of(frozenset(entries), frozenset(without))


@cache
def _digest_of(entries: frozenset[str], without: frozenset[str]) -> str:
    digest = hashlib.sha256()
    for path in sorted(imported_files(entries, without)):
        digest.update(f"{path}\n{_meaning(path)}\n".encode())
    return digest.hexdigest()[:16]


def imported_files(entries: Iterable[str], without: Iterable[str] = ()) -> set[str]:
    """Return the files that a fingerprint of `entries` covers, relative to the repository's root."""
    stops = set(without)
    waiting = [file for entry in entries for file in _files_of(entry)]
    found: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in found or path in stops:
            continue
        found.add(path)
        waiting += imports_of(path)
    return found


def files_digest(*entries: str, suffixes: tuple[str, ...]) -> str:
    """Return a digest of the bytes of files, such as templates and style sheets, by the endings of their names."""
    digest = hashlib.sha256()
    for path in sorted(file for entry in entries for file in _files_of(entry, pattern="*")):
        if path.endswith(suffixes):
            digest.update(path.encode() + b"\n" + (ROOT / path).read_bytes())
    return digest.hexdigest()[:16]


def mentions(path: str, attribute: str) -> bool:
    """Tell whether a file, or one of a folder, reads an attribute of this name."""
    return any(attribute in _parsed(file).attributes for file in _files_of(path))


def _files_of(entry: str, pattern: str = "*.py") -> list[str]:
    path = ROOT / entry
    if path.is_dir():
        files = (file for file in path.rglob(pattern) if file.is_file() and "__pycache__" not in file.parts)
        return sorted(file.relative_to(ROOT).as_posix() for file in files)
    if not path.is_file():
        raise FileNotFoundError(f"{entry} is no file of {ROOT}")
    return [entry]


@cache
def imports_of(path: str) -> tuple[str, ...]:
    """Return the files of this repository that a file imports, at its top or inside a function, settings left out."""
    names = dict.fromkeys(_parsed(path).imported_names)
    files = (_file_of(name) for name in names if name == SEEDS or not _within(name, SETTINGS))
    return tuple(file for file in files if file is not None)


_NOTED = (ast.Attribute, ast.Import, ast.ImportFrom)


class _Parsed(NamedTuple):
    """What is kept of a parsed file: its tree takes ten times the memory."""

    imported_names: tuple[str, ...]
    attributes: frozenset[str]
    meaning: str


@cache
def _parsed(path: str) -> _Parsed:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    words: list[str] = []
    noted: list[ast.AST] = []
    _write(_without_card(tree), words, noted)
    names = [name for node in noted if not isinstance(node, ast.Attribute) for name in _imported_names(node, path)]
    attributes = frozenset(node.attr for node in noted if isinstance(node, ast.Attribute))
    return _Parsed(tuple(names), attributes, "".join(words))


def _meaning(path: str) -> str:
    return _parsed(path).meaning


def _imported_names(node: ast.AST, path: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = Path(path).parts[: -node.level] if node.level else ()  # `from . import x` starts in the own folder
        module = ".".join([*above, *([node.module] if node.module else [])])
        yield module
        yield from (f"{module}.{alias.name}" for alias in node.names)


def _within(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _file_of(name: str) -> str | None:
    """Return the file of a module of this repository; None for other modules, names inside one and empty packages."""
    if not _within(name, PACKAGES):
        return None
    place = Path(*name.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if (ROOT / path).is_file() and (ROOT / path).stat().st_size:
            return path.as_posix()
    return None


def _without_card(tree: ast.Module) -> ast.Module:
    """Leave out the card: what of it changes a result is part of the settings."""
    return ast.Module(body=[node for node in tree.body if not _is_card(node)], type_ignores=[])


def _is_card(node: ast.stmt) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(getattr(target, "id", "") == "CARD" for target in targets)


def _write(node: object, words: list[str], noted: list[ast.AST]) -> None:
    """Append a syntax tree without positions, docstrings and empty fields, which differ between versions of Python.

    A statement that is only a text is a docstring, of a module, class or function, or of the attribute above it. What
    is imported and read as an attribute is noted on the way.
    """
    if isinstance(node, ast.AST):
        if isinstance(node, _NOTED):
            noted.append(node)
        words.append(f"({type(node).__name__}")
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                value = [item for item in value if not _is_text(item)]
            if value is None or value == [] or name in ("kind", "type_comment"):
                continue
            words.append(f" {name}=")
            _write(value, words, noted)
        words.append(")")
    elif isinstance(node, list):
        for item in node:
            _write(item, words, noted)
    else:
        words.append(repr(node))


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
