"""Look up the pinned packages in an advisory database: make audit.

Ends with status 1 when a pinned version has a known vulnerability. pip-audit is installed into a temporary folder.
Where it or the database cannot be reached, the last line says so, nothing was checked, and the status is 0.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
AUDIT = "pip-audit==2.10.1"
DATABASE = "https://pypi.org/pypi/pip/24.0/json"
"""One entry of the database that pip-audit asks."""


def main() -> int:
    """Check both locks."""
    try:
        with urllib.request.urlopen(DATABASE, timeout=20):
            pass
    except (urllib.error.URLError, TimeoutError) as error:
        print(f"SKIPPED: the advisory database cannot be reached ({error}); nothing was checked")
        return 0
    with tempfile.TemporaryDirectory() as target:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", target, AUDIT]
        if subprocess.run(install).returncode:
            print(f"SKIPPED: {AUDIT} cannot be installed; nothing was checked")
            return 0
        command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        for name in ("lock.txt", "lock-no-deps.txt", "lock-dev.txt", "lock-slurm.txt"):
            command += ["--requirement", str(FOLDER / name)]
        return subprocess.run(command, env=os.environ | {"PYTHONPATH": target}).returncode


if __name__ == "__main__":
    sys.exit(main())
