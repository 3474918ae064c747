# What the Snakefile uses before there is a rule.
import gc
import os
import sys

from segbench.core.errors import InputError, path_problem

gc.freeze()  # the graph's objects live to the end: searching them for garbage takes a fifth of the time of a dry run
gc.set_threshold(50_000, 20, 50)


def checked(work, *arguments, before_exit=lambda: None, **options):
    """Do a part of the setup; a problem of the input ends with status 2, where Snakemake ends any exception with 1."""
    try:
        return work(*arguments, **options)
    except InputError as error:
        problems = error.problems
    except OSError as error:
        problem = path_problem(error)
        if problem is None:
            raise
        problems = [problem]
    print(
        *(problem.line() for problem in problems),
        sep="\n",
        file=sys.stderr,
        flush=True,
    )
    before_exit()
    os._exit(2)
