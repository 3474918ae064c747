"""Errors that a user can act on: each says where, what was found, what was expected and the mend.

`InputFaults` carries all faults of one input at once and leaves the command line with status 2;
`RunFailed` says that the run itself failed (status 1). Neither is shown with a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One fault of the user's input.

    where: the file, case or config key; found: what is there; expected: what should be there;
    mend: the step that puts it right.
    """

    where: str
    found: str
    expected: str
    mend: str

    def line(self) -> str:
        """Return the fault as one line, without a newline inside."""
        text = f"{self.where}: found {self.found}; expected {self.expected}; {self.mend}"
        return " ".join(text.split())


class InputFaults(ValueError):
    """The user's input is at fault; `faults` lists every fault found, in reading order."""

    def __init__(self, faults: Iterable[Fault]):
        self.faults = tuple(faults)
        assert self.faults, "InputFaults needs at least one fault"
        super().__init__("\n".join(fault.line() for fault in self.faults))

    def __reduce__(self) -> tuple:
        """Travel between processes with the faults, not with the message."""
        return type(self), (self.faults,)


class RunFailed(RuntimeError):
    """The run failed for a reason that is not the user's input."""


def fault(where: object, *, found: object, expected: object, mend: str) -> InputFaults:
    """Return an `InputFaults` with a single fault, ready to be raised."""
    return InputFaults([Fault(str(where), str(found), str(expected), mend)])


def raise_faults(faults: Iterable[Fault]) -> None:
    """Raise `InputFaults` when there is any fault, otherwise do nothing."""
    listed = tuple(faults)
    if listed:
        raise InputFaults(listed)


def short(error: Exception, *, most: int = 80) -> str:
    """Return the message of a library's error on one line, cut to `most` characters; its kind when it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?" for a near-miss, otherwise the list of known words."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(known)}" if known else "none is known"
