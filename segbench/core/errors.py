"""Errors that a user can act on: each says where, what was found, what was expected and the fix.

`InputError` carries all problems of one input at once; the command that raises it exits with status 2. `RunFailed` says
that the run itself failed (status 1). Neither is shown with a traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One problem of the user's input.

    where: the file, case or config key; found: what is there; expected: what should be there;
    fix: the step that puts it right.
    """

    where: str
    found: str
    expected: str
    fix: str

    def line(self) -> str:
        """Return the problem as one line, without a newline inside."""
        text = f"{self.where}: found {self.found}; expected {self.expected}; {self.fix}"
        return " ".join(text.split())


class InputError(ValueError):
    """The user's input is wrong; `problems` lists every problem found, in reading order."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(problems)
        assert self.problems, "InputError needs at least one problem"
        super().__init__("\n".join(problem.line() for problem in self.problems))

    def __reduce__(self) -> tuple:
        """Travel between processes with the problems, not with the message."""
        return type(self), (self.problems,)


class RunFailed(RuntimeError):
    """The run failed for a reason that is not the user's input."""


def input_error(where: object, *, found: object, expected: object, fix: str) -> InputError:
    """Return an `InputError` with a single problem, ready to be raised."""
    return InputError([Problem(str(where), str(found), str(expected), fix)])


def raise_problems(problems: Iterable[Problem]) -> None:
    """Raise `InputError` when there is any problem, otherwise do nothing."""
    listed = tuple(problems)
    if listed:
        raise InputError(listed)


MACHINE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM, errno.EROFS})
PATH_ERRORS = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EROFS,
    }
)
"""Errors of a path that the user named, or of its rights."""
DEVICE_ERRORS = frozenset(
    {"OutOfMemoryError", "AcceleratorError", "DistBackendError", "DistNetworkError", "DistStoreError"}
)
"""Names of errors of PyTorch, which is not imported here."""
DEVICE_MESSAGES = (
    *("CUDA error", "CUDA out of memory", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS", "can't allocate"),
    *("gloo/transport", "NCCL error"),
)
"""Parts of messages of PyTorch's `RuntimeError`s where a device, memory or another process of the job failed."""


def path_problem(error: OSError) -> Problem | None:
    """Return the problem of a path that cannot be read or written; None for another error."""
    if error.errno not in PATH_ERRORS or error.filename is None:
        return None
    path, found = error.filename2 or error.filename, error.strerror or short(error)
    expected, fix = "a path that can be read or written", "name another path, or change its permissions"
    return Problem(str(path), found, expected, fix)


def is_machine_failure(error: BaseException) -> bool:
    """Tell whether memory, a disk or a device failed, so that another try may succeed; anything else is a result."""
    if isinstance(error, OSError):
        return error.errno in MACHINE_ERRORS
    if isinstance(error, RuntimeError) and any(part in str(error) for part in DEVICE_MESSAGES):
        return True
    return isinstance(error, MemoryError) or type(error).__name__ in DEVICE_ERRORS


def short(error: BaseException, *, most: int = 80) -> str:
    """Return the message of a library's error on one line, cut to `most` characters; its kind when it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def in_words(error: Exception) -> str:
    """Return why a file was not read, without the names of Python's errors."""
    return getattr(error, "strerror", None) or short(error, most=160)


def some(items: Sequence[object]) -> str:
    """Return the first items as text, and how many more there are: 'a, b, c, d and 3 more'."""
    shown = ", ".join(map(str, items[:4]))
    return f"{shown} and {len(items) - 4} more" if len(items) > 4 else shown


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?" for a near-miss, otherwise the list of known words."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(known)}" if known else "none is known"
