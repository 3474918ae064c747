"""A problem is one line; an error carries all of them, between processes too."""

import pickle

import pytest

from segbench.core.errors import InputError, Problem, in_words, raise_problems, short, some, suggestion


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
