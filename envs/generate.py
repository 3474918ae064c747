"""Write envs/segbench.yaml, the conda environment of every rule, from the pinned locks: one truth for both ways.

Snakemake copies the YAML away and hashes only it, so the pins stand inline; a `-r` line would break, and a change of
the lock would go unnoticed. Run: python envs/generate.py
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
HEAD = """\
# Generated from lock.txt and lock-no-deps.txt by envs/generate.py; do not edit.
channels:
  - conda-forge
dependencies:
  - python=3.12
  - pip
  - pip:
"""


def pins(name: str) -> list[str]:
    """Return the requirement lines of a lock file, comments left out."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def environment() -> str:
    """Return the text of segbench.yaml."""
    return HEAD + "".join(f"      - {pin}\n" for pin in pins("lock.txt") + pins("lock-no-deps.txt"))


if __name__ == "__main__":
    (FOLDER / "segbench.yaml").write_text(environment(), encoding="utf-8")
