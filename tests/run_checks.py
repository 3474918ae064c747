"""Everything that CI checks, in order, each step shown; the tests come last. Run by `make test`.

`--all` (`make test-all`) adds the tests that are marked slow.
"""

from __future__ import annotations

import subprocess
import sys
import time

STEPS = {
    "style": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
    "format of the workflow": ["snakefmt", "--check", "--line-length", "120", "workflow"],
    "import directions": ["lint-imports"],
    "documentation site": ["mkdocs", "build", "--strict", "--quiet"],
    "tests": [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile"],
}


def main() -> int:
    """Run every step; return 1 when any failed."""
    failed = []
    slow = [] if "--all" in sys.argv[1:] else ["-m", "not slow"]
    steps = STEPS | {"tests": [*STEPS["tests"], *slow]}
    for name, command in steps.items():
        began = time.monotonic()
        print(f"== {name}: {' '.join(command)}", flush=True)
        if subprocess.run(command).returncode:
            failed.append(name)
        print(f"== {name}: {time.monotonic() - began:.0f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
