"""The record of a run: no table from two versions of the code, titles that say where weights come from, curves."""

import pytest

from segbench.core.errors import RunFailed
from segbench.evaluation.record import CURVE_POINTS, _curve, _methods, _objective, _refuse_mixed_code
from tests.unit.training.small_run import config


def records(*codes):
    return [{"model": model, "training_code": shared, "method_code": own} for model, shared, own in codes]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([("uniseg", "a", "x"), ("cond_decoder", "b", "y")], "2 versions of the training code"),
        ([("uniseg", "a", "x"), ("uniseg", "a", "y")], "two versions of uniseg"),
        ([("uniseg", "a", "x"), ("uniseg_late", "a", "y")], "two versions of uniseg"),
    ],
)
def test_cells_of_two_versions_are_refused(found, message):
    late = {"name": "uniseg", "id": "uniseg_late", "options": {"position": 1}}
    settings = config(upstream={"models": ["uniseg", late, "cond_decoder", "dodnet_original"]})
    with pytest.raises(RunFailed, match=message):
        _refuse_mixed_code(settings, records(*found))
    allowed = settings.model_copy(update={"allow_mixed_training_code": True})
    _refuse_mixed_code(allowed, records(*found))


def test_other_methods_and_untrained_jobs_are_not_mixed():
    _refuse_mixed_code(config(), records(("uniseg", "a", "x"), ("cond_decoder", "a", "y"), ("empty", None, None)))


def test_titles_say_where_weights_come_from():
    transfers = [method for method in _methods(config()) if method["kind"] == "transfer"]
    titles = {method["initialisation"]: method["title"] for method in transfers}
    assert titles["scratch"] == "From scratch"
    assert titles["cond_decoder"].startswith("Pre-trained: ")
    assert titles["volume_contrast"] == "Self-supervised: Volume contrast"
    objective = _objective(config(), "volume_contrast")
    assert objective["kind"] == "self_supervised"
    assert "CVPR 2024" in objective["citation"]


def written(path, lines):
    path.write_text("iteration,task,loss\n" + "".join(f"{i},T,{loss}\n" for i, loss in lines))
    return path


def test_a_short_log_is_kept_line_by_line(tmp_path):
    assert _curve(written(tmp_path / "log.csv", [(5, 1.5), (10, 0.5)])) == {"iteration": [5, 10], "loss": [1.5, 0.5]}


def test_a_long_log_becomes_means_of_equally_many_lines(tmp_path):
    lines = 5 * CURVE_POINTS
    curve = _curve(written(tmp_path / "log.csv", [(i, i / 10) for i in range(lines)]))
    assert len(curve["loss"]) == CURVE_POINTS
    assert curve["iteration"][:2] == [2, 7]
    assert curve["loss"] == pytest.approx([i / 10 for i in curve["iteration"]])


def test_a_model_without_a_log_has_no_curve(tmp_path):
    assert _curve(tmp_path / "log.csv") is None
