"""Pickles of lists are read; whatever would run code, take memory or build anything else is refused."""

import collections
import pickle
import sys

import numpy as np
import pytest

from segbench.cli import main
from segbench.core.errors import InputError
from segbench.data.splitting.pickled_lists import load_lists

FOLD = {"train": ["a", "b"], "val": ["ü"]}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_lists_of_every_pickle_protocol_are_read(tmp_path, protocol):
    path = tmp_path / "lists.pkl"
    path.write_bytes(pickle.dumps([FOLD, collections.OrderedDict(FOLD)], protocol=protocol))
    assert load_lists(path) == [FOLD, FOLD]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "names",
    [
        np.array(["a_1", "a_2"]),
        np.array(["a_1", "a_2"], dtype=object),
        np.array([b"a_1", b"a_2"]),
        [np.str_("a_1"), np.str_("a_2")],
        ("a_1", "a_2"),
        {"a_1", "a_2"},
    ],
    ids=["text", "objects", "bytes", "scalars", "tuple", "set"],
)
def test_names_are_read_however_a_split_holds_them(names, protocol, tmp_path):
    path = tmp_path / "splits_final.pkl"
    fold = collections.OrderedDict(train=names, val=np.array([], dtype="U1"))
    path.write_bytes(pickle.dumps([fold], protocol=protocol))
    (found,) = load_lists(path)
    assert sorted(found["train"]) == ["a_1", "a_2"]
    assert found["val"] == []


class Command:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return (sys.exit, (17,))


HOSTILE = {
    "a command": pickle.dumps([Command()]),
    "getattr": b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
    "a class of the old form": b"(cos\nsystem\nS'true'\nios\nsystem\n.",
    "a persistent id": b"Pabc\n.",
    "an extension": b"\x80\x04\x82\x01.",
    "an attribute that hides a method": b"\x80\x04ccollections\nOrderedDict\n)R}\x8c\x05items\x8c\x01xsb.",
    "a billion places": b"\x80\x04]r\xff\xff\xff\x7f.",
    "a giant frame": b"\x80\x04\x95" + (2**50).to_bytes(8, "little") + b"].",
    "a giant text": b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"abc",
    "giant bytes": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"abc",
    "nested without end": b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a list that holds itself": b"\x80\x04]\x94h\x00a.",
    "numbers of NumPy": pickle.dumps([{"train": np.array([1]), "val": ["b"]}]),
    "objects of NumPy": pickle.dumps([{"train": np.array([{}, None], dtype=object), "val": ["b"]}]),
    "a table of NumPy": pickle.dumps([{"train": np.array([["a"]]), "val": ["b"]}]),
    "bytes of a size": b"\x80\x04cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R.",
    "numbers": pickle.dumps([{"train": [1], "val": [2]}]),
    "a function's arguments": b"\x80\x04ccollections\nOrderedDict\n\x8c\x03foo\x8c\x03bar\x86R.",
    "an empty file": b"",
    "a text": b"hello world\n",
    "half a file": pickle.dumps([FOLD])[:-9],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_audit_refuses_hostile_files_with_status_2(kind, tmp_path, capsys):
    path = tmp_path / "splits.pkl"
    path.write_bytes(HOSTILE[kind])
    assert main(["audit", "--splits", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: found ")
    assert "found ;" not in line


def test_a_file_too_large_for_lists_is_not_read(tmp_path):
    path = tmp_path / "splits.pkl"
    with path.open("wb") as stream:
        stream.truncate(2**40)  # takes no space on the disk
    with pytest.raises(InputError, match="1099511627776 bytes"):
        load_lists(path)
