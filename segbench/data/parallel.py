"""One function over many cases, in this process or in several; problems of all cases come together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Protocol, TypeVar

from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits

from segbench.core.errors import InputError, Problem, RunFailed, raise_problems
from segbench.core.progress import Progress


class Named(Protocol):
    """A case, as far as progress shows it."""

    @property
    def case_id(self) -> str:
        """Its name."""
        ...


Item = TypeVar("Item")
NamedCase = TypeVar("NamedCase", bound=Named)
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


def of_every_case(
    work: Callable[[NamedCase], Result], cases: Sequence[NamedCase], *, title: str, workers: int
) -> list[Result]:
    """Return a result for every case, in order, with progress.

    Raises:
        InputError: the problems of all cases, when every case has been tried.
        RunFailed: a process died.
    """
    results: list[Result] = []
    problems: list[Problem] = []
    with Progress(total=len(cases), title=title) as progress:
        tried = mapped(partial(_result_or_problems, work=work), cases, workers=workers)
        for case, found in zip(cases, tried, strict=True):
            if isinstance(found, InputError):
                problems += found.problems
            else:
                results.append(found)
            progress.advance(case.case_id)
    raise_problems(problems)
    return results


def _result_or_problems(case: NamedCase, work: Callable[[NamedCase], Result]) -> Result | InputError:
    try:
        return work(case)
    except InputError as error:
        return error
