"""The pipeline: results in order, steps at the same time, bounded work in flight, errors at once."""

import threading

import pytest

from segbench.inference.overlap import overlapped


def test_results_come_in_the_order_of_the_items():
    found = overlapped(
        range(20), read=lambda n: n + 1, work=lambda n, read: (n, read), finish=lambda n, made: (n, made)
    )
    assert list(found) == [(n, (n, n + 1)) for n in range(20)]
    assert list(overlapped([], read=print, work=print, finish=print)) == []


def test_the_three_steps_run_at_the_same_time():
    """Item 1 is read, item 0 worked on; then 2, 1 and 0: each waits until the other steps have begun."""
    barrier = threading.Barrier(3, timeout=20)

    def meet(number, wanted):
        if number == wanted:
            barrier.wait()
        return number

    found = overlapped(
        range(5),
        read=lambda n: meet(n, 3),
        work=lambda n, read: meet(n, 2),
        finish=lambda n, made: meet(n, 1),
    )
    assert list(found) == list(range(5))


def test_the_work_in_flight_is_bounded():
    state = {"read": 0, "worked": 0, "finished": 0, "most": 0}

    def read(number):
        state["read"] += 1
        state["most"] = max(state["most"], state["read"] - state["finished"])

    def finish(number, made):
        state["finished"] += 1

    for _ in overlapped(range(50), read=read, work=lambda n, inputs: None, finish=finish):
        pass
    assert 1 <= state["most"] <= 5


@pytest.mark.parametrize("step", ["read", "work", "finish"])
def test_an_error_of_a_step_is_raised_and_items_before_it_are_finished(step):
    finished = []

    def at(name, number):
        if name == step and number == 3:
            raise OSError(name)

    def finish(number, made):
        at("finish", number)
        finished.append(number)

    steps = {"read": lambda n: at("read", n), "work": lambda n, inputs: at("work", n), "finish": finish}
    with pytest.raises(OSError, match=step):
        list(overlapped(range(10), **steps))
    assert finished[:3] == [0, 1, 2]
