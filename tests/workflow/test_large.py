"""The graph of thousands of jobs stays small: a dry run of config/large.yaml within 250 MB and 15 s."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

MOST_MB = 250
IMPORTED_MB = 68
"""What Python and `import snakemake.cli` take with the packages of envs/lock.txt; further plugins of Snakemake add."""
MOST_SECONDS = 15
PROGRAM = """
import time

def peak():
    return next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]

import snakemake.cli

imported = peak()
try:
    snakemake.cli.main()
finally:
    print()
    print(imported, peak(), time.process_time())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the peak memory that Linux tells")
def test_a_dry_run_of_the_large_config_takes_little_memory_and_time(tmp_path):
    workflow = ["--snakefile", str(ROOT / "workflow" / "Snakefile")]
    config = ["--configfile", str(ROOT / "config" / "large.yaml")]
    command = [sys.executable, "-c", PROGRAM, "-n", "--quiet", *workflow, *config]
    environment = os.environ | {"SEGBENCH_DATA": str(tmp_path)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    requests = list((tmp_path / "results" / "large" / "requests").rglob("*.json"))
    assert len(requests) > 6000, "the graph was built"
    imported, peak, seconds = (float(word) for word in ended.stdout.splitlines()[-1].split())
    assert (peak - imported) * 1024 / 1e6 <= MOST_MB - IMPORTED_MB
    assert seconds <= MOST_SECONDS, "of the processor"
