"""Two sides of a comparison, each a process of its own on the same cores; the peer in its own environment.

The environment variable NNUNET_PYTHON names the Python that has nnU-Net v2. A side is a command that takes a job file
and prints one line of JSON last.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).resolve().parent / "peers"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def nnunet_python() -> str:
    """Return the Python of nnU-Net's environment; without it the benchmark ends with the step to get it."""
    found = os.environ.get("NNUNET_PYTHON")
    if not found or not Path(found).exists():
        sys.exit("set NNUNET_PYTHON to the Python of an environment with nnunetv2 (docs/data_speed.md)")
    return found


def ours(module: str, job: Path) -> list[str]:
    """Return the command of our side: `python -m MODULE --job FILE`."""
    return [sys.executable, "-m", module, "--job", str(job)]


def peer(script: str, job: Path) -> list[str]:
    """Return the command of the peer's side."""
    return [nnunet_python(), str(PEERS / script), str(job)]


def run_side(command: list[str], *, cores: int) -> dict:
    """Run a side on the first `cores` cores that this process may use and return the JSON of its last line."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    if len(allowed) < cores:
        sys.exit(f"{cores} cores asked for, {len(allowed)} here")
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, allowed)), *command],
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
