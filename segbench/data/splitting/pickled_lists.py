"""Read pickles of lists, sets, strings, dictionaries and NumPy arrays of strings, without running code.

Two gates, because a pickle is a program: every instruction is looked at before any is carried out (none that asks for
memory beyond the file's own size), and the only names it may look up are OrderedDict, set and those with which NumPy
writes arrays (`splits_final.pkl` of nnU-Net v1). The latter are stand-ins of this module that hold values and do
nothing; they have no attributes that a pickle could set.
"""

from __future__ import annotations

import collections
import io
import pickle
import pickletools
import re
from pathlib import Path

import numpy as np

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
        "BUILD",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "SHORT_BINBYTES",
        "BINBYTES",
        "BYTEARRAY8",
        "EMPTY_SET",
        "ADDITEMS",
    )
)


class _Type:
    """Stands for a NumPy type of text, such as U7."""

    __slots__ = ("code", "order")

    def __init__(self, code: str):
        if not re.fullmatch(r"[<>=|]?([US]\d{1,5}|O\d?)", code):
            raise pickle.UnpicklingError(f"an array of type {code[:20]}, not of names")
        self.code, self.order = code.lstrip("<>=|"), "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def names(self, content: object) -> list[str]:
        """Return the strings of an array: of its bytes, or of its objects."""
        if isinstance(content, list):
            return [item.value[0] if isinstance(item, _Array) else item for item in content]
        if not isinstance(content, bytes | bytearray):
            raise pickle.UnpicklingError("an array without its bytes")
        found = np.frombuffer(content, dtype=np.dtype(self.order + self.code)).tolist()
        return [item.decode() if isinstance(item, bytes) else item for item in found]


class _Array:
    """Stands for a NumPy array or scalar of strings; `value` are its strings."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: list[str] = []

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, _, content = state
        if len(shape) != 1:
            raise pickle.UnpicklingError(f"an array of {len(shape)} axes, not a list of names")
        self.value = dtype.names(content)


class _StandIn:
    """A function of NumPy's pickles without NumPy's code; it has no attributes to set."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *arguments: object) -> object:
        if self.name == "dtype":
            return _Type(str(arguments[0]))
        if self.name == "encode":  # how bytes are written in pickles of protocol 2
            return str(arguments[0]).encode("latin1")
        if self.name == "bytes":  # how no bytes are written there
            return b""
        if self.name == "set":
            return list(arguments[0]) if isinstance(arguments[0], list) else []
        array = _Array()
        if self.name == "_frombuffer":  # how arrays are written in pickles of protocol 5
            content, dtype, shape, _ = arguments
            array.__setstate__((1, shape, dtype, False, content))
        if self.name == "scalar":
            array.value = arguments[0].names(arguments[1])  # type: ignore[attr-defined]
        return array


NUMPY_NAMES = {
    **{(f"numpy.{core}.multiarray", name): name for core in ("core", "_core") for name in ("_reconstruct", "scalar")},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    **{(f"numpy.{core}.numeric", "_frombuffer"): "_frombuffer" for core in ("core", "_core")},
    **{(module, name): name for module in ("builtins", "__builtin__") for name in ("bytes", "set")},
}


class _ListsOnly(pickle.Unpickler):
    """Any name but OrderedDict and those of `NUMPY_NAMES` in the file is refused."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) in NUMPY_NAMES:
            return _StandIn(NUMPY_NAMES[module, name])
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}")


def _plain(content: object, done: dict[int, object]) -> object:
    """Return the content with lists in the place of arrays; each object is looked at once."""
    if id(content) in done:
        return done[id(content)]
    if isinstance(content, _Array):
        return list(content.value)
    if isinstance(content, dict):
        changed: dict[object, object] = {}
        done[id(content)] = changed
        changed.update({_plain(key, done): _plain(value, done) for key, value in content.items()})
        return changed
    if isinstance(content, set):
        content = sorted(content, key=str)
    if isinstance(content, (list, tuple)):
        items: list[object] = []
        done[id(content)] = items
        items.extend(item.value[0] if _is_name(item) else _plain(item, done) for item in content)
        return items
    if isinstance(content, (_Type, _StandIn)):
        raise pickle.UnpicklingError("a type of NumPy in the place of names")
    return content


def _is_name(item: object) -> bool:
    """Tell whether an item of a list is a NumPy string."""
    return isinstance(item, _Array) and len(item.value) == 1


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
        return _plain(_ListsOnly(io.BytesIO(content)).load(), {})
    except Exception as error:  # damaged pickles raise almost anything
        found = str(error) or type(error).__name__
        raise input_error(
            path, found=found, expected=expected, fix="get the file again, or write it as JSON"
        ) from error


def _refuse_instructions(content: bytes) -> None:
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name not in BUILDING:
            raise pickle.UnpicklingError(f"the file asks for the instruction {opcode.name}")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "FRAME") and (argument or 0) > len(content):
            raise pickle.UnpicklingError(f"the file asks for room for {argument} things")
