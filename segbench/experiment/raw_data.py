"""Whether the data sets and lists of a run are on this machine, asked before the workflow deletes anything.

Snakemake removes the output of a job before it starts the job. With a mistyped `data.root` every manifest would be made
anew, so that all of them would be lost. Therefore absent data end the workflow with status 2, with one exception: a run
whose manifests, preprocessed cases and jobs are finished reads no image any more and may be rendered without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from segbench.core.errors import Problem
from segbench.core.paths import RunPaths
from segbench.experiment import jobs
from segbench.experiment.config import Config


def folder_of(config: Config, task: str) -> Path:
    """Return the folder of a task's data set."""
    return config.data_root / config.dataset_cards[task]["folder"]


def is_absent(config: Config, task: str) -> bool:
    """Tell whether a task's folder is missing or empty; generated data are never absent."""
    folder = folder_of(config, task)
    return config.data.phantom is None and not (folder.is_dir() and any(folder.iterdir()))


def absent_data(config: Config) -> Iterator[Problem]:
    """Yield a problem for each data set and each list that is not on this machine, with the step to get it."""
    if config.data.phantom is None:
        if not config.data_root.is_dir():
            fix = "fix data.root or SEGBENCH_DATA"
            yield Problem(f"data.root {config.data_root}", "no folder", "the folder of the data sets", fix)
        for task in config.all_task_names:
            if is_absent(config, task):
                card = config.dataset_cards[task]
                yield Problem(
                    f"data of {task}", f"no files in {folder_of(config, task)}", card["title"], card["obtain"]
                )
    for path in config.split_paths:
        if not path.is_file():
            yield Problem(str(path), "no file", "a list of data.split_files", "see docs/protocols.md")


def data_problems(config: Config, finished: Callable[[jobs.Job], bool]) -> list[Problem]:
    """Return the problems of absent data, or none when no job of the run would read the data.

    Args:
        config: the checked config.
        finished: tells whether the results of an evaluation, and of its training, are there and of the same settings.
    """
    problems = list(absent_data(config))
    return [] if problems and _only_rendering(config, finished) else problems


def _only_rendering(config: Config, finished: Callable[[jobs.Job], bool]) -> bool:
    paths, tasks = RunPaths(config.run), config.all_task_names
    files = [paths.splits, paths.audit, *map(paths.manifest, tasks), *map(paths.preprocessed, tasks)]
    return all(path.is_file() for path in files) and all(finished(job) for job in jobs.all_jobs(config))
