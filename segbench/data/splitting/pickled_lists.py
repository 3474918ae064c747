"""Read pickles that hold lists, strings, dictionaries and ordered dictionaries, and nothing else, without running code.

Two gates, because a pickle is a program: every instruction is looked at before any is carried out (none that sets
attributes, none that asks for memory beyond the file's own size), and the only name it may look up is OrderedDict.
"""

from __future__ import annotations

import collections
import io
import pickle
import pickletools
from pathlib import Path

from segbench.core.errors import input_error

MOST_BYTES = 2**26
BUILDING = frozenset(
    (
        "PROTO",
        "FRAME",
        "STOP",
        "MARK",
        "LIST",
        "EMPTY_LIST",
        "APPEND",
        "APPENDS",
        "DICT",
        "EMPTY_DICT",
        "SETITEM",
        "SETITEMS",
        "TUPLE",
        "EMPTY_TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "PUT",
        "BINPUT",
        "LONG_BINPUT",
        "MEMOIZE",
        "GET",
        "BINGET",
        "LONG_BINGET",
        "GLOBAL",
        "STACK_GLOBAL",
        "REDUCE",
    )
)


class _ListsOnly(pickle.Unpickler):
    """Any name but OrderedDict in the file is refused."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}")


def load_lists(path: Path | str) -> object:
    """Return what a pickle holds; one that asks for more than lists, strings and dictionaries raises InputError."""
    expected = "a pickle of lists and dictionaries of names"
    try:
        size = Path(path).stat().st_size
        if size > MOST_BYTES:
            raise input_error(
                path, found=f"{size} bytes", expected=f"{expected}, at most {MOST_BYTES}", fix="name a split"
            )
        content = Path(path).read_bytes()
    except OSError as error:
        raise input_error(path, found=error.strerror, expected=expected, fix="see docs/protocols.md") from error
    try:
        _refuse_instructions(content)
        return _ListsOnly(io.BytesIO(content)).load()
    except Exception as error:  # damaged pickles raise almost anything
        found = str(error) or type(error).__name__
        raise input_error(path, found=found, expected=expected, fix="get the file again") from error


def _refuse_instructions(content: bytes) -> None:
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name not in BUILDING:
            raise pickle.UnpicklingError(f"the file asks for the instruction {opcode.name}")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "FRAME") and argument > len(content):
            raise pickle.UnpicklingError(f"the file asks for room for {argument} things")
