"""Progress in a log: what is written is read back; other lines are none."""

import logging

import pytest

from segbench.core import progress
from segbench.core.progress import Progress, Seen, seen, span


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00:00"), (3725, "1:02:05"), (100 * 3600, "100:00:00")])
def test_a_time_is_written_in_hours_minutes_and_seconds(seconds, text):
    assert span(seconds) == text


def test_a_line_says_rate_and_remaining_time_and_is_read_back(monkeypatch, caplog):
    """From step 10 of 100: two steps in 20 s, so 880 s for the other 88."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), Progress(total=100, start=10, title="train a", unit="step") as shown:
        for _ in range(2):
            now[0] += 10.0
            shown.advance("loss 0.5, of all")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["train a: 12 of 100 steps loss 0.5, of all, 0.1 a second, 0:14:40 left"]
    assert seen(f"INFO segbench.progress: {lines[0]}") == Seen(12, 100, 880)


def test_work_that_goes_back_counts_what_it_did(monkeypatch, caplog):
    """Five steps in 50 s whatever their number: 100 steps are left and take 1,000 s."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), Progress(total=101, title="a", every_seconds=45.0) as shown:
        for _ in range(4):
            now[0] += 10.0
            shown.advance()
        shown.go_back_to(0)
        now[0] += 10.0
        shown.advance()
    assert caplog.records[-1].getMessage().endswith("0.1 a second, 0:16:40 left")


@pytest.mark.parametrize(
    "line", ["", "loss 0.5", "train a: 12 of 100 steps loss 0.5", "b: 1 of 2 things, fast, soon left"]
)
def test_other_lines_are_no_progress(line):
    assert seen(line) is None
