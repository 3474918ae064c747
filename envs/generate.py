"""Write the conda environments of the rules from the pinned locks: one truth for both ways of installing.

segbench.yaml trains and predicts, on a GPU or a processor; segbench-cpu.yaml is the same without the libraries of CUDA;
light.yaml is for rules that need no network. Snakemake copies a YAML away and hashes only it, so the pins stand inline;
a `-r` line would break, and a change of the lock would go unnoticed. Run: python envs/generate.py
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
HEAD = """\
# Generated from lock.txt and lock-no-deps.txt by envs/generate.py; do not edit.
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""
CPU_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"
ONLY_FOR_NETWORKS = frozenset(
    {
        *("torch", "filelock", "fsspec", "mpmath", "networkx", "sympy"),
        *("monai", "batchgeneratorsv2", "batchgenerators", "argparse", "future", "imageio", "lazy-loader"),
        *("linecache2", "scikit-image", "tifffile", "traceback2", "unittest2"),
    }
)
"""Packages of the lock that only torch and what is built on it ask for."""


def pins(name: str) -> list[str]:
    """Return the requirement lines of a lock file, comments left out."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def environments() -> dict[str, str]:
    """Return file name -> text of every environment."""
    lock = pins("lock.txt")
    full = lock + pins("lock-no-deps.txt")
    cpu = [CPU_INDEX, *(f"{pin}+cpu" if pin.startswith("torch==") else pin for pin in full)]
    light = [pin for pin in lock if pin.partition("==")[0] not in ONLY_FOR_NETWORKS]
    return {"segbench.yaml": _text(full), "segbench-cpu.yaml": _text(cpu), "light.yaml": _text(light)}


def _text(lines: list[str]) -> str:
    return HEAD + "".join(f"      - {line}\n" for line in lines)


if __name__ == "__main__":
    for name, text in environments().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
