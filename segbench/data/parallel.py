"""One function over many cases, in this process or in several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits

from segbench.core.errors import RunFailed

Item = TypeVar("Item")
Result = TypeVar("Result")


def mapped(work: Callable[[Item], Result], items: Sequence[Item], *, workers: int) -> Iterator[Result]:
    """Yield results in the order of the items; every process computes with one thread.

    Raises:
        RunFailed: when a process dies, for instance for lack of memory.
    """
    if workers == 1 or len(items) < 2:
        with threadpool_limits(1):
            yield from map(work, items)
        return
    with parallel_config("loky", inner_max_num_threads=1):
        results = Parallel(n_jobs=min(workers, len(items)), return_as="generator")(
            delayed(work)(item) for item in items
        )
        try:
            yield from results
        except BrokenProcessPool as error:
            message = "a worker process died, perhaps for lack of memory; take fewer workers"
            raise RunFailed(message) from error
