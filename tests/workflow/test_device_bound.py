"""A local workflow starts as many jobs with a GPU at a time as there are devices."""

import os
import subprocess
import sys

import pytest

from segbench.core.devices import FAKE, SCHEDULER_VARIABLES, VISIBLE
from tests.paths import ROOT

SNAKEFILE = """
from segbench.experiment import graph

graph.bound_device_jobs(workflow)


rule all:
    input:
        expand("{kind}/{number}", kind=["network", "control"], number=range(6)),


rule job:
    output:
        "{kind}/{number}",
    resources:
        gpu=lambda wildcards: int(wildcards.kind == "network"),
    shell:
        "echo + >>{wildcards.kind}.events; sleep 0.5; echo - >>{wildcards.kind}.events; touch {output}"
"""


def most_at_a_time(folder, *arguments: str, devices: str) -> dict[str, int]:
    """Return kind of job -> how many ran at a time, of six of each on 12 cores."""
    (folder / "Snakefile").write_text(SNAKEFILE)
    hidden = {*SCHEDULER_VARIABLES, VISIBLE}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"PYTHONPATH": str(ROOT), FAKE: devices}
    command = [sys.executable, "-m", "snakemake", "--cores", "12", *arguments]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    found = {}
    for kind in ("network", "control"):
        running = [0]
        for line in (folder / f"{kind}.events").read_text().split():
            running.append(running[-1] + (1 if line == "+" else -1))
        assert len(running) == 13
        found[kind] = max(running)
    return found


@pytest.mark.parametrize(
    ("devices", "arguments", "bound"),
    [("GPU-a,GPU-b", [], 2), ("GPU-a,GPU-b", ["--resources", "gpu=1"], 1), ("", [], None)],
)
def test_networks_are_bounded_by_the_devices_and_controls_are_not(tmp_path, devices, arguments, bound):
    found = most_at_a_time(tmp_path, *arguments, devices=devices)
    assert found["network"] == bound if bound else found["network"] > 2
    assert found["control"] > 2
