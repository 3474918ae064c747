"""A problem is one line; an error carries all of them, between processes too."""

import errno
import pickle

import pytest

from segbench.core.errors import (
    InputError,
    Problem,
    in_words,
    is_machine_failure,
    path_problem,
    raise_problems,
    short,
    some,
    suggestion,
)


def test_a_problem_is_one_line():
    line = Problem("a", "b\nc", "d", "e  f").line()
    assert line == "a: found b c; expected d; e f"


def test_an_error_keeps_its_problems_between_processes():
    error = InputError([Problem("a", "b", "c", "d"), Problem("e", "f", "g", "h")])
    assert pickle.loads(pickle.dumps(error)).problems == error.problems
    assert str(error).count("\n") == 1


def test_no_problem_raises_nothing():
    raise_problems([])
    with pytest.raises(InputError):
        raise_problems(iter([Problem("a", "b", "c", "d")]))


def test_a_near_miss_is_suggested_and_otherwise_all_names():
    assert suggestion("dise", ["dice", "hd95"]) == "did you mean 'dice'?"
    assert suggestion("x", ["dice", "hd95"]) == "known: dice, hd95"
    assert suggestion("x", []) == "none is known"


def test_of_many_items_the_first_ones_are_named():
    assert some([]) == ""
    assert some(range(4)) == "0, 1, 2, 3"
    assert some(range(6)) == "0, 1, 2, 3 and 2 more"


def test_the_message_of_a_library_fits_on_a_line():
    assert short(ValueError("a\n b")) == "a b"
    assert short(ValueError()) == "ValueError"
    assert len(short(ValueError("x" * 200))) == 80


def test_an_error_is_said_without_its_name_in_python():
    assert in_words(FileNotFoundError(2, "No such file or directory", "a")) == "No such file or directory"
    assert in_words(ValueError("File is not a zip file")) == "File is not a zip file"


def test_a_read_only_disk_is_a_problem_of_the_path_and_lets_a_job_try_again():
    error = OSError(errno.EROFS, "Read-only file system", "results/demo")
    assert path_problem(error).line().startswith("results/demo: found Read-only file system; expected a path that")
    assert is_machine_failure(error)
    assert path_problem(OSError(errno.ENOSPC, "No space left on device", "results/demo")) is None
