"""A pipeline of three steps: while one item is worked on, the next is read and the one before is finished."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")
Made = TypeVar("Made")
Result = TypeVar("Result")


def overlapped(
    items: Iterable[Item],
    *,
    read: Callable[[Item], Read],
    work: Callable[[Item, Read], Made],
    finish: Callable[[Item, Made], Result],
) -> Iterator[Result]:
    """Yield the results in the order of the items.

    `read` and `finish` run in one thread each, `work` in the caller's, so that libraries that release the interpreter's
    lock run at the same time. One item is read ahead, and at most one waits to be finished, so that memory is bounded.
    The first exception of a step ends the pipeline; items before it are finished.
    """
    with ThreadPoolExecutor(1, "read") as reading, ThreadPoolExecutor(1, "finish") as finishing:
        waiting: deque[tuple[Item, Future[Read]]] = deque()
        finished: deque[Future[Result]] = deque()
        coming = iter(items)

        def read_ahead() -> None:
            for item in coming:
                waiting.append((item, reading.submit(read, item)))
                return

        read_ahead()
        while waiting:
            item, found = waiting.popleft()
            inputs = found.result()
            read_ahead()
            made = work(item, inputs)
            del inputs, found
            while len(finished) > 1:
                yield finished.popleft().result()
            finished.append(finishing.submit(finish, item, made))
            del made
        while finished:
            yield finished.popleft().result()
