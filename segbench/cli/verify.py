"""Rebuild a report, or that of a bundle, from its own scores.csv and run.json; status 1 names what differs.

Needs neither images nor a GPU nor torch. Equal bytes are expected for the versions of envs/lock.txt; figures drawn by
another matplotlib differ in bytes, tables do not.

--rescore and --retrain go on to the scores themselves. They need the results of the run below the working directory,
the data, and the whole installation.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.core.paths import RUN_RECORD, SCORES

if TYPE_CHECKING:
    from segbench.evaluation.rows import Row
    from segbench.experiment.config import Config

EXAMPLE = "python -m segbench verify reports/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("report", type=Path, help="folder of a rendered report, or a bundle (zip file)")
    parser.add_argument("--rescore", type=int, metavar="N", help="draw N test cases, predict and score them again")
    parser.add_argument("--draw", type=int, default=0, help="another number draws other cases (default 0)")
    parser.add_argument(
        "--retrain",
        metavar="CELL",
        help="train a job anew in a temporary folder (TMPDIR): its id as `status` prints it, or METHOD/TASK/SEED with "
        "the method as the page's address names it",
    )
    parser.add_argument(
        "--threads", type=int, help="threads of the numerical libraries (default: 1; for --retrain those of the run)"
    )


def run(args: argparse.Namespace) -> int:
    """Rebuild, compare, and say what differs; then score and train again as far as it is asked for."""
    from segbench.cli._counts import count_problems
    from segbench.core.errors import RunFailed, raise_problems

    raise_problems(count_problems(rescore=(args.rescore, 1), threads=(args.threads, 1)))
    further = args.rescore is not None or args.retrain is not None
    with _report(args.report, own_ids=further) as (folder, differing, configs):
        if differing:
            raise RunFailed(f"{args.report} is not what its score rows give: {'; '.join(differing)}")
        print(f"{args.report}: every file is rebuilt byte for byte from scores.csv and run.json", flush=True)
        if not further:
            return 0
        config, rows = _results(folder, configs)
    failed = [] if args.rescore is None else _rescore(args, config, rows)
    failed += [] if args.retrain is None else _retrain(args, config, rows)
    if failed:
        raise RunFailed("; ".join(failed))
    return 0


@contextmanager
def _report(path: Path, *, own_ids: bool) -> Iterator[tuple[Path, Sequence[str], Sequence[dict[str, Any]]]]:
    """Yield the folder of a report, what differs in it, and the resolved configs that a bundle holds.

    own_ids: whether the ids of the run are needed, which a bundle with pseudonyms lacks.
    """
    if path.is_dir():
        from segbench.reporting.verify import differing_files

        yield path, differing_files(path), []
        return
    from segbench.core.errors import input_error
    from segbench.reporting.bundle import checked

    with checked(path) as found:
        if found.manifest.pseudonymised and own_ids:
            fix = "name the report of the run, or a bundle without pseudonyms"
            raise input_error(path, found="pseudonyms", expected="the ids of cases in the run", fix=fix)
        yield found.report, found.differences, found.configs


def _results(report: Path, configs: Sequence[dict[str, Any]]) -> tuple[Config, list[Row]]:
    """Return the config of the run's results, which lie below the working directory, and the rows of the report."""
    from segbench.core.provenance import commit
    from segbench.core.run_record import read_run_record
    from segbench.evaluation.rescore import results_config
    from segbench.evaluation.rows import read_rows

    record = read_run_record(report / RUN_RECORD)
    if record.provenance.commit != commit():
        print(f"notice: the run was made by commit {record.provenance.commit}, this is {commit()}")
    return results_config(record, configs), read_rows(report / SCORES)


def _rescore(args: argparse.Namespace, config: Config, rows: Sequence[Row]) -> list[str]:
    """Score cases again, print a line for each and for each difference, and return what failed."""
    from segbench.core.memory import keep_freed_memory

    keep_freed_memory()  # before PyTorch allocates
    from segbench.cli._job import computing_device
    from segbench.evaluation.rescore import AXIS, ROUNDING, drawn_cases, rescored

    drawn = drawn_cases(config, rows, args.rescore, draw=args.draw)
    wrong = 0
    for item in rescored(drawn, lambda: computing_device(args.threads or 1)):
        rule = f"numbers within {ROUNDING} and {ROUNDING:.0%}: other {item.other}" if item.other else "exact"
        result = f"{len(item.differences)} cells differ" if item.differences else f"{len(item.drawn.rows)} rows equal"
        print(f"{item.drawn.name}: {item.how}; {result} ({rule})", flush=True)
        print(*(f"  {line}" for line in item.differences), sep="\n", end="\n" * bool(item.differences), flush=True)
        wrong += bool(item.differences)
    print(f"scored again: {len(drawn)} cases, draw {args.draw} of the random axis '{AXIS}'; {wrong} differ")
    return [f"{wrong} of {len(drawn)} cases have other scores than the table"] if wrong else []


def _retrain(args: argparse.Namespace, config: Config, rows: Sequence[Row]) -> list[str]:
    """Train a job anew, print what became of it, and return what failed."""
    from segbench.evaluation.retrain import Retraining, named_job
    from segbench.experiment.context import JobContext

    job = named_job(config, args.retrain)
    retraining = Retraining(JobContext(config, job))
    threads = args.threads or retraining.threads
    span = timedelta(seconds=round(retraining.seconds))
    print(f"{job.id}: training and evaluation took {span} in the run; made anew with {threads} threads", flush=True)
    found = retraining.run(rows, threads=threads)
    same = "equal" if found.weights[0] == found.weights[1] else f"{found.weights[1]}, in the run {found.weights[0]}"
    print(f"{job.id}: SHA-256 of the weights: {same}")
    print(f"{job.id}: {found.rows} rows compared, {len(found.differences)} cells differ")
    print(*(f"  {line}" for line in found.differences), sep="\n", end="\n" * bool(found.differences))
    if found.equal:
        return []
    promise = "equal bytes are promised here" if found.promised else f"no equal bytes are promised: {found.other}"
    return [f"{job.id} trained anew is not that of the run ({promise})"]
