"""The scheduler looks for jobs when one ends, however many have ended before."""

import os
import subprocess
import sys

import pytest

from tests.paths import ROOT

JOBS, SLOW = 40, 2
SNAKEFILE = f"""
from segbench.experiment import graph


onstart:
    graph.look_for_jobs_when_one_ends(workflow)


rule all:
    input:
        expand("quick/{{number}}", number=range({JOBS})),
        expand("slow/{{number}}", number=range({SLOW})),


rule quick:
    output:
        "quick/{{number}}",
    priority: 1
    shell:
        "touch {{output}}"


rule slow:
    output:
        "slow/{{number}}",
    shell:
        "sleep 3; touch {{output}}"
"""


def looks(folder, *arguments: str) -> int:
    """Return how often the scheduler looked for jobs, of which two slow ones come last."""
    (folder / "Snakefile").write_text(SNAKEFILE)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--verbose", "--scheduler", "greedy", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr.count("Ready jobs: ")


@pytest.mark.parametrize(("arguments", "often"), [([], False), (["--max-jobs-per-timespan", "90/1s"], True)])
def test_the_scheduler_looks_once_per_job_unless_a_limit_is_asked_for(tmp_path, arguments, often):
    expected = JOBS + SLOW + 1  # and `all`
    assert (looks(tmp_path, *arguments) > expected + 10) == often
