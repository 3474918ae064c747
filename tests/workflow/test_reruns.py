"""No edit trains, predicts or scores what would come out the same, and none leaves anything stale."""

import pytest

from tests.workflow import reruns


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A finished run that every edit starts from."""
    return reruns.build(tmp_path_factory.mktemp("reruns"))


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(edit, id=edit.title.replace(" ", "-"), marks=() if edit.quick else (pytest.mark.slow,))
        for edit in reruns.EDITS
    ],
)
def test_an_edit_costs_what_it_changes(edit, base, tmp_path):
    place = reruns.copied(base, tmp_path / "run")
    edit.make(place)
    done = reruns.measured(place)
    assert done.trained == edit.trained
    assert (done.predicted > 0, done.scored > 0, done.rendered) == (edit.predicted, edit.scored, edit.rendered)
