"""What of a training log goes into the record."""

import pytest

from segbench.evaluation.record import CURVE_POINTS, _curve


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
